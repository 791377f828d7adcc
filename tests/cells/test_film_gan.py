"""What the FiLM-GAN promises of seeds, resumption, options, units and files."""

from dataclasses import replace
from itertools import pairwise

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, csr_matrix

from cell_cases import make_cells
from command_line import pertcast
from log_cases import dense, log_cells, three_types
from pertcast.cells.film_gan import FilmGan, FilmGanConfig
from pertcast.cells.log_scale import from_log1p
from pertcast.cells.registry import build
from pertcast.config import load_cell_recipe
from pertcast.errors import InputError, NotFittedError
from pertcast.nn import film_gan_fit


def quick(**settings) -> FilmGanConfig:
    training = {"steps": 12, "evaluate_every": 4, "cells": 8, **settings.pop("training", {})}
    return FilmGanConfig(**{"hidden": 8, "latent": 4, "axes": 4, "training": training, **settings})


@pytest.fixture(scope="module")
def small():
    return FilmGan(quick()).fit(make_cells(), seed=0)


@pytest.fixture
def control():
    cells = make_cells(seed=1)
    return cells.take(cells.untreated)


def test_same_seed_same_numbers(small, control):
    """R21, R38: fits, means and draws repeat by seed, and differ by seed; the caller's random state is untouched."""
    before = torch.get_rng_state()
    again, other = (FilmGan(quick()).fit(make_cells(), seed=seed) for seed in (0, 1))
    ask = {"seed": 3, "sample": True}
    assert_array_equal(dense(again.predict(control, "up", **ask)), dense(small.predict(control, "up", **ask)))
    assert again.history == small.history
    assert not np.array_equal(dense(other.predict(control, "up", seed=3)), dense(small.predict(control, "up", seed=3)))
    means = [dense(small.predict(control, "up", seed=seed)) for seed in (0, 1)]
    assert_array_equal(*means)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_that_was_cut_off_ends_bit_for_bit_like_one_that_was_not(small, tmp_path, monkeypatch):
    """Checkpoint at step 8 of 12; training is stopped in step 10 by force, and taken up."""
    config = quick(training={"checkpoint_every": 4})
    take_step = film_gan_fit._Trainer.take_step

    def stop(trainer):
        if trainer.step == 10:
            raise KeyboardInterrupt
        take_step(trainer)

    monkeypatch.setattr(film_gan_fit._Trainer, "take_step", stop)
    with pytest.raises(KeyboardInterrupt):
        FilmGan(config).fit(make_cells(), seed=0, checkpoint=tmp_path)
    steps = []
    monkeypatch.setattr(
        film_gan_fit._Trainer, "take_step", lambda trainer: (steps.append(trainer.step), take_step(trainer))
    )
    resumed = FilmGan(config).fit(make_cells(), seed=0, checkpoint=tmp_path)
    assert steps == [8, 9, 10, 11]
    assert resumed.history == small.history
    for name, value in small.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[name], value), name
    with pytest.raises(InputError, match="is of other settings, another seed or other cells"):
        FilmGan(config).fit(make_cells(), seed=1, checkpoint=tmp_path)


def test_best_weights_by_a_held_out_distance_are_kept(monkeypatch):
    """R09, R29: distances 3, 1, 2 are injected; the weights kept are those of the second evaluation."""
    distances, seen = iter([3.0, 1.0, 2.0]), []

    def measured(trainer):
        seen.append({name: value.clone() for name, value in trainer.generator.state_dict().items()})
        return next(distances)

    monkeypatch.setattr(film_gan_fit._Trainer, "held_out_energy", measured)
    model = FilmGan(quick()).fit(make_cells(), seed=0)
    assert [entry["held_out_energy"] for entry in model.history] == [3.0, 1.0, 2.0]
    for name, value in model.net.state_dict().items():
        assert torch.equal(value, seen[1][name]), name
    assert any(not torch.equal(value, seen[2][name]) for name, value in seen[1].items())


