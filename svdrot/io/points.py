"""Points of files, by their formats. What is broken, cut or not finite is an error, not a cloud.

A file that holds less or more than its header announces is refused. The libraries do not do so: trimesh 5.2
takes a binary PLY that lost its faces for a cloud, and refuses one whose faces have three and four corners;
open3d 0.20 answers files that were cut with memory never written to, its older reader makes noise of float64
PCD, and an OFF face beyond the vertices ends the process. So text and plain records are read here, and open3d
unpacks binary PCD.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot._checks import check_shape
from svdrot._optional import optional
from svdrot.io import arrays, columns, meshes, pcd, ply
from svdrot.io.files import replacing


@dataclass(frozen=True)
class Format:
    """Describe how a file is read and written: a row of `FORMATS`.

    Attributes:
        read: from the path, for its messages, and the content of the file to the points (N, 3), float64, in
            the order of the file. A ValueError begins with the path, and names the line if it can.
        write: the points (N, 3), float64, to the path; None if it can only be read.
        surface: whether a file may hold faces, so that `samples` of `read_points` can be drawn.

    Example:
        >>> import numpy, pathlib, torch, svdrot
        >>> def read_raw(path, data):
        ...     return numpy.frombuffer(data, "<f8").reshape(-1, 3)
        >>> svdrot.io.FORMATS[".raw"] = svdrot.io.Format(read_raw)
        >>> numpy.arange(6.0).tofile("cloud.raw")
        >>> svdrot.io.read_points("cloud.raw").shape
        torch.Size([2, 3])
        >>> del svdrot.io.FORMATS[".raw"]
    """

    read: Callable[[Path, bytes], NDArray[Any]]
    write: Callable[[Path, NDArray[Any]], object] | None = None
    surface: bool = False


# By suffix; how it is written does not matter. A format of your own is one more row.
FORMATS = {
    ".ply": Format(ply.ply, ply.write_ply, surface=True),
    ".pcd": Format(pcd.pcd, pcd.write_pcd),
    ".obj": Format(meshes.obj, meshes.write_obj, surface=True),
    ".off": Format(meshes.off, meshes.write_off, surface=True),
    ".stl": Format(meshes.stl, surface=True),
    ".npy": Format(arrays.npy, np.save),
    ".npz": Format(arrays.npz, arrays.write_npz),
    ".xyz": Format(columns.xyz, columns.write_xyz),
    ".pts": Format(columns.pts, columns.write_xyz),
    ".txt": Format(columns.xyz, columns.write_xyz),
    ".csv": Format(columns.xyz, columns.write_csv),
    ".bin": Format(arrays.kitti, arrays.write_kitti),
}


def read_points(
    path: str | Path, *, drop_nan: bool = False, samples: int | None = None, seed: int = 0
) -> Tensor:
    r"""Read the points of a cloud, or the vertices of a mesh, in the order of the file.

    By the suffix of the file: PLY (text and binary, of either byte order), PCD (text, binary, compressed),
    OBJ, OFF, STL (where each corner counts once), npy, npz (its array `points`, its only one, or that of
    `FILE.npz:NAME`), KITTI's bin (float32 x y z intensity), and xyz, pts, txt, csv: lines `x y z`, which may
    go on with an intensity, a normal, a color; pts may begin with the number of points. Formats without a
    header cannot detect a truncation at a point boundary.

    Args:
        path: of the file.
        drop_nan: leave out points with a NaN or an infinity, as depth cameras write where they saw nothing.
        samples: number of points to draw uniformly from the surface of a mesh instead of its vertices.
        seed: of the samples.

    Returns:
        Shape (N, 3), float64, N > 0, finite, in the units of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: with the file, and the line if it is text: unknown suffix, a folder, not of its format,
            cut, no points, another number of columns, something else than numbers, not finite.
        ImportError: if open3d, for binary PCD, or trimesh, for samples, cannot be loaded.

    Example:
        >>> import pathlib, torch, svdrot
        >>> _ = pathlib.Path("cloud.csv").write_text("x,y,z\n0,0,1\n0.5,0,2\nnan,nan,nan\n")
        >>> svdrot.io.read_points("cloud.csv", drop_nan=True)
        tensor([[0.0000, 0.0000, 1.0000],
                [0.5000, 0.0000, 2.0000]], dtype=torch.float64)
    """
    path = Path(path)
    file = Path(re.sub(r"(?i)(\.npz):\w+$", r"\1", str(path)))
    suffix = suffix_of(file, FORMATS)
    if file.is_dir():
        raise ValueError(f"{file} is a folder, not a file of points.")
    if not file.exists():
        raise FileNotFoundError(f"There is no file {file}.")
    points = FORMATS[suffix].read(path, file.read_bytes())
    if samples is not None:
        points = _sampled(file, samples, seed)
    finite = np.isfinite(points).all(1)
    if not drop_nan and not finite.all():
        raise ValueError(
            f"{path}: {(~finite).sum()} of {len(points)} points are not finite, the first of them number "
            f"{finite.argmin() + 1}, {points[finite.argmin()].tolist()}. `drop_nan` leaves them out."
        )
    if not finite.any():
        raise ValueError(f"{path} holds no points.")
    return torch.from_numpy(np.ascontiguousarray(points[finite]))


def suffix_of(file: Path, known: Collection[str]) -> str:
    """Return which of the known suffixes a file has, in whatever letters: the longest, of several.

    Raises:
        ValueError: if it has none of them.
    """
    ends = [suffix for suffix in known if file.name.lower().endswith(suffix.lower())]
    if not ends:
        got = file.suffix.lower()
        raise ValueError(f"{file}: the suffix must be one of {' '.join(known)}; got {got!r}.")
    return max(ends, key=len)


def _sampled(file: Path, samples: int, seed: int) -> NDArray[Any]:
    """Draw points from the surface of a mesh."""
    if samples < 1:
        raise ValueError(f"`samples` must be positive; got {samples}.")
    if not FORMATS[suffix_of(file, FORMATS)].surface:
        raise ValueError(f"{file} is a cloud without a surface to draw `samples` from.")
    trimesh = optional("trimesh", "a sample of a surface")
    surface = trimesh.load(file, force="mesh", process=False)
    if not len(surface.faces) or not surface.area > 0:
        raise ValueError(f"{file} has no faces, or none with an area, to draw `samples` from.")
    return trimesh.sample.sample_surface(surface, samples, seed=seed)[0].astype(np.float64)


def write_points(path: str | Path, points: Tensor) -> None:
    """Write a cloud, whole or not at all.

    What `read_points` gives back is exact for ply (float64), npy, npz, xyz, pts, txt, csv, obj and off, and
    rounded to float32, 6e-8 of a coordinate, in pcd and bin, as other programs read them.

    Args:
        path: of a file, which is replaced, in a folder that exists. Its suffix is one of those above.
        points: shape (N, 3), floating point, N > 0, finite.

    Raises:
        ValueError: if the points are none or not finite, or the suffix is another.
        TypeError: if `points` is not a floating-point tensor.
        ImportError: if open3d, for pcd, cannot be loaded.
        OSError: if the file cannot be written.

    Example:
        >>> import torch, svdrot
        >>> points = torch.rand(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> svdrot.io.write_points("cloud.ply", points)
        >>> torch.equal(svdrot.io.read_points("cloud.ply"), points)
        True
    """
    path = Path(path)
    check_shape("points", points, 3)
    if points.ndim != 2 or not len(points) or not points.isfinite().all():
        raise ValueError(
            f"`points` must be (N, 3) with N > 0, and finite; got {tuple(points.shape)} {points}."
        )
    writers = {suffix: form.write for suffix, form in FORMATS.items() if form.write}
    write = writers[suffix_of(path, writers)]
    array = points.detach().to("cpu", torch.float64).resolve_neg().numpy()
    with replacing(path) as new:
        write(new, array)
