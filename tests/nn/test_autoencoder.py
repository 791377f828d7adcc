"""The autoencoder: blocks by name from end to end."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from pertcast.nn.autoencoder import RESPONSE, AutoencoderConfig, ComplexAutoencoder
from pertcast.nn.fit import FitSettings, fit_network, seeded

WIDTHS = {"cell_type": 3, "compound": 5, RESPONSE: 37}  # eight one-hot columns, then 37 genes


def _net(**settings):
    with seeded(0):
        return ComplexAutoencoder(AutoencoderConfig(**settings), WIDTHS).eval()


def _blocks(n, seed=0):
    draws = torch.Generator().manual_seed(seed)
    one_hot = {name: torch.eye(WIDTHS[name])[torch.arange(n) % WIDTHS[name]] for name in ("cell_type", "compound")}
    return {**one_hot, RESPONSE: torch.randn(n, WIDTHS[RESPONSE], generator=draws)}


@pytest.fixture
def codes():
    return torch.randn(6, 128, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("linear", [True, False])
def test_gene_k_is_the_unit_of_gene_k(codes, linear):
    """S004-07: with one-hot width 8, column k of the output is computed from row k of the genes' weights, by hand."""
    net = _net(linear=linear)
    with torch.no_grad():
        decoded = net.decode(codes).numpy()
    w = {key: value.numpy().astype(float) for key, value in net.state_dict().items()}
    z = codes.numpy().astype(float)
    hidden = np.maximum(z @ w["decoder.0.weight"].T + w["decoder.0.bias"], 0)
    hidden = np.maximum(hidden @ w["decoder.3.weight"].T + w["decoder.3.bias"], 0)
    assert decoded.shape == (6, 37)
    for k in range(37):
        unit = hidden @ w["units.response.weight"][k] + w["units.response.bias"][k]
        if linear:
            unit += z @ w["from_code.response.weight"][k] + w["from_code.response.bias"][k]
        assert_allclose(decoded[:, k], unit, atol=1e-5)


def test_raising_one_unit_raises_one_gene(codes):
    """S004-07: units of one-hot columns move no gene; unit k of the genes moves gene k and no other."""
    net = _net()
    with torch.no_grad():
        before = net.decode(codes)
        for name in ("cell_type", "compound"):
            net.units[name].bias += 1e6
        assert torch.equal(net.decode(codes), before)
        for k in range(37):
            net.units[RESPONSE].bias[k] += 1
            moved = net.decode(codes) - before
            net.units[RESPONSE].bias[k] -= 1
            assert_allclose(moved.numpy(), np.eye(37)[[k] * 6], atol=1e-5)


def test_decoding_is_the_response_of_rebuilding(codes):
    net = _net()
    rebuilt = net.rebuild(codes)
    assert {name: block.shape[1] for name, block in rebuilt.items()} == WIDTHS
    assert torch.equal(rebuilt[RESPONSE], net.decode(codes))


def test_the_order_of_blocks_means_nothing():
    """S004-07: blocks handed over in another order give the same code and the same genes, to rounding."""
    net, blocks = _net(), _blocks(9)
    turned = dict(reversed(blocks.items()))
    assert_allclose(net.encode(turned).detach(), net.encode(blocks).detach(), atol=1e-5)
    assert_allclose(net(turned)[RESPONSE].detach(), net(blocks)[RESPONSE].detach(), atol=1e-5)


def test_sizes_as_published():
    """S004-07: latent 128, width 256, dropout 0.3 and no straight path; as many parameters as the published one."""
    net = _net(linear=False)
    d, h, z = sum(WIDTHS.values()), 256, 128
    encoder = d * h + h + h * h + h + h * z + z
    decoder = z * h + h + h * h + h + h * d + d
    bias_per_block = (len(WIDTHS) - 1) * h  # each block's linear map carries a bias where one map has one in all
    assert sum(p.numel() for p in net.parameters()) == encoder + decoder + bias_per_block
    rates = {module.p for module in net.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.3}


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_learns_rows_of_low_rank(noise):
    """Rows of rank 4 come back through a code of 4; noise is added in training and never after it."""
    draws = torch.Generator().manual_seed(2)
    response = torch.randn(60, 4, generator=draws) @ torch.randn(4, 37, generator=draws) / 2
    data = {**_blocks(60), RESPONSE: response}
    settings = FitSettings(epochs=150, batch=60, lr=1e-2, device="cpu")
    with seeded(0):
        net = ComplexAutoencoder(AutoencoderConfig(latent=4, hidden=32, dropout=0.0, noise=noise), WIDTHS)
    fit_network(net, data, lambda net, rows: (net(rows)[RESPONSE] - rows[RESPONSE]).square().mean(), settings, seed=0)
    with torch.no_grad():
        left = (net(data)[RESPONSE] - response).square().mean() / response.square().mean()
        assert torch.equal(net.encode(data), net.encode(data))
    assert left < (0.02 if noise == 0 else 0.1)
