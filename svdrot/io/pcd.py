"""PCD: text is read here, binary and compressed files by open3d."""

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svdrot._optional import optional
from svdrot.io.text import check_count, rows_of, table


def pcd(path: Path, data: bytes) -> NDArray[Any]:
    """Read the fields x y z, as they are: the viewpoint is not applied."""
    end = re.search(rb"(?:^|\n)DATA (\w+)[ \t]*\r?\n", data)
    if end is None:
        raise ValueError(f"{path} is no PCD, or cut: wanted a header that ends with `DATA ...`.")
    header = data[: end.start()].decode(errors="replace").splitlines()
    entries = {words[0]: words[1:] for line in header if (words := line.split())}
    fields, count = entries.get("FIELDS", []), entries.get("POINTS", [])
    if not {"x", "y", "z"} <= {*fields} or len(count) != 1 or not count[0].isdecimal():
        raise ValueError(f"{path}: wanted FIELDS x y z and POINTS in its header; got {fields}, {count}.")
    if end[1] == b"ascii":
        rows = rows_of(data[end.end() :], "#", 1 + data[: end.end()].count(b"\n"))
        check_count(path, len(rows), int(count[0]), "points")
        repeats = entries.get("COUNT", ["1"] * len(fields))
        if len(repeats) != len(fields) or not all(word.isdecimal() for word in repeats):
            raise ValueError(f"{path}: wanted a COUNT for each of FIELDS {fields}; got {repeats}.")
        columns = np.repeat(fields, [*map(int, repeats)]).tolist()
        if not {"x", "y", "z"} <= {*columns}:
            raise ValueError(f"{path}: wanted a COUNT of x, y and z; got {repeats} of {fields}.")
        return table(path, rows, [len(columns)])[:, [columns.index(axis) for axis in "xyz"]]
    found = _pcd_by_open3d(path, data)
    check_count(path, len(found), int(count[0]), "points")
    return found


def _pcd_by_open3d(path: Path, data: bytes) -> NDArray[Any]:
    open3d = optional("open3d", "a binary PCD")
    # A copy, since open3d 0.20 knows the format by the suffix, in small letters alone.
    with (
        tempfile.TemporaryDirectory() as folder,
        open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error),
    ):
        copy = Path(folder, "cloud.pcd")
        copy.write_bytes(data)
        cloud = open3d.t.io.read_point_cloud(str(copy))
    if "positions" not in cloud.point:
        raise ValueError(f"{path} cannot be read as PCD: its data are cut or broken.")
    return cloud.point.positions.numpy().astype(np.float64)


def write_pcd(path: Path, points: NDArray[Any]) -> None:
    open3d = optional("open3d", "a PCD")
    cloud = open3d.t.geometry.PointCloud(open3d.core.Tensor(points.astype(np.float32)))
    if not open3d.t.io.write_point_cloud(str(path), cloud):
        raise OSError(f"{path} could not be written.")
