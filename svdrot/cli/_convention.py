"""`svdrot convention`: read two arrays of rotations, name the convention that they differ by."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svdrot.conventions import detect
from svdrot.io.arrays import load_numpy
from svdrot.io.text import is_number, rows_of, table

CODES = {"found": 0, "none": 1, "ambiguous": 4}  # 2 is for bad usage
DELIMITERS = {".csv": ",", ".txt": None}


def run(a: Path, b: Path) -> int:
    """Print what is found; returns the exit code."""
    try:
        found = detect(read(a), read(b))
    except (ValueError, OSError) as error:
        print(f"svdrot convention: {error}", file=sys.stderr)
        return 2
    print(found)
    return CODES[found.verdict]


def read(path: Path) -> NDArray[Any]:
    """Read an array of numbers: npy, npz with one array in it, or txt and csv, a rotation to a line."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file of rotations.")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        return _lines(path, DELIMITERS[suffix])
    if suffix not in (".npy", ".npz"):
        raise ValueError(f"{path}: wanted npy, npz, txt or csv; got {suffix or 'no suffix'}.")
    array = load_numpy(path, path.read_bytes())
    if isinstance(array, Mapping):
        if len(array) != 1:
            raise ValueError(f"{path}: wanted one array; it has {', '.join(array) or 'none'}.")
        (array,) = array.values()
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: wanted real numbers; got {array.dtype}.")
    return np.asarray(array)


def _lines(path: Path, delimiter: str | None) -> NDArray[Any]:
    rows = rows_of(path.read_bytes())
    if rows and not any(is_number(word) for word in rows[0][1].split(delimiter)):
        rows = rows[1:]  # names of columns
    if not rows:
        raise ValueError(f"{path} holds no rotation.")
    return table(path, rows, delimiter=delimiter)
