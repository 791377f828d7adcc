"""Writing, publishing and adding up submissions."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.errors import InputError
from pertcast.submission import (
    publish,
    read_submission,
    validate_submission,
    weighted_sum,
    write_submission,
    write_with_facts,
)
from pertcast.types import Predictions

GENES = ("A1BG", "A1BG-AS1", "HLA-A", "ZYX", "a,comma")
DAY = date(2023, 11, 30)


@pytest.fixture
def values():
    return np.random.default_rng(5).normal(scale=3, size=(4, len(GENES)))


@pytest.fixture
def write(tmp_path, values):
    def run(path=tmp_path / "s.csv", *, ids=range(4), genes=GENES, values=values):
        write_submission(path, ids=ids, genes=genes, values=values)
        return path

    return run


def remains(folder):
    return sorted(path.name for path in folder.iterdir())


def test_pandas_reads_what_was_written(write, values):
    """S004-01: `id` first, then the genes of the template; a row per id; nothing missing."""
    frame = pd.read_csv(write())
    assert list(frame.columns) == ["id", *GENES]
    assert frame["id"].dtype == np.int64
    assert frame["id"].tolist() == [0, 1, 2, 3]
    assert_array_equal(frame[list(GENES)].to_numpy(np.float32), values.astype(np.float32))


def test_the_competition_s_own_shape(tmp_path):
    """S004-01: 255 rows x 18,212 columns come back, every float32 as it was, also tiny and large ones."""
    rng = np.random.default_rng(0)
    genes = [f"GENE{j}" for j in range(18_211)]
    values = (rng.normal(size=(255, 18_211)) * 10.0 ** rng.integers(-12, 3, size=(255, 1))).astype(np.float32)
    write_submission(tmp_path / "s.csv", ids=range(255), genes=genes, values=values)
    checked = validate_submission(tmp_path / "s.csv", ids=range(255), genes=genes)
    assert checked.values.shape == (255, 18_211)
    assert_array_equal(checked.values.astype(np.float32), values)


def test_value_k_stands_under_gene_k(tmp_path):
    """R04: a model that predicts each gene's index gives column k = k under the right name."""
    genes = [f"gene {k}" for k in range(37)]
    write_submission(tmp_path / "s.csv", ids=range(4), genes=genes, values=np.tile(np.arange(37.0), (4, 1)))
    frame = pd.read_csv(tmp_path / "s.csv")
    assert all((frame[f"gene {k}"] == k).all() for k in range(37))
    assert frame.columns[1 + 17] == "gene 17"


def test_shuffled_genes_change_nothing_in_the_named_output(tmp_path, write, values):
    """S004-02, R05."""
    order = [3, 0, 4, 1, 2]
    plain = pd.read_csv(write())
    shuffled = pd.read_csv(write(tmp_path / "t.csv", genes=[GENES[j] for j in order], values=values[:, order]))
    pd.testing.assert_frame_equal(shuffled[plain.columns], plain)


def test_memory_order_and_type_do_not_matter(tmp_path, write, values):
    text = write().read_bytes()
    for i, same in enumerate([np.asfortranarray(values), values.astype(np.float32), np.repeat(values, 2, 1)[:, ::2]]):
        assert write(tmp_path / f"{i}.csv", values=same, ids=np.arange(4, dtype=np.int32)).read_bytes() == text


