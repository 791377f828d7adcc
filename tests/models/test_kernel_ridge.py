"""Kernel ridge: closed forms against leaving rows out, factors, settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.errors import InputError
from pertcast.features.assemble import assemble
from pertcast.features.similarity import tanimoto_kernel
from pertcast.models import kernel_ridge
from pertcast.models.registry import build

BLOCKS = ("cell_type", "compound", "compound_residual_mean", "morgan")


def rows_of(question):
    everything = np.arange(len(question))
    config = FeatureConfig(blocks=BLOCKS, components=8, smooth=1.0)
    return assemble(question, config, train=everything, valid=everything[:0])


def random_kernel(n=20, k=4, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n))
    return root @ root.T / n, rng.normal(size=(n, k)), rng.uniform(0.5, 2, size=n)


def test_left_out_blocks_equal_solving_without_them():
    """Oracle: one system a block, without its rows."""
    kernel, scores, importance = random_kernel()
    rest = np.linspace(0, 1, 20)
    blocks = [np.array([0, 3, 4]), np.array([7]), np.arange(10, 19)]
    roots = []
    for block in blocks:
        keep = np.setdiff1d(np.arange(20), block)
        coefficients = np.linalg.solve((kernel + np.diag(1 / importance))[np.ix_(keep, keep)], scores[keep])
        error = scores[block] - kernel[np.ix_(block, keep)] @ coefficients
        roots.append(np.sqrt((error**2).sum(1) + rest[block]))
    inverse = torch.linalg.inv(torch.tensor(kernel + np.diag(1 / importance)))
    got = kernel_ridge._left_out_error(inverse, torch.tensor(scores), torch.tensor(rest), blocks)
    assert_allclose(got.item(), np.concatenate(roots).mean())


def test_left_one_out_equals_solving_without_the_row():
    kernel, scores, importance = random_kernel(seed=1)
    got = kernel_ridge._left_one_out(kernel, scores, importance)
    for i in range(20):
        keep = np.setdiff1d(np.arange(20), [i])
        coefficients = np.linalg.solve((kernel + np.diag(1 / importance))[np.ix_(keep, keep)], scores[keep])
        assert_allclose(got[i], ((scores[i] - kernel[i, keep] @ coefficients) ** 2).sum())


@pytest.mark.parametrize(
    ("by", "column"), [("cell_type", "cell_type"), ("whole_cell_type", "cell_type"), ("compound", "compound")]
)
def test_rows_are_left_out_together(by, column):
    """A block holds one cell type (all but a few rows, or all) or one compound, and there is a block for each."""
    question, _ = make_question()
    rows = rows_of(question).train
    model = build("kernel-ridge", {"steps": 0}).fit(rows)
    blocks = kernel_ridge._left_out(model._side(rows), by)
    names = [set(getattr(rows, column)[block]) for block in blocks]
    assert all(len(name) == 1 for name in names)
    assert set().union(*names) == set(getattr(rows, column))
    if by == "cell_type":
        assert all(len(block) < (rows.cell_type == name.pop()).sum() for block, name in zip(blocks, names, strict=True))
    else:
        assert sum(map(len, blocks)) == len(rows)


def test_one_factor_is_ridge_on_one_hot_columns():
    """Oracle: identity of the compound as the only term is a shrunken compound mean, rows counting alike."""
    question, _ = make_question()
    rows = rows_of(question)
    settings = {"terms": {"compound": 2.0}, "steps": 0, "reweightings": 0}
    model = build("kernel-ridge", settings).fit(rows.train)
    kernel = 2.0 * (rows.train.compound[:, None] == rows.train.compound[None, :])
    importance = kernel_ridge._importance(
        kernel_ridge._left_one_out(kernel, rows.train.y - rows.train.y.mean(0), np.ones(len(kernel)))
    )
    center = rows.train.y.mean(0, dtype=float)
    coefficients = np.linalg.solve(kernel + np.diag(1 / importance), rows.train.y - center)
    expected = center + 2.0 * (rows.test.compound[:, None] == rows.train.compound[None, :]) @ coefficients
    assert_allclose(model.predict(rows.test), expected, atol=1e-4)


def test_search_beats_its_start():
    """The weights found leave smaller errors than those the search began with."""
    question, truth = make_question(seed=4, types=6, compounds=12, asked=8)
    rows = rows_of(question)
    start = {"terms": {"all": 1e-3, "compound": 1e-3, "similar_type*compound": 30.0}}
    errors = []
    for steps in (0, 30):
        predicted = build("kernel-ridge", {**start, "steps": steps}).fit(rows.train).predict(rows.test)
        errors.append(np.sqrt(((predicted - truth) ** 2).mean(1)).mean())
    assert errors[1] < 0.95 * errors[0]


def test_unseen_compounds_are_told_apart_by_structure():
    """Two compounds that training lacks get the answers of those they resemble."""
    question, _ = make_question(noise=0.01)
    hidden = np.isin(question.compound, ["drug 0"])  # ethanol; its like is drug 7, ethylene glycol
    rows = assemble(
        question,
        FeatureConfig(blocks=BLOCKS, components=8),
        train=np.flatnonzero(~hidden),
        valid=np.flatnonzero(hidden),
    )
    model = build("kernel-ridge", {"terms": {"structure": 5.0}, "hold_out": "compound"}).fit(rows.train)
    likeness = tanimoto_kernel(rows.valid.block("morgan").dense(), rows.train.block("morgan").dense())
    assert likeness.max() > likeness.min()
    assert np.abs(model.predict(rows.valid) - rows.train.y.mean(0)).max() > 0.01
    stranger = build("kernel-ridge", {"terms": {"compound": 5.0}, "hold_out": "compound"}).fit(rows.train)
    assert_allclose(stranger.predict(rows.valid), np.tile(rows.train.y.mean(0), (hidden.sum(), 1)), atol=1e-5)


def test_unknown_factor_is_refused():
    with pytest.raises(InputError, match=r"Unknown factor 'compund'. Did you mean 'compound'\?"):
        build("kernel-ridge", {"terms": {"compund": 1.0}})
    with pytest.raises(InputError, match="every weight must be above 0"):
        build("kernel-ridge", {"terms": {"compound": 0.0}})


def test_loading_into_other_terms_is_refused(tmp_path):
    question, _ = make_question()
    rows = rows_of(question)
    model = build("kernel-ridge", {"steps": 0}).fit(rows.train)
    model.save(tmp_path)
    assert_array_equal(build("kernel-ridge").load(tmp_path).predict(rows.test), model.predict(rows.test))
    with pytest.raises(InputError, match="not those of the settings"):
        build("kernel-ridge", {"terms": {"compound": 1.0}}).load(tmp_path)


def test_terms_are_matched_by_name(tmp_path):
    """Settings read back from JSON come in another order; weights stay with their terms."""
    question, _ = make_question()
    rows = rows_of(question)
    terms = {"compound": 0.5, "all": 20.0, "cell_type": 0.1}
    fitted = build("kernel-ridge", {"terms": terms}).fit(rows.train)
    fitted.save(tmp_path)
    again = build("kernel-ridge", {"terms": dict(sorted(terms.items()))}).load(tmp_path)
    assert_array_equal(again.predict(rows.test), fitted.predict(rows.test))


def test_untreated_cells_are_read_where_a_term_asks(tmp_path):
    """A type that training lacks is as near to others as its untreated cells; saved and loaded, the same."""
    question, y = make_question(types=6, asked=12, noise=0.1)
    config = FeatureConfig(blocks=(*BLOCKS, "cell_baseline"), components=8, smooth=1.0)
    everything = np.arange(len(question))
    rows = assemble(question, config, train=everything, valid=everything[:0])
    assert not set(rows.train.cell_type) & set(rows.test.cell_type)
    terms = {"all": 20.0, "context": 1.0, "profile": 2.0, "context*profile": 1.0}
    model = build("kernel-ridge", {"terms": terms, "hold_out": "whole_cell_type"}).fit(rows.train)
    values = model.predict(rows.test)
    blind = build("kernel-ridge", {"terms": {"all": 20.0, "profile": 2.0}}).fit(rows.train).predict(rows.test)
    assert ((values - y) ** 2).mean() < 0.7 * ((blind - y) ** 2).mean()
    model.save(tmp_path)
    assert_array_equal(build("kernel-ridge", {"terms": terms}).load(tmp_path).predict(rows.test), values)
    with pytest.raises(InputError, match="Feature block 'cell_baseline' is needed"):
        build("kernel-ridge", {"terms": terms}).fit(rows_of(question).train)


def test_a_compound_never_seen_answers_as_others_of_its_mechanism(tmp_path):
    """Four mechanisms, each with an answer of its own; structures say nothing. Saved and loaded, the same."""
    rng = np.random.default_rng(0)
    question, _ = make_question(types=4, compounds=12, asked=4, noise=0.0)
    mechanism = {f"drug {c}": c % 4 for c in range(12)}  # drugs 0 to 3 are asked for and shown in no other type
    answers = 2 * rng.normal(size=(4, len(question.genes))).astype(np.float32)
    told = {name: frozenset({f"moa: {m}"}) for name, m in mechanism.items()}
    y = np.array([answers[mechanism[name]] for name in question.compound]) + rng.normal(size=question.y.shape) / 10
    question = replace(question, y=y.astype(np.float32), annotations=told)
    seen = np.flatnonzero(~np.isin(question.compound, question.test_compound))
    config = FeatureConfig(blocks=("cell_type", "compound", "annotation"))
    rows = assemble(question, config, train=seen, valid=seen[:0])
    terms = {"all": 20.0, "compound": 0.5, "annotation": 1.0}
    model = build("kernel-ridge", {"terms": terms, "hold_out": "compound"}).fit(rows.train)
    values = model.predict(rows.test)
    truth = np.array([answers[mechanism[name]] for name in question.test_compound])
    assert ((values - truth) ** 2).mean() < 0.05 * (truth**2).mean()
    model.save(tmp_path)
    assert_array_equal(build("kernel-ridge", {"terms": terms}).load(tmp_path).predict(rows.test), values)
