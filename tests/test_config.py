"""Recipes: short differences from defaults, faults said in the user's spelling."""

import pytest

from pertcast.config import load_preset, load_recipe
from pertcast.errors import InputError


def test_changes_are_applied_where_they_point():
    recipe = load_recipe("ridge", ["settings.components=7", "features.smooth=0.5", "name=mine"])
    assert (recipe.settings["components"], recipe.features.smooth, recipe.name) == (7, 0.5, "mine")
    assert recipe.model == "ridge"


def test_the_digest_follows_the_content_not_the_words():
    """R30: every option that changes the numbers changes the digest; the reason and the device do not."""
    recipe = load_recipe("transformer")
    assert recipe.digest() == recipe.model_copy(update={"reason": "another"}).digest()
    assert recipe.digest() == recipe.on_device("cuda").digest() == recipe.on_device("cpu").digest()
    for change in ("settings.width=32", "features.smooth=9", "settings.training.epochs=3"):
        assert load_recipe("transformer", [change]).digest() != recipe.digest()


def test_a_recipe_of_ones_own(tmp_path):
    path = tmp_path / "my-ridge.toml"
    path.write_text('model = "ridge"\nreason = "mine"\n[settings]\ncomponents = 5\n')
    recipe = load_recipe(str(path))
    assert (recipe.name, recipe.settings) == ("my-ridge", {"components": 5})


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("rigde", [], r"Unknown recipe 'rigde'. Did you mean 'ridge'\?.*Or give the path"),
        ("ridge", ["components"], r"Cannot read the change 'components'. Expected 'group.field=value'"),
        ("ridge", ["model.x=3"], r"Cannot set 'model.x': 'model' is a single value"),
        ("ridge", ["features.smoth=1"], r"(?s)Recipe 'ridge': 'features.smoth': Extra inputs.*got 1"),
        ("ridge", ["features.smooth=-1", "modle=3"], r"(?s)Recipe 'ridge' has 2 problems:.*'features.smooth'.*'modle'"),
    ],
)
def test_faults_are_said(name, changes, message):
    with pytest.raises(InputError, match=message):
        load_recipe(name, changes)


def test_broken_toml_and_unknown_presets(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("model = ")
    with pytest.raises(InputError, match="is not valid TOML"):
        load_recipe(str(path))
    with pytest.raises(InputError, match=r"Unknown preset 'fats'. Did you mean 'fast'\?"):
        load_preset("fats")
