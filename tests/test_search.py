"""Which fields are tuned, over which values: read, refused, and what a trial makes of them."""

from importlib import resources

import numpy as np
import pytest

from pertcast.config import Recipe, load_recipe, load_space, recipe_names, recipe_toml
from pertcast.errors import InputError
from pertcast.features.fitted import STATISTICS
from pertcast.models.registry import build, entries
from pertcast.search import Dimension, make_space, parse, value_of, with_values

READ = {
    "settings.a=1:8": Dimension("settings.a", 1, 8),
    " settings.a = 1:8": Dimension("settings.a", 1, 8),
    "settings.a=1:8:log": Dimension("settings.a", 1, 8, log=True),
    "settings.a=1:8.5": Dimension("settings.a", 1.0, 8.5),
    "features.smooth=1e-3:1:log": Dimension("features.smooth", 0.001, 1.0, log=True),
    "settings.loss=mse,huber": Dimension("settings.loss", choices=('"mse"', '"huber"')),
    "settings.n=1,2,true": Dimension("settings.n", choices=("1", "2", "true")),
    'settings.blocks=["a","b"],["c"]': Dimension("settings.blocks", choices=('["a", "b"]', '["c"]')),
    "space=response,t": Dimension("space", choices=('"response"', '"t"')),
}


@pytest.mark.parametrize("text", READ)
def test_what_is_read(text):
    assert parse(text) == READ[text]
    assert all(type(one) is type(two) for one, two in zip(parse(text).corners, READ[text].corners, strict=True))


REFUSED = {
    "settings.a": "Cannot read what to search from 'settings.a'. Expected 'field=low:high', ",
    "settings.a=": "Cannot read what to search from",
    "settings.a=1:2:lg": "Cannot read what to search from 'settings.a=1:2:lg'.",
    "settings.a=x:y": "Cannot read what to search from",
    "settings.a=2:1": "The range 'settings.a=2:1': its low end 2 is not below its high end 1",
    "settings.a=0:1:log": "The range .*: its low end 0 must be above 0 on a log scale",
    "settings.a=3": "Only one value of 'settings.a' is given to search",
    "name=a,b": "Field 'name' cannot be searched. Name one of the model's settings or of the features.",
    "settings.widht=1:2": "Settings of model 'ridge': 'widht': .* got 1",
    "features.smooth=-1:2": "Recipe 'ridge': 'features.smooth': .* got -1",
    'features.blocks=["morgn"],["morgan"]': "Unknown feature block 'morgn'. Did you mean 'morgan'\\?",
    "settings.blocks.x=1:2": "Cannot set 'settings.blocks.x': 'blocks' is a single value, not a group",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text):
    """Before any trial: what cannot be read, and values that the recipe does not allow."""
    with pytest.raises(InputError, match=REFUSED[text]):
        make_space(load_recipe("ridge"), [text])


def test_a_field_twice_and_a_model_without_a_space():
    with pytest.raises(InputError, match="more than once: features.smooth. Give each once."):
        make_space(load_recipe("ridge"), ["features.smooth=1:2", "features.smooth=2:3"])
    with pytest.raises(InputError, match="No fields to tune are declared for model 'additive'. Name fields with --sea"):
        make_space(load_recipe("additive"))
    (given,) = make_space(load_recipe("additive"), ["settings.components=2:9"])
    assert given.field == "settings.components"


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_space(load_recipe(name).model)])
def test_every_declared_space_is_allowed(name):
    """A file of a model that joins is held to its fields: corners build, own values are numbers or words of it."""
    recipe = load_recipe(name)
    space = make_space(recipe)
    assert len(space) >= 2
    for dimension in space:
        assert value_of(recipe, dimension.field) is not None, dimension.field
    everything = with_values(recipe, {d.field: d.corners[-1] for d in space})
    build(everything.model, everything.settings)
    searches_features = any(dimension.field.startswith("features.") for dimension in space)
    assert not searches_features or set(recipe.features.blocks) & set(STATISTICS)


def test_declared_spaces_are_of_registered_models():
    files = resources.files("pertcast").joinpath("recipes", "search").iterdir()
    assert {path.name.removesuffix(".toml") for path in files} <= set(entries())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_written_is_the_recipe_read(name, tmp_path):
    """TOML there and back, for every recipe; comments are lost, nothing else."""
    recipe = load_recipe(name)
    path = tmp_path / "other.toml"
    path.write_text(recipe_toml(recipe))
    assert load_recipe(str(path)) == recipe


def test_awkward_words_come_back(tmp_path):
    settings = {"terms": {"a*b": 1.0, "c.d": -2e-07}, "words": ['say "hm"', "é\n"], "deep": {"on": True, "n": {"x": 1}}}
    recipe = Recipe(name="odd", model="ridge", reason='a "quoted" reason', settings=settings)
    path = tmp_path / "odd.toml"
    path.write_text(recipe_toml(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


def test_values_are_put_in_place():
    recipe = load_recipe("transformer")
    changed = with_values(recipe, {"settings.training.lr": 0.01, "settings.width": 8, "features.smooth": 3.0})
    assert changed.settings["training"]["lr"] == value_of(changed, "settings.training.lr") == 0.01
    assert (changed.settings["width"], changed.features.smooth) == (8, 3.0)
    assert value_of(recipe, "settings.width") == 64
    assert value_of(recipe, "settings.nothing.there") is None
    assert recipe == load_recipe("transformer")


def test_suggestions_are_short_and_inside():
    """A stand-in for the sampler gives the ends and a long number."""

    class Given:
        def __init__(self, value):
            self.value = value

        def suggest_float(self, field, low, high, log):
            return self.value

    dimension = Dimension("settings.a", 0.12345, 0.98765)
    assert [dimension.suggest(Given(v)) for v in (0.12345, 0.98765, np.pi / 4)] == [0.12345, 0.98765, 0.785]
