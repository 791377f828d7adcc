"""`pertcast cells fit`: cut off and taken up, what it shows and writes, where it computes, settings by --set."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Literal, get_args, get_origin

import pytest
import torch
from numpy.testing import assert_allclose
from pydantic import BaseModel

from cell_cases import make_cells
from cell_files import COLUMNS, write
from command_line import partials, pertcast, refused
from pertcast.cell_tasks.runs import Columns, cell_inputs
from pertcast.cell_tasks.training import computing
from pertcast.cell_tasks.verbs import cell_recipe
from pertcast.cells.registry import build, entries
from pertcast.config import CellRecipe
from pertcast.errors import InputError
from pertcast.nn.fit import FitSettings

SMALL = ("--set", "hidden=8", "--set", "latent=4")
STEPS = ("--set", "training.steps=12", "--set", "training.evaluate_every=4", "--set", "training.cells=8")
RESUMED = {  # model: its settings, the function of a step, and in which call it is cut off
    "zinb-vae": ((*SMALL, "--set", "training.epochs=12"), "pertcast.nn.fit.train_step", 20),
    "masked-autoencoder": (
        ("--set", "hidden=[8, 4]", "--set", "training.epochs=12", "--set", "training.batch=32"),
        "pertcast.nn.fit.train_step", 30,
    ),
    "film-gan": ((*SMALL, *STEPS, "--set", "axes=4"), "pertcast.nn.film_gan_fit._Trainer.take_step", 10),
    "cycle-gan": (
        ("--set", "hidden=[16, 8]", "--set", "latent=4", "--set", "axes=4", *STEPS),
        "pertcast.nn.cycle_gan_fit._Trainer.take_step", 10,
    ),
}  # fmt: skip
EVERY = ("--set", "training.checkpoint_every=4")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(make_cells(cells=180), "h5ad", tmp_path_factory.mktemp("data"))


def fit(name, data, out, *more):
    return pertcast("cells", "fit", name, data, *COLUMNS, *RESUMED[name][0], "--out", out, *more)


def cut_off(monkeypatch, name) -> None:
    """Let Ctrl-C come in the middle of training."""
    place, last = RESUMED[name][1:]
    owner, _, function = place.rpartition(".")
    owner = torch_path(owner)
    calls, before = [], getattr(owner, function)

    def step(*args, **more):
        calls.append(1)
        if len(calls) == last:
            raise KeyboardInterrupt
        return before(*args, **more)

    monkeypatch.setattr(owner, function, step)


def torch_path(path: str):
    module, _, name = path.rpartition(".")
    return sys.modules[path] if path in sys.modules else getattr(sys.modules[module], name)


def test_every_model_that_can_be_taken_up_is_cut_off_here():
    assert {name for name, entry in entries().items() if getattr(entry.model, "resumable", False)} == set(RESUMED)


@pytest.mark.parametrize("name", RESUMED)
def test_the_same_command_goes_on_bit_for_bit(name, data, tmp_path, monkeypatch):
    """S003-10: the run of a fit that was cut off has the digests of one that was not; nothing of the way remains."""
    whole, out = tmp_path / "whole" / "run", tmp_path / "cut" / "run"
    done = fit(name, data, whole, *EVERY, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["taken_up"] is False
    with monkeypatch.context() as patch:
        cut_off(patch, name)
        done = fit(name, data, out, *EVERY)
    assert done.code == 130
    assert "the same command goes on from there" in done.err
    assert not out.exists()
    refused(fit(name, data, out, *EVERY, "--seed", 1), r"run.unfinished' holds the beginning of a run of other content")
    done = fit(name, data, out, *EVERY)
    assert done.code == 0, done.err
    assert "A fit that was cut off was taken up." in done.err
    digests = [json.loads((run / "DONE.json").read_text())["digests"] for run in (whole, out)]
    assert digests[0] == digests[1]
    assert {path.name for path in out.parent.iterdir()} == {"run", "tensorboard"}
    assert partials(tmp_path) == []


@pytest.mark.slow
def test_a_fit_that_was_killed_goes_on(data, tmp_path):
    """No chance to tidy up: the process is killed while it writes its state again and again."""
    more = ("--set", "training.epochs=60", "--set", "training.checkpoint_every=1")
    assert fit("zinb-vae", data, tmp_path / "whole", *more).code == 0
    command = ("-m", "pertcast", "cells", "fit", "zinb-vae", data, *COLUMNS, *RESUMED["zinb-vae"][0], *more)
    process = subprocess.Popen([sys.executable, *map(str, command), "--out", str(tmp_path / "run")],
                               env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)  # fmt: skip
    state = tmp_path / "run.unfinished" / "training" / "training.json"
    while not state.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = fit("zinb-vae", data, tmp_path / "run", *more)
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "DONE.json").read_bytes() == (tmp_path / "whole" / "DONE.json").read_bytes()


def test_what_is_left_beside_a_finished_run_is_removed(data, tmp_path, monkeypatch):
    """As where the process ended between writing the run and tidying up; a run may also be named from inside."""
    assert fit("film-gan", data, tmp_path / "run").code == 0
    (tmp_path / "run.unfinished" / "gan-training").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run")
    done = fit("film-gan", data, ".")
    assert "finished already" in done.err
    assert not (tmp_path / "run.unfinished").exists()


def test_a_fit_that_fails_leaves_nothing(data, tmp_path):
    done = fit("film-gan", data, tmp_path / "run", "--set", "training.lr=1e30", "--set", "training.clip=1e30")
    refused(done, "Lower the learning rates")
    assert list(tmp_path.iterdir()) == []


def test_progress_and_curves(data, tmp_path):
    """A line of progress on stderr in a log; TensorBoard's numbers are those of metrics.jsonl."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = fit("film-gan", data, tmp_path / "run")
    assert "12/12 done after" in done.err
    assert "film-gan" in done.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path / "tensorboard" / "run"))
    events.Reload()
    for name in ("loss", "held_out_energy"):
        found = events.Scalars(name)
        assert_allclose([event.value for event in found], [line[name] for line in lines], rtol=1e-6)
        assert [event.step for event in found] == [4, 8, 12]


