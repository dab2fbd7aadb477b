"""Vertices of meshes: OBJ, OFF and STL."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svdrot.io.text import COLUMNS, Rows, check_count, check_lists, rows_of, shown, table


def obj(path: Path, data: bytes) -> NDArray[Any]:
    """Read the lines `v`, once each, faces or not; the faces are checked."""
    rows = rows_of(data)
    vertices = [(n, line[1:].strip()) for n, line in rows if line.split(None, 1)[0] == "v"]
    points = table(path, vertices, COLUMNS)[:, :3]
    for number, line in rows:
        word, *corners = line.split()
        if word != "f":
            continue
        indices = [corner.partition("/")[0].removeprefix("-") for corner in corners]
        if len(indices) < 3 or not all(i.isdecimal() and 0 < int(i) <= len(points) for i in indices):
            raise ValueError(
                f"{path}, line {number}: wanted three or more of {len(points)} vertices; got {shown(line)}."
            )
    return points


def off(path: Path, data: bytes) -> NDArray[Any]:
    """Read the vertices of an OFF, with or without colors and normals."""
    rows = list(rows_of(data))
    keyword = re.match(r"(?:ST)?C?N?OFF\b|OFF(?=\d)", rows[0][1]) if rows else None
    if keyword is None:
        raise ValueError(f"{path}, line 1: wanted `OFF`, as text, in three dimensions.")
    number, first = rows.pop(0)
    if rest := first[keyword.end() :].strip():  # ModelNet's have "OFF490 518 0" in one line
        rows.insert(0, (number, rest))
    counts = rows.pop(0)[1].split() if rows else []
    if len(counts) not in (2, 3) or not all(word.isdecimal() for word in counts):
        raise ValueError(
            f"{path}: wanted the numbers of vertices, faces and edges after `OFF`; got {counts}."
        )
    vertices, faces = map(int, counts[:2])
    check_count(path, len(rows), vertices + faces, "lines of vertices and faces")
    check_lists(path, rows[vertices:], least=1)
    numbers = table(path, rows[:vertices])
    if numbers.shape[1] < 3:
        raise ValueError(f"{path}, line {rows[0][0]}: wanted x y z; got {shown(rows[0][1])}.")
    return numbers[:, :3]


_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def stl(path: Path, data: bytes) -> NDArray[Any]:
    """Read the corners of the triangles, each point once, where it occurs first."""
    if len(data) >= 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little"):
        corners = np.frombuffer(data, _STL_TRIANGLE, offset=84)["corners"].reshape(-1, 3)
    elif data.lstrip().startswith(b"solid"):
        corners = _stl_text(path, rows_of(data, "\n"))
    else:
        announced = (
            f"announces {int.from_bytes(data[80:84], 'little')} triangles" if len(data) >= 84 else "is short"
        )
        raise ValueError(f"{path} is no STL, or cut: its header {announced}, and it has {len(data)} bytes.")
    _, first = np.unique(corners, axis=0, return_index=True)
    return corners[np.sort(first)].astype(np.float64)


def _stl_text(path: Path, rows: Rows) -> NDArray[Any]:
    vertices = [(n, line[6:].strip()) for n, line in rows if line.lower().startswith("vertex")]
    corners = table(path, vertices, [3])
    facets = sum(line.lower().startswith("facet") for _, line in rows)
    if len(corners) != 3 * facets or not rows[-1][1].lower().startswith("endsolid"):
        raise ValueError(
            f"{path}, line {rows[-1][0]}: ends after {len(corners)} corners of {facets} triangles, "
            f"with {shown(rows[-1][1])}. Was it cut?"
        )
    return corners


def write_obj(path: Path, points: NDArray[Any]) -> None:
    np.savetxt(path, points, "v %.17g %.17g %.17g")


def write_off(path: Path, points: NDArray[Any]) -> None:
    np.savetxt(path, points, "%.17g", header=f"OFF\n{len(points)} 0 0", comments="")
