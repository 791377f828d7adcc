"""The cache of feature tables: what comes back, when it is built again, and what it says of damage."""

import logging
import multiprocessing

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from pertcast.errors import InputError
from pertcast.io import cache as cache_module
from pertcast.io.cache import Cache, digest_of

ARRAYS = {
    "bits": np.random.default_rng(0).random((300, 16)).astype(np.float32),
    "values": np.array([[0.1, np.nan], [np.inf, -2.0], [1e-300, 5.0]]),
    "counts": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "flags": np.array([True, False, True]),
    "names": np.array(["a", "é", ""]),
    "grid": np.array([["a", "b"], ["c", None]], dtype=object),
    "no_rows": np.zeros((0, 3), np.float32),
    "no_columns": np.zeros((3, 0), np.int64),
}


class Builder:
    """Counts how often it was asked."""

    def __init__(self, arrays=ARRAYS):
        self.arrays, self.calls = arrays, 0

    def __call__(self):
        self.calls += 1
        return self.arrays


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "interim")


def only_file(cache):
    (path,) = cache.folder.iterdir()
    return path


def test_what_was_built_comes_back_equal(cache):
    build = Builder()
    first = cache.get_or_build("morgan", inputs={"radius": 2}, build=build)
    again = cache.get_or_build("morgan", inputs={"radius": 2}, build=build)
    assert build.calls == 1
    for name, array in ARRAYS.items():
        for result in (first[name], again[name]):
            assert_array_equal(result, array)
            assert result.dtype == (object if array.dtype.kind in "OU" else array.dtype)
    assert again.keys() == ARRAYS.keys()


def test_file_is_parquet_named_by_feature_and_digest(cache):
    cache.get_or_build("morgan", inputs=[1], build=Builder())
    path = only_file(cache)
    digest = digest_of({"name": "morgan", "inputs": [1]})
    assert path.name == f"morgan-{digest[:16]}.parquet"
    assert pq.read_table(path).column("counts")[1].as_py() == [4, 5, 6, 7]


SMILES = np.array(["CCO", "CC"], dtype=object)
DIFFERENT = [
    {"radius": 2, "smiles": SMILES},
    {"radius": 3, "smiles": SMILES},
    {"radius": 2.5, "smiles": SMILES},
    {"radius": "2", "smiles": SMILES},
    {"radius": None, "smiles": SMILES},
    {"radius": 2, "smiles": SMILES[::-1]},
    {"radius": 2, "smiles": np.array(["CC", "OCC"], dtype=object)},
    {"radius": 2, "y": np.zeros(4)},
    {"radius": 2, "y": np.zeros((2, 2))},
    {"radius": 2, "y": np.zeros(4, np.float32)},
    {"radius": 2, "y": np.array([0, 0, 0, 1e-9])},
]


def test_any_other_setting_or_value_is_built_anew(cache):
    for number, inputs in enumerate(DIFFERENT):
        got = cache.get_or_build("f", inputs=inputs, build=Builder({"x": np.array([number])}))
        assert got["x"] == [number]
    assert len(list(cache.folder.iterdir())) == len(DIFFERENT)
    cache.get_or_build("g", inputs=DIFFERENT[0], build=Builder())
    assert len(list(cache.folder.iterdir())) == len(DIFFERENT) + 1


def test_equal_content_gives_an_equal_digest():
    """Neither the order of a mapping, the memory layout, nor the kind of text or number counts."""
    y = np.arange(6.0).reshape(2, 3)
    one = {"a": [1, 2], "y": y, "names": np.array(["CCO", "CC"]), "k": 3}
    two = {"k": np.int64(3), "names": SMILES, "y": np.asfortranarray(y), "a": (1, 2)}
    assert digest_of(one) == digest_of(two)
    with pytest.raises(TypeError, match="keys of a mapping"):
        digest_of({1: 2})


def test_new_code_of_a_feature_makes_old_files_void(cache, monkeypatch):
    build = Builder()
    cache.get_or_build("f", inputs=1, build=build)
    monkeypatch.setattr(cache_module, "FEATURE_VERSION", cache_module.FEATURE_VERSION + 1)
    cache.get_or_build("f", inputs=1, build=build)
    assert build.calls == 2


def truncated(content):
    return content[: len(content) // 2]


def one_byte_flipped(content):
    middle = 4 + 300 * 16 * 2  # within the page of random numbers, which no compression shrinks
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [truncated, one_byte_flipped, lambda content: b"", lambda content: b"PAR1"])
def test_damaged_file_is_built_again_and_said_so(cache, caplog, damage):
    build = Builder()
    cache.get_or_build("morgan", inputs=1, build=build)
    path = only_file(cache)
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        again = cache.get_or_build("morgan", inputs=1, build=build)
    assert build.calls == 2
    assert f"Cached feature table '{path}' is damaged and is built again" in caplog.text
    assert_array_equal(again["bits"], ARRAYS["bits"])
    caplog.clear()
    cache.get_or_build("morgan", inputs=1, build=build)
    assert build.calls == 2
    assert not caplog.records


def test_file_of_other_inputs_under_the_same_name_is_not_believed(cache, caplog):
    cache.get_or_build("f", inputs=1, build=Builder({"x": np.array([1])}))
    other = cache.path("f", digest_of({"name": "f", "inputs": 2}))
    only_file(cache).rename(other)
    got = cache.get_or_build("f", inputs=2, build=Builder({"x": np.array([2])}))
    assert got["x"] == [2]
    assert "made from other inputs" in caplog.text


def test_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "interim"):
        with pytest.raises(InputError, match=r"Feature cache folder '.*file.*' cannot be made: .*Choose a folder"):
            Cache(folder).get_or_build("f", inputs=1, build=Builder())


def test_folder_without_permission_is_said_and_nothing_remains(cache, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pq, "write_table", refuse)
    with pytest.raises(InputError, match=r"cannot be written: .*Permission denied.*Choose another place"):
        cache.get_or_build("f", inputs=1, build=Builder())
    assert not list(cache.folder.iterdir())


def test_failed_build_leaves_nothing(cache):
    def fail():
        raise InputError("no such compound")

    with pytest.raises(InputError, match="no such compound"):
        cache.get_or_build("f", inputs=1, build=fail)
    assert not cache.folder.exists()


def test_three_dimensions_are_refused(cache):
    with pytest.raises(ValueError, match="one or two dimensions, not 3"):
        cache.get_or_build("f", inputs=1, build=Builder({"x": np.zeros((2, 2, 2))}))


def build_at_once(folder, barrier, results):
    barrier.wait()
    got = Cache(folder).get_or_build("f", inputs=1, build=Builder())
    results.put(float(got["bits"].sum()))


def test_processes_that_build_at_once_do_not_disturb_each_other(cache):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=build_at_once, args=(cache.folder, barrier, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    sums = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert sums == {float(ARRAYS["bits"].sum())}
    assert only_file(cache).suffix == ".parquet"
