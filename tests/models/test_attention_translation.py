"""Attention over a compound's responses elsewhere: what a row may see, what order means, what is learned."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.features.assemble import assemble
from pertcast.models.attention_translation import NONE, AttentionTranslationConfig, TranslationStack, _sources
from pertcast.models.registry import build
from pertcast.nn.stacked import Streams, give_streams

SMALL = {"members": 1, "head": 32, "heads": 2, "width": 8, "type_width": 4, "training": {"epochs": 2}}


def assembled(question):
    rows = np.arange(len(question))
    return assemble(question, FeatureConfig(blocks=("cell_type", "compound")), train=rows, valid=rows[:0])


def small_stack(seed=0, **settings):
    stack = TranslationStack(AttentionTranslationConfig(**SMALL | settings), types=4, k=5, streams=Streams([seed]))
    rng = np.random.default_rng(1)
    with torch.no_grad():
        stack.affinity.copy_(torch.tensor(rng.normal(size=stack.affinity.shape)))
    tables = {"profiles": torch.tensor(rng.normal(size=(6, 5)), dtype=torch.float32)}
    return stack, {**tables, "cell_type": torch.tensor([1, 2, 3, 1, 2, 3])}


def asked(cell_type, sources):
    return {"cell_type": torch.tensor([cell_type]), "sources": torch.tensor([sources])}


def test_a_row_sees_its_compound_in_other_cell_types_only():
    """R03: by hand; rows are (type, compound) = (1,1) (2,1) (3,1) (1,2) (2,0)."""
    tables = {"cell_type": np.array([1, 2, 3, 1, 2]), "compound": np.array([1, 1, 1, 2, 3])}
    sources = _sources(tables, np.array([1, 2, 1, 2, 0, 1]), np.array([1, 1, 2, 2, 1, 0]))
    wanted = [[1, 2, NONE], [0, 2, NONE], [NONE] * 3, [3, NONE, NONE], [0, 1, 2], [NONE] * 3]
    assert_array_equal(sources, wanted)


def test_own_response_changes_nothing_of_what_a_training_row_is_told():
    """S004-03: the prediction of a fitted model for a training row does not read that row's own profile."""
    rows = assembled(make_question()[0])
    model = build("attention-translation", SMALL).fit(rows.train, seed=0)
    one = rows.train.take(np.array([5])).without_y()
    before = model.predict(one)
    model.tables["profiles"][5] = 1e3
    assert_array_equal(model.predict(one), before)
    same = np.flatnonzero(rows.train.compound == rows.train.compound[5])
    model.tables["profiles"][same[same != 5][0]] = 1e3
    assert np.abs(model.predict(one) - before).max() > 1e-3


def test_profiles_are_a_set():
    """Order of the profiles and padding change nothing."""
    stack, tables = small_stack()
    stack.eval()
    with torch.no_grad():
        first = stack(tables, asked([1], [[1, 2, 4]]))
        assert_allclose(stack(tables, asked([1], [[4, 1, 2]])), first, atol=1e-6)
        assert_allclose(stack(tables, asked([1], [[NONE, 4, 1, NONE, 2]])), first, atol=1e-6)
        assert (stack(tables, asked([1], [[1, 2]])) - first).abs().max() > 1e-4


def test_attention_is_the_weighted_mean_of_a_slow_loop():
    stack, tables = small_stack()
    stack.eval()
    read = {}
    stack.head.register_forward_hook(lambda module, given, result: read.update(x=given[0]))
    with torch.no_grad():
        stack.absent.fill_(0.3)
        stack(tables, asked([2], [[0, 2, 5, NONE]]))
        value = tables["profiles"] @ stack.value.weight[0] + stack.value.bias[0]
        value = value + stack.source_vector.weight[0][tables["cell_type"]]
        interest = value @ stack.interest.weight[0] + stack.interest.bias[0]
        for head in range(2):
            logits = [stack.absent[0, 0, 0, head]]
            for row in (0, 2, 5):
                pair = 2 * 4 + tables["cell_type"][row]
                logits.append(interest[row, head] + stack.affinity[0, pair, head])
            weight = torch.stack(logits).exp()
            weight = weight / weight.sum()
            mean = sum(w * value[row] for w, row in zip(weight[1:], (0, 2, 5), strict=True))
            gain = 1 + stack.answer.weight[0, 2, 8 * head : 8 * head + 8]
            assert_allclose(read["x"][0, 0, 8 * head : 8 * head + 8], mean * gain, atol=1e-6)


@pytest.mark.parametrize(("least", "none", "wanted"), [(0.0, 0.0, 0.5), (0.5, 0.0, 0.75), (1.0, 0.2, 0.8)])
def test_share_of_profiles_kept_in_training(least, none, wanted):
    """A share uniform from the least to all is kept, of the rows that see any: expectations worked by hand."""
    stack, _ = small_stack(least_kept=least, none_rate=none)
    give_streams(stack, Streams([0]))
    given = torch.ones(1, 4000, 10, dtype=torch.bool)
    given[..., 7:] = False
    seen = stack.train()._seen(given)
    assert not seen[..., 7:].any()
    assert float(seen[..., :7].float().mean()) == pytest.approx(wanted, abs=0.02)
    assert stack.eval()._seen(given) is given


def test_unseen_compound_gets_its_cell_type_and_unseen_cell_type_the_mean_of_vectors():
    """R39: no profile at all is a case that training showed; the vectors of an unknown type are the mean of all."""
    rows = assembled(make_question()[0])
    model = build("attention-translation", {**SMALL, "training": {"epochs": 30}}).fit(rows.train, seed=0)
    stack = model.stacks[0]
    vectors = stack.type_vector.weight.detach()
    assert_allclose(vectors[:, 0], vectors[:, 1:].mean(dim=1), atol=1e-6)
    strange = rows.train.take(np.arange(3)).without_y()
    strange.blocks["compound"].index[:] = 0
    predicted = model.predict(strange)
    assert np.isfinite(predicted).all()
    assert np.abs(predicted).max() <= np.abs(rows.train.y).max()


def test_members_do_not_depend_on_the_stack_they_are_in():
    """Two stacks of one member each predict as one stack of two, to rounding."""
    rows = assembled(make_question()[0])
    both = build("attention-translation", {**SMALL, "members": 2}).fit(rows.train, seed=0)
    apart = build("attention-translation", {**SMALL, "members": 2, "stack_megabytes": 1, "head": 32})
    apart._seeds = lambda seed: iter([[0], [1]])
    apart.fit(rows.train, seed=0)
    assert (len(both.stacks), len(apart.stacks)) == (1, 2)
    assert_allclose(apart.predict(rows.test), both.predict(rows.test), atol=1e-5)
