"""A training that was cut off ends bit for bit as one that was not, whatever it keeps of its weights."""

import pytest
import torch
from torch import nn

from pertcast.errors import InputError
from pertcast.nn.fit import FitSettings, fit_network
from pertcast.nn.training_state import Checkpoint


class Loss:
    """A squared error whose weight rises with the steps, as a warm-up's does."""

    def __init__(self, stop_at: int | None = None):
        self.step, self.stop_at = 0, stop_at

    def __call__(self, net, rows):
        if net.training:
            self.step += 1
            if self.step == self.stop_at:
                raise KeyboardInterrupt
        return min(1.0, self.step / 20) * (net(rows["x"]) - rows["y"]).square().mean()


def data():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    return {"x": x, "y": x[:, :1] * 2}


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _layers()


def _layers():
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


VARIANTS = {
    "plain": {},
    "lion": {"optimizer": "lion", "lr": 1e-3},
    "mean of the last epochs": {"average_last": 0.8},
    "running mean": {"ema": 0.9},
    "plateau": {"schedule": "plateau", "plateau_patience": 0, "lr": 0.5},
    "stopped early": {"patience": 2, "lr": 0.3, "schedule": "constant"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_cut_off_and_taken_up(name, tmp_path):
    """S003-10, for networks that train by epochs: weights, losses and callbacks, to the bit."""
    settings = FitSettings(**{"epochs": 12, "batch": 10, "lr": 0.01, **VARIANTS[name]})
    valid = {"x": torch.ones(4, 5), "y": torch.zeros(4, 1)} if settings.patience else None
    whole, told = [], []
    want = fit_network(net(), data(), Loss(), settings, seed=3, valid=valid, log=whole.append,
                       progress=lambda done, total: told.append((done, total)))  # fmt: skip
    assert told == [(epoch, 12) for epoch in range(1, len(whole) + 1)]
    kept = Checkpoint(tmp_path, "this", every=2)
    with pytest.raises(KeyboardInterrupt):
        fit_network(
            net(), data(), Loss(stop_at=min(19, 4 * len(whole))), settings, seed=3, valid=valid, checkpoint=kept
        )
    again, told = [], []
    got = fit_network(net(), data(), Loss(), settings, seed=3, valid=valid, log=again.append, checkpoint=kept,
                      progress=lambda done, _: told.append(done))  # fmt: skip
    assert again == whole
    assert told[0] > 2
    for key, value in want.state_dict().items():
        assert torch.equal(got.state_dict()[key], value), key


def test_the_random_state_of_the_caller_is_untouched(tmp_path):
    kept = Checkpoint(tmp_path, "this", every=1)
    for epochs in (2, 4):  # begun, and taken up
        before = torch.get_rng_state()
        fit_network(net(), data(), Loss(), FitSettings(epochs=epochs), seed=3, checkpoint=kept)
        assert torch.equal(torch.get_rng_state(), before)


def test_the_state_of_another_training_is_refused(tmp_path):
    settings = FitSettings(epochs=2)
    fit_network(net(), data(), Loss(), settings, seed=0, checkpoint=Checkpoint(tmp_path, "this", every=1))
    with pytest.raises(InputError, match="other settings, another seed or other cells"):
        fit_network(net(), data(), Loss(), settings, seed=0, checkpoint=Checkpoint(tmp_path, "that", every=1))
    (tmp_path / "training" / "training.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="is damaged"):
        fit_network(net(), data(), Loss(), settings, seed=0, checkpoint=Checkpoint(tmp_path, "this", every=1))
