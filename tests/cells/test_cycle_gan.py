"""The cycle-GAN on simulated cells of known truth: lines, knock-outs, two modes, rare and new lines."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from scipy.stats import pearsonr
from sklearn.linear_model import LogisticRegression, Ridge

from pertcast.cells import registry
from pertcast.cells.cycle_gan import CycleGan, CycleGanConfig
from pertcast.cells.wins import compare_models
from pertcast.errors import InputError
from pertcast.metrics.distribution import energy_distance, mae_of_means, per_gene_variance_ratio
from pertcast.nn.cycle_gan_batches import AdaptTraining
from pertcast.types import Cells

G, KNOCKOUTS, LINES = 40, 5, 3
QUICK = {"hidden": (48, 32), "latent": 8, "critic_hidden": (32,), "recogniser_hidden": 32, "axes": 12}


def effect(knockout: int) -> np.ndarray:
    """What a knock-out adds to the log values of every line: five genes up, three down."""
    change = np.zeros(G)
    change[knockout * 5 : knockout * 5 + 5] = 1.5
    change[25 + knockout * 3 : 28 + knockout * 3] = -1.0
    return change


def lines(seed: int = 0, *, size: int = 60, count: int = LINES, knockouts: int = KNOCKOUTS) -> Cells:
    """Draw log values of lines, untreated and under knock-outs. Each line's own level and half of a line's own effect
    come on top of what all share; genes 0 to 3 of a cell are on together or off together in half of the cells.
    """
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(7)
    level, own = fixed.uniform(1.5, 4, (20, G)), fixed.normal(0, 0.1, (20, 10, G))
    parts, condition, context = [], [], []
    for line in range(count):
        for number in range(-1, knockouts):
            x = np.tile(level[line], (size, 1))
            if number >= 0:
                x = x + effect(number) + own[line, number]
            x = x + rng.normal(0, 0.3, (size, G))
            parts.append(np.maximum(x, 0))
            condition += ["control" if number < 0 else f"KO{number}"] * size
            context += [f"line{line}"] * size
    return pack(np.concatenate(parts), condition, context)


def pack(x: np.ndarray, condition: list[str], context: list[str], **change) -> Cells:
    n = len(x)
    made = Cells(
        np.array([f"cell{i}" for i in range(n)], dtype=object), tuple(f"GENE{j}" for j in range(x.shape[1])),
        csr_array(x.astype(np.float32)), "log1p", np.array(condition, dtype=object), np.array(context, dtype=object),
        np.full(n, "batch", dtype=object), "control",
    )  # fmt: skip
    return replace(made, **change)


def model(steps: int = 80, **change) -> CycleGan:
    training = {"steps": steps, "cells": 16, "detection": False, **change.pop("training", {})}
    return CycleGan(CycleGanConfig(**{**QUICK, **change, "training": training}))


def of(cells: Cells, condition: str, context: str) -> Cells:
    return cells.take((cells.condition == condition) & (cells.context == context))


def dense(cells: Cells) -> np.ndarray:
    return cells.x.toarray()


@pytest.fixture(scope="module")
def cells() -> Cells:
    return lines()


@pytest.fixture(scope="module")
def held() -> Cells:
    return lines(seed=1)


@pytest.fixture(scope="module")
def fitted(cells) -> CycleGan:
    """Line 2 was never treated in training."""
    return model().fit(cells.take(cells.untreated | (cells.context != "line2")), seed=0)


def test_unpaired_cells_of_lines_and_knockouts_train_with_finite_losses(fitted):
    """S003-01."""
    names = {"cycle_x", "cycle_y", "kl", "recognise", "identity", "adversarial", "critic_loss", "held_out_energy"}
    for entry in fitted.history:
        assert names < set(entry)
        assert np.isfinite(list(entry.values())).all()


def test_a_context_never_treated_is_predicted_better_than_by_no_change_and_mean_shift(fitted, cells, held):
    """S003-16: a win per knock-out in the line that was never treated, against references of the same training."""
    train = cells.take(cells.untreated | (cells.context != "line2"))
    shift = registry.build("mean-shift").fit(train, seed=0)
    control, errors = of(held, "control", "line2"), []
    for number in range(KNOCKOUTS):
        true = dense(of(held, f"KO{number}", "line2"))
        mine = fitted.predict(control, f"KO{number}", seed=0, sample=True)
        sides = dense(mine), dense(shift.predict(control, f"KO{number}", seed=0)), dense(control)
        errors.append([energy_distance(y_true=true, y_pred=side) for side in sides])
    errors = np.array(errors)
    assert (errors[:, 0] < 0.2 * errors[:, 2]).all()
    assert errors[:, 0].mean() < 1.5 * errors[:, 1].mean()  # the truth is additive here: nothing can beat its shift


@pytest.mark.slow
def test_wins_and_losses_are_told_per_knockout():
    """S003-16: counts of a line never treated, beside no change, the mean shift and latent arithmetic (ZINB-VAE)."""

    def counts(seed: int) -> Cells:
        logs = lines(seed=seed, knockouts=3)
        depth = np.random.default_rng(seed).uniform(0.1, 0.3, (len(logs), 1))
        drawn = np.random.default_rng(seed + 10).poisson(depth * np.expm1(dense(logs)))
        return replace(logs, x=csr_array(drawn.astype(np.float32)), unit="counts")

    train, held = counts(0), counts(1)
    train, held = train.take(train.untreated | (train.context != "line2")), held.take(held.context == "line2")
    models = {
        "cycle-gan": model(training={"detection": True}),
        "zinb-vae": registry.build("zinb-vae", {"hidden": 32, "latent": 6, "training": {"epochs": 60}}),
        **{name: registry.build(name) for name in ("no-change", "mean-shift")},
    }
    found = compare_models({name: one.fit(train, seed=0) for name, one in models.items()}, held, seed=0)
    assert found.against("cycle-gan", "no-change")["losses"] == []
    assert len(found.against("cycle-gan", "mean-shift")["wins"]) >= 2
    assert len(found.against("cycle-gan", "zinb-vae")["wins"]) >= 2
    assert "cycle-gan against no-change: 3 wins, 0 losses" in found.lines("cycle-gan")


@pytest.mark.slow
def test_cycles_close_on_held_out_cells(cells, held):
    """S003-03: with a decoder from scratch cycle losses halve, and held-out cells come back with Pearson 0.8."""
    training = {"cycle": 10.0, "kl": 1e-3, "marginal": 0.0, "energy": 0.0, "lr": 3e-3}
    net = model(steps=200, output="softplus", axes=0, training=training)
    net = net.fit(cells, seed=0)
    first, last = net.history[0], net.history[-1]
    for name in ("cycle_x", "cycle_y"):
        assert last[name] < 0.5 * first[name]
    pairs = net.make_pairs(of(held, "control", "line0"), "KO1")
    gap = dense(pairs.back) - dense(pairs.source)
    assert_allclose(pairs.error, np.sqrt(np.square(gap).mean(axis=1)), rtol=1e-4)
    assert pearsonr(dense(pairs.back).ravel(), dense(pairs.source).ravel())[0] > 0.8


def test_generated_cells_are_recognised_and_shuffled_labels_are_chance(fitted, cells, held):
    """S003-04: by an outside classifier of measured cells, in the line that was never treated too."""
    treated = cells.take(~cells.untreated & (cells.context != "line2"))
    judge = LogisticRegression(max_iter=500).fit(dense(treated), treated.condition)
    control, names = held.take(held.untreated), cells.conditions
    made = {name: dense(fitted.predict(control, name, seed=1, sample=True)) for name in names}
    told = np.concatenate([judge.predict(x) for x in made.values()])
    truth = np.repeat(names, len(control))
    assert (told == truth).mean() > 0.9
    shuffled = np.random.default_rng(0).permutation(truth)
    assert_allclose((told == shuffled).mean(), 1 / KNOCKOUTS, atol=0.08)


def test_shuffled_labels_teach_no_effect(cells):
    """S003-04: what the recogniser rewards cannot be smuggled in where labels mean nothing."""
    rng, mixed = np.random.default_rng(0), cells.condition.copy()
    treated = ~cells.untreated
    mixed[treated] = rng.permutation(mixed[treated])
    train = replace(cells, condition=mixed)
    net = model(steps=40).fit(train, seed=0)
    judge = LogisticRegression(max_iter=500).fit(dense(cells.take(treated)), cells.condition[treated])
    control = cells.take(cells.untreated)
    told = [judge.predict(dense(net.predict(control, name, seed=1, sample=True))) == name for name in cells.conditions]
    assert np.mean(told) < 0.4


def test_pseudo_pairs_teach_a_regressor_more_than_random_pairs(fitted, held, cells):
    """S003-06: a ridge from untreated to perturbed cell, in a line never treated, scored on the true means by cell."""
    pairs = fitted.make_pairs(of(cells, "control", "line2"), "KO0")
    assert pairs.made.ids.tolist() == pairs.source.ids.tolist() == pairs.back.ids.tolist()
    assert set(pairs.made.condition) == {"KO0"}
    assert set(pairs.back.condition) == {"control"}
    assert pairs.error.shape == (len(pairs.source),)
    other = of(cells, "KO0", "line0")
    random = np.random.default_rng(0).permutation(len(other))[: len(pairs.source)]
    test, truth = dense(of(held, "control", "line2")), dense(of(held, "KO0", "line2")).mean(axis=0)
    error = []
    for x, y in ((dense(pairs.source), dense(pairs.made)), (dense(pairs.source), dense(other)[random])):
        error.append(np.abs(Ridge(1.0).fit(x, y).predict(test).mean(axis=0) - truth).mean())
    assert error[0] < 0.5 * error[1]
    with pytest.raises(InputError, match=r"start from untreated cells; 60 of 60 are not"):
        fitted.make_pairs(of(cells, "KO0", "line0"), "KO0")


def test_two_modes_stay_two_modes():
    """S003-07, R28: spread within a factor of 2 and both modes kept, as many cells as were given."""
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(2, 0.3, (600, 12)))
    mode, treated = rng.random(600) < 0.5, np.arange(600) % 2 == 0
    x[mode, :3] += 2
    x[treated, 3:6] += 1
    two = pack(x, np.where(treated, "KO", "control").tolist(), ["line"] * 600)
    net = model(steps=60).fit(two.take(np.arange(400)), seed=0)
    test = two.take(np.arange(400, 600))
    made = net.predict(test.take(test.untreated), "KO", seed=0, sample=True)
    true = test.take(~test.untreated)
    assert len(made) == test.untreated.sum()
    ratio = per_gene_variance_ratio(y_true=true.x, y_pred=made.x)
    assert (ratio > 0.5).all()
    assert (ratio < 2).all()
    high = (dense(made)[:, :3] > 3).all(axis=1).mean()
    low = (dense(made)[:, :3] < 3).all(axis=1).mean()
    assert high > 0.3
    assert low > 0.3
    assert high + low > 0.9


def test_a_run_cut_off_ends_as_one_that_was_not(cells, tmp_path):
    """S003-10: weights and losses, bit for bit; a checkpoint of other settings is refused."""
    settings = {"steps": 12, "evaluate_every": 4, "checkpoint_every": 4}
    whole = model(training=settings).fit(cells, seed=0)
    cut = model(training=settings)
    original = CycleGanConfig.model_validate(cut.config.model_dump())
    with pytest.MonkeyPatch.context() as patch:  # stop after the checkpoint of step 8
        from pertcast.nn import cycle_gan_fit

        step = cycle_gan_fit._Trainer.take_step

        def stops(trainer) -> None:
            if trainer.step == 9:
                raise KeyboardInterrupt
            step(trainer)

        patch.setattr(cycle_gan_fit._Trainer, "take_step", stops)
        with pytest.raises(KeyboardInterrupt):
            cut.fit(cells, seed=0, checkpoint=tmp_path)
    again = CycleGan(original).fit(cells, seed=0, checkpoint=tmp_path)
    assert again.history == whole.history
    for got, want in zip(again.nets.state_dict().values(), whole.nets.state_dict().values(), strict=True):
        assert torch.equal(got, want)
    with pytest.raises(InputError, match=r"other settings, another seed or other cells"):
        CycleGan(original).fit(cells, seed=1, checkpoint=tmp_path)


@pytest.mark.slow
def test_a_rare_line_gains_from_the_others(cells, held):
    """S003-11: with 5 % of its perturbed cells, error below no change and below that of a model of the line alone."""
    rare = cells.context == "line2"
    kept = np.concatenate([np.flatnonzero(rare & (cells.condition == name))[:3] for name in cells.conditions])
    rows = np.sort(np.concatenate([np.flatnonzero(~rare | cells.untreated), kept]))
    alone = np.sort(np.concatenate([np.flatnonzero(rare & cells.untreated), kept]))
    together, single = (model().fit(cells.take(part), seed=0) for part in (rows, alone))
    control, error = of(held, "control", "line2"), []
    for name in cells.conditions:
        true = of(held, name, "line2")
        sides = [net.predict(control, name, seed=0, sample=True) for net in (together, single)]
        error.append([mae_of_means(y_true=true.x, y_pred=side.x) for side in (*sides, control)])
    together_error, single_error, none = np.mean(error, axis=0)
    assert together_error < single_error
    assert together_error < none


@pytest.mark.slow
def test_a_new_line_is_added_and_old_ones_stay():
    """S003-12: gradual unfreezing; old lines lose at most a tenth, the new one gains."""
    every, held = lines(count=4), lines(seed=1, count=4)
    old = every.take(every.context != "line3")
    net = model().fit(old, seed=0)
    new = every.take((every.context == "line3") & (every.untreated | np.isin(every.condition, ["KO0", "KO1", "KO2"])))

    def error(line: str) -> float:
        control = of(held, "control", line)
        found = [(of(held, name, line).x, net.predict(control, name, seed=0).x) for name in every.conditions]
        return float(np.mean([mae_of_means(y_true=true, y_pred=mine) for true, mine in found]))

    before = {line: error(line) for line in ("line0", "line1", "line2", "line3")}
    net.adapt(new, seed=0, training=AdaptTraining(detection=False, cells=24))
    after = {line: error(line) for line in before}
    assert after["line3"] < before["line3"]
    assert np.mean([after[line] for line in ("line0", "line1", "line2")]) < 1.1 * np.mean(
        [before[line] for line in ("line0", "line1", "line2")]
    )
    assert net.contexts[-1] == "line3"


def test_parts_are_set_free_one_after_the_other(fitted, cells, tmp_path):
    """S003-12: in the first stage embeddings of contexts alone move, then outputs too; the encoder waits."""
    fitted.save(tmp_path)
    for steps, moved in ((2, set()), (4, {"out", "of_condition"})):
        net = CycleGan(CycleGanConfig()).load(tmp_path)
        before = {name: p.detach().clone() for name, p in net.nets.forth.named_parameters()}
        train = cells.take(cells.context == "line0")
        net.adapt(replace(train, context=np.full(len(train), "new", dtype=object)), seed=0,
                  training=AdaptTraining(steps=steps, unfreeze_every=2, valid_share=0))  # fmt: skip
        after = dict(net.nets.forth.named_parameters())
        assert len(after["context.weight"]) == len(before["context.weight"]) + 1
        assert torch.equal(after["context.weight"][:-1], before["context.weight"])
        same = {name for name, p in before.items() if torch.equal(after[name][: len(p)], p)}
        changed = {name.partition(".")[0] for name in before if name not in same}
        assert changed == moved
        assert not torch.equal(after["context.weight"][-1], before["context.weight"][0])


def test_knockouts_go_by_exact_name_and_two_add_up(cells):
    """S003-14, R27: ATF does not mark ATF1; ATF+ATF1 marks both; unknown genes raise."""
    names = {"KO0": "ATF", "KO1": "ATF1", "KO2": "ATF+ATF1", "KO3": "MYC"}
    some = cells.take(np.isin(cells.condition, ["control", *names]))
    train = replace(some, condition=np.array([names.get(c, c) for c in some.condition], dtype=object))
    net = model(steps=2).fit(train, seed=0)
    assert net.space.factors == ("ATF", "ATF1", "MYC")
    codes = {"ATF": [1, 0, 0], "ATF1": [0, 1, 0], "ATF1+MYC": [0, 1, 1], "control": [0, 0, 0]}
    for name, code in codes.items():
        assert_array_equal(net.space.code(name), code)
    assert np.isfinite(dense(net.predict(of(train, "control", "line0"), "ATF1+MYC", seed=0))).all()
    with pytest.raises(InputError, match=r"Unknown condition 'ATF2'. Did you mean 'ATF'\?"):
        net.predict(of(train, "control", "line0"), "ATF1+ATF2", seed=0)
    named = model(steps=2, condition_input="names").fit(train, seed=0)
    assert named.nets.forth.condition.in_features == 4
    with pytest.raises(InputError, match=r"Unknown condition 'ATF1\+MYC'"):
        named.predict(of(train, "control", "line0"), "ATF1+MYC", seed=0)


def test_order_of_rows_changes_nothing_but_draws(fitted, cells, held):
    """S003-15, R23."""
    train = cells.take(cells.untreated | (cells.context != "line2"))
    mixed = train.take(np.random.default_rng(5).permutation(len(train)))
    other, control = model().fit(mixed, seed=0), of(held, "control", "line1")
    true = of(held, "KO3", "line1").x
    errors = [energy_distance(y_true=true, y_pred=net.predict(control, "KO3", seed=0, sample=True).x)
              for net in (fitted, other)]  # fmt: skip
    none = energy_distance(y_true=true, y_pred=control.x)
    assert max(errors) < 0.1 * none


def test_perturbed_cells_go_home_first(fitted, held):
    control, perturbed = of(held, "control", "line0"), of(held, "KO1", "line0")
    home = fitted.predict(perturbed, "control", seed=0)
    errors = [mae_of_means(y_true=control.x, y_pred=side.x) for side in (home, perturbed)]
    assert errors[0] < 0.4 * errors[1]
    assert_array_equal(dense(fitted.predict(control, "control", seed=0)), dense(control))
    assert {name: value.shape for name, value in fitted.latents(control).items()} == {
        name: (len(control), 8) for name in ("expression", "knockout", "noise")
    }


def test_what_does_not_fit_is_refused(fitted, held, monkeypatch):
    bad = held.x.copy()
    bad.data[:3] = np.nan
    with pytest.raises(InputError, match=r"3 values that are not finite"):
        fitted.predict(replace(held, x=bad), "KO0", seed=0)
    with pytest.raises(InputError, match=r"control 'control', got 'DMSO'"):
        fitted.predict(replace(held, control="DMSO"), "KO0", seed=0)
    with monkeypatch.context() as patch:
        patch.setattr("pertcast.cells.transferred_start.MOST", 500)
        with pytest.raises(InputError, match=r"3 contexts x 5 numbers of a condition's code x 40 genes, more than 500"):
            model(steps=1).fit(held, seed=0)
        model(steps=1, training={"start": "identity"}).fit(held, seed=0)
    with pytest.raises(InputError, match=r"Unknown condition 'KO9'"):
        fitted.adapt(replace(held, condition=np.full(len(held), "KO9", dtype=object)), seed=0)