def test_what_cannot_be_written_is_refused(write, values, tmp_path):
    bad = values.copy()
    bad[1, 2], bad[3, 3] = np.nan, np.inf
    with pytest.raises(InputError) as caught:
        write(ids=[0, 1, 1, 2], genes=["A", "B", "B", "C", "id"], values=bad)
    shown = str(caught.value)
    assert "has 3 problems" in shown
    assert "1 ids are repeated: 1." in shown
    assert "2 column names are repeated: id, B." in shown
    assert "2 values are NaN, infinite or beyond float32, first at id 1, gene 'B' (nan)" in shown
    with pytest.raises(InputError, match=r"shape \(4, 5\).*got float64 of shape \(4, 4\)"):
        write(values=values[:, :4])
    with pytest.raises(InputError, match="beyond float32, first at id 0, gene 'A1BG' .1e\\+39"):
        write(values=np.full((4, 5), 1e39))
    with pytest.raises(InputError, match="ids must be whole numbers, at least one; got float64"):
        write(ids=[0.0, 1.0, 2.0, 3.0])
    assert remains(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB, where this process may mount one; elsewhere the test that asks for it is skipped."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk(small_disk):
    old = small_disk / "s.csv"
    write_submission(old, ids=[0], genes=["A"], values=np.ones((1, 1)))
    before = old.read_bytes()
    genes = [f"G{j}" for j in range(1000)]
    with pytest.raises(InputError, match=r"s\.csv' cannot be written: .*No space left.*The disk is full. Free some"):
        write_submission(old, ids=range(400), genes=genes, values=np.random.default_rng(0).normal(size=(400, 1000)))
    assert remains(small_disk) == ["s.csv"]
    assert old.read_bytes() == before


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "The disk is full"), (errno.EACCES, "There is no permission to write there")]
)
def test_the_system_refuses(write, tmp_path, monkeypatch, number, said):
    def refuse(self, *_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(InputError, match=rf"s\.csv' cannot be written.*{said}"):
        write()
    assert remains(tmp_path) == []


def test_a_folder_that_is_missing_or_a_file(write, values, tmp_path):
    with pytest.raises(InputError, match="Its folder does not exist. Create the folder first"):
        write(tmp_path / "none" / "s.csv")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="Folder '.*file' cannot be written to: File exists. Choose another place"):
        publish_at(tmp_path / "file", values)


