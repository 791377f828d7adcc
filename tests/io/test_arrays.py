"""Arrays and facts come back as they were, with the same bytes every time, or are refused."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file

from pertcast.errors import InputError
from pertcast.io.arrays import load_arrays, save_arrays

ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "scale": np.array(1.5),
    "used": np.array([True, False]),
    "rows": np.array([], np.int64),
}
FACTS = {"genes": ["G2", "G1"], "unit": "signed log10 p", "steps": 3}


def test_round_trip_keeps_shape_type_and_values(tmp_path):
    save_arrays(tmp_path / "new" / "folder", "model", ARRAYS, FACTS)
    arrays, facts = load_arrays(tmp_path / "new" / "folder", "model")
    assert facts == FACTS
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert_array_equal(arrays[name], array, strict=True)
    outside = load_file(tmp_path / "new" / "folder" / "model.safetensors")  # the library's own reader
    assert_array_equal(outside["weights"], [[0, 3], [1, 4], [2, 5]])


def test_same_content_same_bytes_in_any_order(tmp_path):
    """R38."""
    save_arrays(tmp_path / "a", "model", ARRAYS, FACTS)
    save_arrays(tmp_path / "b", "model", dict(reversed(ARRAYS.items())), dict(reversed(FACTS.items())))
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("model.safetensors", lambda content: content[:-3], "is damaged: its bytes are not those 'model.json' knows"),
        ("model.safetensors", lambda content: content[:-1] + b"x", "is damaged: its bytes are not those"),
        ("model.json", lambda content: content[:20], "model.json' is damaged"),
        ("model.json", lambda content: b"[]", "model.json' is damaged"),
        ("model.json", lambda content: b"\xff\xfe", "model.json' is damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, spoil, message):
    save_arrays(tmp_path, "model", ARRAYS, FACTS)
    path = tmp_path / name
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        load_arrays(tmp_path, "model")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"model.json' cannot be read: No such file"):
        load_arrays(tmp_path, "model")