OPTIONS = {
    "hidden": 6, "latent": 3, "heads": 2, "landmarks": 2, "head_width": 3, "dropout": 0.5, "axes": 2, "most_gain": 2.0,
    "noise": False, "critic_heads": 1, "find_contexts": 2, "most_genes": 4,
}  # fmt: skip
TRAINING = {
    "steps": 11, "groups": 1, "cells": 6, "balanced": False, "warm_start": "none", "directions": "any", "moment": 0.0,
    "energy": 0.0, "marginal": 0.0, "adversarial": 0.5, "sober": 0.0, "identity": 5.0, "cycle": 1.0, "detection": False,
    "critic_steps": 2, "penalty": "divergence", "penalty_weight": 1.0, "lr": 1e-2, "critic_lr": 1e-2,
    "weight_decay": 0.5, "schedule": "constant", "clip": 0.01, "ema": 0.0, "valid_share": 0.4, "evaluate_every": 3,
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [*OPTIONS.items(), *TRAINING.items()])
def test_every_option_has_an_effect(name, value, small, control):
    """R30: each is flipped, and the fitted numbers change."""
    changes = {name: value} if name in OPTIONS else {"training": {name: value}}
    other = FilmGan(quick(**changes)).fit(make_cells(), seed=0)
    got, want = (dense(model.predict(control, "up", seed=0)) for model in (other, small))
    if name == "evaluate_every":  # another number of looks; the weights differ where another look is the best
        assert [entry["step"] for entry in other.history] == [3, 6, 9, 12]
    else:
        assert not np.array_equal(got, want)


def test_every_option_is_in_the_list_above():
    free = {"device", "checkpoint_every"}  # where it runs and how often it is kept change no number
    assert set(FilmGanConfig.model_fields) - {"training", "numbers"} == set(OPTIONS)  # numbers: in a test of its own
    assert set(type(FilmGanConfig().training).model_fields) - free == set(TRAINING)


def test_the_published_preset_builds_and_trains(control):
    """System 000 with its defects mended: the settings of the recipe, on a small network."""
    recipe = load_cell_recipe("system-000")
    settings = {**recipe.settings, "hidden": 8, "latent": 4}
    settings["training"] = {**settings["training"], "steps": 3}
    model = build(recipe.model, settings).fit(make_cells(), seed=0)
    draws = [dense(model.predict(control, "up", seed=seed, sample=True)) for seed in (0, 0)]
    assert_array_equal(*draws)


def test_counts_in_counts_out_and_log_values_stay_log_values(small, control):
    """R28: one row per cell asked; drawn counts are whole, and rounded up or down so that their mean stays."""
    drawn = small.predict(control, "up", seed=0, sample=True)
    assert_array_equal(drawn.ids, control.ids)
    assert_array_equal(dense(drawn), np.round(dense(drawn)))
    wanted = np.tile([0.0, 0.3, 2.75], (20_000, 1))
    cells = replace(log_cells(np.ones((20_000, 1)), ["control"] * 20_000), unit="counts")
    rounded = from_log1p(np.log1p(wanted * 1e4), cells, rng=np.random.default_rng(0))
    assert_allclose(rounded.mean(axis=0), wanted[0], atol=0.02)
    assert set(np.unique(rounded)) == {0.0, 1.0, 2.0, 3.0}
    x, treated, _ = three_types(0, n=60, g=8)
    cells = log_cells(x, np.where(treated, "drug", "control"))
    model = FilmGan(quick()).fit(cells, seed=0)
    got = model.predict(cells.take(~treated), "drug", seed=0)
    assert got.unit == "log1p"
    assert got.genes == cells.genes


def test_a_cell_on_its_own_is_predicted_as_in_any_batch(small, control):
    """R01, R05 through the whole model: 1, 2, 8 and 33 cells, any order, genes shuffled."""
    whole = dense(small.predict(control, "down", seed=0))
    rng = np.random.default_rng(0)
    for size in (1, 2, 8, 33):
        rows = rng.permutation(len(control))[:size]
        assert_allclose(dense(small.predict(control.take(rows), "down", seed=0)), whole[rows], rtol=1e-5, atol=1e-5)
    turned = control.select(control.genes[::-1])
    assert_array_equal(dense(small.predict(turned, "down", seed=0)), whole)


def test_pairing_of_cells_is_never_asked():
    """R23: treated cells under other ids and contexts of another order give the same groups."""
    cells = make_cells()
    renamed = replace(cells, ids=cells.ids[::-1].copy())
    got, want = (FilmGan(quick()).fit(part, seed=0).net.state_dict() for part in (renamed, cells))
    assert all(torch.equal(value, want[name]) for name, value in got.items())


def test_poisoned_treated_cells_of_what_is_asked_change_nothing(small, control):
    """R03, S000-07: `predict` sees the cells given, and nothing of treated ones."""
    cells = make_cells(seed=1)
    poisoned = replace(cells, x=cells.x * csr_array(np.where(cells.untreated, 1, 1e6)[:, None]))
    got = small.predict(poisoned.take(poisoned.untreated), "up", seed=0)
    assert_array_equal(dense(got), dense(small.predict(control, "up", seed=0)))