def test_killed_while_writing_leaves_no_half_file(tmp_path):
    script = """
    import sys, time
    from pathlib import Path
    import numpy as np
    from pertcast.submission import write_submission
    whole = Path.write_bytes
    def half(self, text):
        whole(self, text[: len(text) // 2])
        print("half", flush=True)
        time.sleep(60)
    Path.write_bytes = half
    write_submission(Path(sys.argv[1]), ids=range(9), genes=["A", "B"], values=np.ones((9, 2)))
    """
    path = tmp_path / "s.csv"
    command = [sys.executable, "-c", textwrap.dedent(script), path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert not path.exists()
    assert len(remains(tmp_path)) == 1  # the half, under a temporary name
    write_submission(path, ids=[0], genes=["A"], values=np.ones((1, 1)))
    assert remains(tmp_path) == ["s.csv"]


def publish_at(folder, values, **changes):
    given = {"ids": range(4), "genes": GENES, "values": values, "name": "fast", "cv_score": 0.81234, "facts": {"w": 1}}
    return publish(folder, **{**given, "today": DAY, **changes})


def test_publish_names_the_file_and_keeps_the_facts(tmp_path, values):
    path = publish_at(tmp_path / "new" / "folder", values)
    text = path.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    assert path.name == f"2023-11-30_fast_0.8123_{digest[:8]}.csv"
    assert json.loads(path.with_suffix(".json").read_text()) == {
        "cv_score": 0.81234,
        "date": "2023-11-30",
        "facts": {"w": 1},
        "file": path.name,
        "name": "fast",
        "sha256": digest,
        "shape": [4, 5],
    }
    assert (path.parent / "submission.csv").read_bytes() == text
    assert validate_submission(path, ids=range(4), genes=GENES).genes == GENES


def test_publish_again(tmp_path, values):
    first = publish_at(tmp_path, values)
    before = first.read_bytes()
    assert publish_at(tmp_path, values) == first  # same content, same name
    second = publish_at(tmp_path, values + 1)
    assert len(remains(tmp_path)) == 5
    assert first.read_bytes() == before
    newest = tmp_path / "submission.csv"
    assert newest.read_bytes() == second.read_bytes()
    newest.write_text("edited")
    assert second.read_bytes() != b"edited"


def test_publish_refuses_bad_names_and_scores(tmp_path, values):
    for name in ("a/b", "", "..", "two words"):
        with pytest.raises(InputError, match="name is made of letters, digits"):
            publish_at(tmp_path, values, name=name)
    with pytest.raises(InputError, match="score of 'fast' must be finite, got nan"):
        publish_at(tmp_path, values, cv_score=float("nan"))
    assert remains(tmp_path) == []


def test_facts_that_cannot_be_kept_leave_no_csv_behind(tmp_path, values):
    with pytest.raises(ValueError, match="not JSON compliant"):
        publish_at(tmp_path, values, facts={"score": float("nan")})
    assert remains(tmp_path) == []
    with pytest.raises(InputError, match=r"must end in '\.csv', got '.*s\.json'"):
        write_with_facts(tmp_path / "s.json", ids=range(4), genes=GENES, values=values, facts={})


@pytest.fixture
def two(tmp_path, values):
    """Two predictions of the same rows and genes; the second lists both in another order."""
    other, rows, columns = 2 * values + 1, [2, 0, 3, 1], [4, 2, 0, 1, 3]
    write_submission(tmp_path / "a.csv", ids=range(4), genes=GENES, values=values)
    shuffled = other[np.ix_(rows, columns)]
    write_submission(tmp_path / "b.csv", ids=rows, genes=[GENES[j] for j in columns], values=shuffled)
    return {"a": tmp_path / "a.csv", "b": tmp_path / "b.csv"}


def test_weighted_sum_by_name(two, values):
    """S004-12, R05: weights may pass 1, the scale is told, ids stay, rows and genes are matched by name."""
    ids, genes, total, scale = weighted_sum(two, {"a": 0.7, "b": 0.5})
    assert_array_equal(ids, [0, 1, 2, 3])
    assert genes == GENES
    assert scale == pytest.approx(1.2)
    assert_allclose(total, 0.7 * values + 0.5 * (2 * values + 1), atol=1e-5)


def test_weighted_sum_of_arrays_and_files(two, values):
    """S004-12."""
    a = Predictions(np.arange(4), GENES, values)
    mixed = weighted_sum({"a": a, "b": two["b"]}, {"a": 0.7, "b": 0.5})
    assert_allclose(mixed[2], weighted_sum(two, {"a": 0.7, "b": 0.5})[2], atol=1e-5)
    _, _, total, scale = weighted_sum({"a": a}, {"a": 1.3})
    assert_array_equal(total, 1.3 * values)
    assert scale == 1.3


def test_weighted_sum_refuses_what_does_not_match(two, values):
    """S004-12."""
    with pytest.raises(InputError, match="Unknown prediction 'c'. Known: a, b"):
        weighted_sum(two, {"a": 1, "b": 1, "c": 1})
    with pytest.raises(InputError, match="has 2 problems:\n  - 'b' has no weight\n  - the weight of 'a' is nan"):
        weighted_sum(two, {"a": float("nan")})
    with pytest.raises(InputError, match="at least one prediction, got none"):
        weighted_sum({}, {})
    b = read_submission(two["b"])
    fewer = Predictions(b.ids[:3], b.genes, b.values[:3])
    with pytest.raises(InputError, match="The ids of 'b' and 'a' differ: missing in the former: 1"):
        weighted_sum({"a": two["a"], "b": fewer}, {"a": 1, "b": 1})
    renamed = Predictions(b.ids, ("TP53", *b.genes[1:]), b.values)
    with pytest.raises(InputError, match="genes of 'b' and 'a'.*\n.*missing in the former: a,comma\n.*only.*TP53"):
        weighted_sum({"a": two["a"], "b": renamed}, {"a": 1, "b": 1})
    repeated = Predictions(b.ids, (*b.genes[:4], b.genes[0]), b.values)
    with pytest.raises(InputError, match="some are repeated"):
        weighted_sum({"a": repeated, "b": two["b"]}, {"a": 1, "b": 1})
