"""Points as columns of numbers: xyz, txt, csv and pts."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svdrot.io.text import COLUMNS, is_number, rows_of, shown, table


def xyz(path: Path, data: bytes) -> NDArray[Any]:
    """Read numbers between spaces, commas or semicolons; a csv may name its columns in the first line."""
    rows = rows_of(data)
    if not rows:
        return np.empty((0, 3))
    number, first = rows[0]
    delimiter = next((sign for sign in ";," if sign in first), None)
    names = [name.strip(" \"'").lower() for name in first.split(delimiter)]
    if path.suffix.lower() != ".csv" or any(map(is_number, names)):
        return table(path, rows, COLUMNS, delimiter)[:, :3]
    if not {"x", "y", "z"} <= {*names}:
        raise ValueError(f"{path}, line {number}: wanted numbers, or columns x, y and z; got {shown(first)}.")
    return table(path, rows[1:], [len(names)], delimiter)[:, [names.index(axis) for axis in "xyz"]]


def pts(path: Path, data: bytes) -> NDArray[Any]:
    """Read as `xyz` does, but for the number of points that scanners put before them."""
    rows = rows_of(data)
    if not rows or not rows[0][1].isdecimal():
        return xyz(path, data)
    (number, count), *rows = rows
    if int(count) != len(rows):
        raise ValueError(f"{path}, line {number}: wanted {int(count)} points; got {len(rows)}.")
    return table(path, rows, COLUMNS)[:, :3]


def write_xyz(path: Path, points: NDArray[Any]) -> None:
    np.savetxt(path, points, "%.17g")


def write_csv(path: Path, points: NDArray[Any]) -> None:
    np.savetxt(path, points, "%.17g", ",", header="x,y,z", comments="")