def test_save_and_load(small, control, tmp_path):
    """S000-07."""
    small.save(tmp_path)
    loaded = FilmGan(FilmGanConfig()).load(tmp_path)
    assert loaded.config == small.config
    for sample in (False, True):
        got, want = (model.predict(control, "up", seed=4, sample=sample) for model in (loaded, small))
        assert_array_equal(dense(got), dense(want))


def test_command_line_from_file_to_scores(tmp_path):
    """S000-07: fit, predict and evaluate as commands; whole counts come out, and the run says what it was."""
    for name, seed in (("train", 0), ("new", 1)):
        cells = make_cells(seed)
        obs = pd.DataFrame({"drug": list(cells.condition), "type": list(cells.context)}, index=list(cells.ids))
        data = ad.AnnData(csr_matrix(cells.x), obs, pd.DataFrame(index=list(cells.genes)))
        data.write_h5ad(tmp_path / f"{name}.h5ad")
    for label in ("control", "up"):
        data[data.obs["drug"] == label].copy().write_h5ad(tmp_path / f"{label}.h5ad")
    keys = ("--condition-key", "drug", "--control", "control", "--context-key", "type")
    sizes = ("--set", "training.steps=4", "--set", "hidden=8", "--set", "latent=3")
    run, out = tmp_path / "run", tmp_path / "out.h5ad"
    for command in (
        ("fit", "film-gan", tmp_path / "train.h5ad", *keys, *sizes, "--out", run),
        ("predict", run, tmp_path / "new.h5ad", "--condition", "up", "--out", out, "--sample"),
        ("evaluate", out, tmp_path / "up.h5ad", "--control", tmp_path / "control.h5ad", "--json"),
    ):
        done = pertcast("cells", *command)
        assert done.code == 0, done.err
    assert "energy_distance" in done.out
    drawn = ad.read_h5ad(out).X
    assert_array_equal(drawn.data, np.round(drawn.data))


def test_wrong_use_is_refused(small, control):
    with pytest.raises(NotFittedError, match="asked to read cells before `fit`"):
        FilmGan(quick()).predict(control, "up", seed=0)
    with pytest.raises(InputError, match=r"Unknown condition 'upp'. Did you mean 'up'\?"):
        small.predict(control, "upp", seed=0)
    with pytest.raises(InputError, match="trained on counts values, got log1p values"):
        small.predict(replace(control, unit="log1p"), "up", seed=0)
    with pytest.raises(InputError, match=r"below 0 or not finite, first -1.0. Give counts values"):
        small.predict(replace(control, x=csr_array(-np.ones(control.x.shape))), "up", seed=0)
    with pytest.raises(InputError, match="no cells"):
        small.predict(control.take(np.arange(0)), "up", seed=0)
    with pytest.raises(InputError, match="and 0 treated ones"):
        FilmGan(quick()).fit(control, seed=0)
    with pytest.raises(InputError, match="heads is 0"):
        FilmGan(quick(heads=0)).fit(make_cells(), seed=0).attention(control, "up")


def test_several_factors_doses_and_vectors_are_conditions(control):
    """R36: trained on A, B and doses of C, asked for A+B and a dose between; a described compound never seen."""
    cells = make_cells()
    label = {"control": "control", "up": "A", "down": "B"}
    condition = np.array([label[name] for name in cells.condition], dtype=object)
    condition[(condition == "A") & (np.arange(len(cells)) % 4 == 0)] = "C@1"
    condition[(condition == "A") & (np.arange(len(cells)) % 4 == 1)] = "C@4"
    model = FilmGan(quick()).fit(replace(cells, condition=condition), seed=0)
    answers = [dense(model.predict(control, name, seed=0)) for name in ("A", "B", "A+B", "C@1", "C@2.5", "C@4")]
    for one, other in pairwise(answers):
        assert not np.array_equal(one, other)
    linear = FilmGan(quick(numbers="linear")).fit(replace(cells, condition=condition), seed=0)
    assert not np.array_equal(dense(linear.predict(control, "C@2.5", seed=0)), answers[4])
    vectors = {name: np.array(v, float) for name, v in {"up": [1, 0], "down": [0, 1], "new": [0.5, 0.5]}.items()}
    described = FilmGan(quick()).describe(vectors).fit(cells, seed=0)
    assert np.isfinite(dense(described.predict(control, "new", seed=0))).all()
    with pytest.raises(InputError, match=r"Unknown condition 'newer'.*Describe it by a vector"):
        described.predict(control, "newer", seed=0)
