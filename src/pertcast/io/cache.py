"""Feature tables kept as Parquet under a digest of what they were made from: reused when equal, rebuilt when not."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pertcast.errors import InputError
from pertcast.io.atomic import atomic_path

FEATURE_VERSION = 2  # raise it when the code of any cached feature comes to give other numbers
LIBRARIES = ("numpy", "scipy", "rdkit")  # whose version may change a feature
HEADER = b"pertcast"  # key of the Parquet metadata that holds the digest and the shape of every array

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray]


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of feature tables `<name>-<digest16>.parquet`, any of which may be deleted at any time."""

    folder: Path

    def get_or_build(self, name: str, *, inputs: object, build: Callable[[], Mapping[str, NDArray]]) -> Arrays:
        """Read the arrays that these inputs gave before, or build and keep them.

        name     of the feature; part of the file's name
        inputs   all that the arrays follow from, settings included: mappings, sequences, text, numbers, arrays
        build    returns arrays of numbers, booleans or text, 1-D or 2-D, of any lengths; text comes back as objects
        A damaged file is rebuilt, with a warning in the log.
        Raises InputError if the folder cannot be written to.
        """
        digest = digest_of({"name": name, "inputs": inputs})
        path = self.path(name, digest)
        if path.exists():
            try:
                return _read(path, digest)
            except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
                reason = str(error).partition("\n")[0]
                logger.warning("Cached feature table '%s' is damaged and is built again: %s", path, reason)
        arrays = {key: _plain(array) for key, array in build().items()}
        self._write(path, digest, arrays)
        return arrays

    def path(self, name: str, digest: str) -> Path:
        """Where the arrays of a feature lie."""
        return Path(self.folder) / f"{name}-{digest[:16]}.parquet"

    def _write(self, path: Path, digest: str, arrays: Arrays) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"Feature cache folder '{self.folder}' cannot be made: {error.strerror}. "
                "Choose a folder that can be written to, or move away what stands in its place."
            ) from error
        table = _table(arrays, digest)
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def digest_of(inputs: object) -> str:
    """sha256, in hexadecimal, of inputs of any nesting, of the feature version and of the libraries' versions.

    Equal content gives an equal digest: neither the order of a mapping nor the memory layout of an array counts.
    """
    versions = {library: version(library) for library in LIBRARIES}
    content = {"feature_version": FEATURE_VERSION, "libraries": versions, "inputs": _canonical(inputs)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _canonical(value: object) -> object:
    """Bring inputs into a form that JSON writes in one way only."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OUT":
            return {"array": "text", "shape": value.shape, "values": _canonical(value.ravel().tolist())}
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"array": value.dtype.str, "shape": value.shape, "sha256": content}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys of a mapping in the inputs of a feature must be text")
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value


def _plain(array: NDArray) -> NDArray:
    """Give a built array the form in which it comes back from the file."""
    array = np.asarray(array)
    if array.ndim not in (1, 2):
        raise ValueError(f"a cached array must have one or two dimensions, not {array.ndim}")
    return array.astype(object) if array.dtype.kind in "OUT" else array


def _table(arrays: Arrays, digest: str) -> pa.Table:
    """One column per array; the shorter ones are filled up with nulls, their shapes stand in the metadata."""
    rows = max((len(array) for array in arrays.values()), default=0)
    columns = {name: _column(array, rows) for name, array in arrays.items()}
    shapes = {name: {"dtype": array.dtype.str, "shape": array.shape} for name, array in arrays.items()}
    header = json.dumps({"digest": digest, "arrays": shapes})
    return pa.table(columns).replace_schema_metadata({HEADER: header})


def _column(array: NDArray, rows: int) -> pa.Array:
    if array.size == 0:
        return pa.nulls(rows)
    column = pa.array(array.ravel(), type=pa.string() if array.dtype.kind == "O" else None)
    if array.ndim == 2:
        column = pa.FixedSizeListArray.from_arrays(column, array.shape[1])
    return pa.concat_arrays([column, pa.nulls(rows - len(column), column.type)])


def _read(path: Path, digest: str) -> Arrays:
    table = pq.read_table(path, page_checksum_verification=True, partitioning=None)
    header = json.loads(table.schema.metadata[HEADER])
    if header["digest"] != digest:
        raise ValueError("it was made from other inputs")
    arrays = {}
    for name, about in header["arrays"].items():
        shape, dtype = tuple(about["shape"]), np.dtype(about["dtype"])
        if 0 in shape:
            arrays[name] = np.zeros(shape, dtype)
            continue
        column = table.column(name).combine_chunks().slice(0, shape[0])
        flat = column.flatten() if len(shape) == 2 else column
        arrays[name] = np.array(flat.to_numpy(zero_copy_only=False), dtype).reshape(shape)
    return arrays
