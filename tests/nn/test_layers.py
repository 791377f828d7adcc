"""Layers: tokens of one sample attend to one another, rows of a batch never do."""

import pytest
import torch

from pertcast.errors import InputError
from pertcast.nn.layers import CodeEmbedding, LookupProjection, TokenAttentionBlock


@pytest.fixture
def block():
    torch.manual_seed(0)
    return TokenAttentionBlock(16, 4, feedforward=32, dropout=0.3)


def _tokens(n=33, t=5, d=16):
    return torch.randn(n, t, d, generator=torch.Generator().manual_seed(1))


def test_rows_of_a_batch_do_not_attend_to_one_another(block):
    """S004-05, R01."""
    x = _tokens()
    block.eval()
    together = block(x)
    alone = torch.cat([block(x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_rows_without_a_token_axis_are_refused(block):
    """SYSTEMS 0.3: read as tokens, 33 rows would attend to one another."""
    with pytest.raises(InputError, match=r"expects \(samples, tokens, width\), got shape \(33, 16\)"):
        block(_tokens()[:, 0])


def test_attention_is_not_inert(block):
    """R02: queries and keys learn, and another token's content changes a token's output."""
    x = _tokens()
    block(x).square().sum().backward()
    query, key, _ = block.qkv.weight.grad.chunk(3)
    assert query.norm() > 0
    assert key.norm() > 0
    block.eval()
    swapped = x.clone()
    swapped[:, 1] = -x[:, 1]
    assert (block(swapped)[:, 0] - block(x)[:, 0]).abs().max() > 1e-4


def test_identity_start_learns_to_attend():
    """R02: the identity at first; after one step queries and keys have gradients."""
    torch.manual_seed(0)
    block, x = TokenAttentionBlock(16, 4, feedforward=32, identity_start=True), _tokens()
    assert torch.equal(block(x), x)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        block(x).roll(1, dims=1).mul(x).mean().backward()
        optimizer.step()
    query, key, _ = block.qkv.weight.grad.chunk(3)
    assert query.norm() > 0
    assert key.norm() > 0


def test_attention_equals_softmax_by_hand(block):
    """One head at a time, softmax(q k / sqrt(d)) v."""
    x = _tokens(n=2)
    with torch.no_grad():
        q, k, v = (part.view(2, 5, 4, 4) for part in block.qkv(x).chunk(3, dim=2))
        heads = [
            torch.softmax(q[:, :, h] @ k[:, :, h].mT / 2.0, dim=-1) @ v[:, :, h] for h in range(4)
        ]  # sqrt of 4 is 2
        expected = block.out(torch.cat(heads, dim=2))
        torch.testing.assert_close(block.eval().attend(x), expected)


def test_width_must_be_a_multiple_of_heads():
    with pytest.raises(InputError, match="width 10 and 4 heads"):
        TokenAttentionBlock(10, 4, feedforward=8)


@pytest.mark.parametrize("rows", [2, 50])
def test_lookup_projection_equals_projecting_copied_rows(rows):
    """Table of 5 rows, looked up by fewer and by more rows than it has."""
    torch.manual_seed(0)
    layer, table, index = LookupProjection(7, 3), torch.randn(5, 7), torch.randint(5, (rows,))
    expected = table[index] @ layer.weight.T + layer.bias
    torch.testing.assert_close(layer(table, index), expected)


def test_unknown_code_is_trained_by_hiding_known_ones():
    torch.manual_seed(0)
    code = torch.randint(1, 6, (4000,))
    layer = CodeEmbedding(6, 4, unknown_rate=0.25)
    share = (layer(code) == layer.weight[0]).all(dim=1).float().mean()
    assert share == pytest.approx(0.25, abs=0.03)  # 4 standard errors
    assert torch.equal(layer.eval()(code), layer.weight[code])