def test_device_and_threads(data, tmp_path, monkeypatch):
    """Neither makes another run; a GPU that is not there, or is of no use, is one message."""
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    done = fit("film-gan", data, tmp_path / "run", "--device", "cpu", "--threads", "2")
    assert done.code == 0, done.err
    assert seen[0] == 2
    again = fit("film-gan", data, tmp_path / "run", "--json")
    assert json.loads(again.out)["fitted"] is False
    seen.clear()
    assert fit("film-gan", data, tmp_path / "other").code == 0
    assert seen[0] == 1  # small data
    out = ("--out", tmp_path / "no")
    refused(pertcast("cells", "fit", "default", data, *COLUMNS, *out, "--device", "gpu"), "Unknown device 'gpu'")
    if not torch.cuda.is_available():
        refused(fit("film-gan", data, tmp_path / "no", "--device", "cuda"), "PyTorch finds no GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    refused(pertcast("cells", "fit", "default", data, *COLUMNS, *out, "--device", "cuda"), "trains no network")


def test_large_data_get_a_thread_a_core(monkeypatch):
    seen = []
    monkeypatch.setattr("pertcast.cell_tasks.training.SMALL", 100)
    monkeypatch.setattr("pertcast.cell_tasks.training.available_jobs", lambda: 5)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    for count in (0, 3):
        with computing(make_cells(), count):
            pass
    assert [seen[0], seen[2]] == [5, 3]


def test_only_what_numbers_follow_from_names_a_run(data):
    def told(**training):
        settings = {"training": training} if training else {}
        recipe = CellRecipe(name="a", model="film-gan", reason="", settings=settings)
        return cell_inputs(recipe, Columns("condition", "control"), data=data, seed=0)

    assert told(device="cpu", checkpoint_every=3) == told()
    assert told(steps=3) != told()


@pytest.mark.parametrize("name", entries())
def test_every_setting_can_be_reached(name):
    """R30, S003-02, S003-06: `--set` changes each field of each model's settings, and that one alone."""
    before = build(name).config
    for path, candidates in fields(before):
        found = [change for value in candidates for change in (changed(name, path, value),) if change]
        assert found, f"no value changes {path} of {name}"
        allowed = {"training.average_last", "training.patience"}  # of the ways to choose weights only one can be set
        assert set(found[0]) - {path} <= allowed


def changed(name: str, path: str, value: object) -> dict[str, object]:
    """Which settings a change makes differ; none where the value is refused."""
    before, asked = build(name).config, [f"{path}={json.dumps(value)}"]
    for more in ([], ["training.average_last=0.0"], ["training.patience="]):
        try:
            found = build(name, cell_recipe(name, changes=[*more, *asked]).settings).config
        except InputError:
            continue
        apart = {key: new for key, new in flat(found).items() if flat(before)[key] != new}
        if path in apart:
            return apart
    return {}


def flat(config: BaseModel, prefix: str = "") -> dict[str, object]:
    found = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else {f"{prefix}{name}": value}
    return found


def fields(config: BaseModel, prefix: str = ""):
    """Each field's path, and values that may fit it."""
    for name, info in type(config).model_fields.items():
        value, choices = getattr(config, name), get_args(info.annotation)
        if isinstance(value, BaseModel):
            yield from fields(value, f"{prefix}{name}.")
        elif isinstance(value, bool):
            yield f"{prefix}{name}", [not value]
        elif get_origin(info.annotation) is Literal:
            yield f"{prefix}{name}", list(choices)
        else:
            yield f"{prefix}{name}", [2, 3, 0.25, 0.5, 7, 64, [8, 4], [0.1, 0.2], ["GENE0001"], "cpu"]


def test_settings_of_training_are_checked_together():
    with pytest.raises(InputError, match="set one of them"):
        build("zinb-vae", {"training": {"patience": 3, "ema": 0.9, "average_last": 0.0}})
    assert "checkpoint_every" not in FitSettings.model_fields  # of cells only: other runs name themselves by settings
