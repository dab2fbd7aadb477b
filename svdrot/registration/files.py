"""Point clouds and transforms in files. What is broken, cut or not finite is an error, not a cloud."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot._checks import check_shape
from svdrot.projection import special_orthogonalize
from svdrot.registration import _formats
from svdrot.registration.transform import Transform

_READERS: dict[str, Callable[[Path, bytes], NDArray]] = {
    ".ply": _formats.ply,
    ".pcd": _formats.pcd,
    ".obj": _formats.obj,
    ".off": _formats.off,
    ".stl": _formats.stl,
    ".npy": _formats.npy,
    ".npz": _formats.npz,
    ".xyz": _formats.xyz,
    ".pts": _formats.pts,
    ".txt": _formats.xyz,
    ".csv": _formats.xyz,
    ".bin": _formats.kitti,
}
SUFFIXES = tuple(_READERS)
_MESHES = (".ply", ".obj", ".off", ".stl")


def read_points(
    path: str | Path, *, drop_nan: bool = False, samples: int | None = None, seed: int = 0
) -> Tensor:
    """The points of a cloud, or the vertices of a mesh, in the order of the file.

    By the suffix of the file: PLY (text and binary, of either byte order), PCD (text, binary, compressed),
    OBJ, OFF, STL (where each corner counts once), npy, npz (its array `points`, its only one, or that of
    `FILE.npz:NAME`), KITTI's bin (float32 x y z intensity), and xyz, pts, txt, csv: lines `x y z`, which may
    go on with an intensity, a normal, a colour; pts may begin with the number of points. Without a header
    nothing tells of a cut between two points.

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
    """
    path = Path(path)
    file = Path(re.sub(r"(?i)(\.npz):\w+$", r"\1", str(path)))
    suffix = _suffix(file, _READERS)
    if file.is_dir():
        raise ValueError(f"{file} is a folder, not a file of points.")
    if not file.exists():
        raise FileNotFoundError(f"There is no file {file}.")
    points = _READERS[suffix](path, file.read_bytes())
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


def _suffix(file: Path, known: dict[str, Callable]) -> str:
    suffix = file.suffix.lower()
    if suffix not in known:
        raise ValueError(f"{file}: the suffix must be one of {' '.join(known)}; got {suffix!r}.")
    return suffix


def _sampled(file: Path, samples: int, seed: int) -> NDArray:
    if samples < 1:
        raise ValueError(f"`samples` must be positive; got {samples}.")
    if file.suffix.lower() not in _MESHES:
        raise ValueError(f"{file} is a cloud without a surface to draw `samples` from.")
    trimesh = _formats.optional("trimesh", "a sample of a surface")
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
    """
    path = Path(path)
    check_shape("points", points, 3)
    if points.ndim != 2 or not len(points) or not points.isfinite().all():
        raise ValueError(
            f"`points` must be (N, 3) with N > 0, and finite; got {tuple(points.shape)} {points}."
        )
    write = _WRITERS[_suffix(path, _WRITERS)]
    array = points.detach().to("cpu", torch.float64).resolve_neg().numpy()
    with replacing(path) as new:
        write(new, array)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the block ends well: never half a file."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder.")
    # Small letters: numpy and open3d know the format by the suffix, in these alone.
    new = path.with_name(f".{os.getpid()}-{path.stem}{path.suffix.lower()}")
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _write_ply(path: Path, points: NDArray) -> None:
    properties = "".join(f"property double {axis}\n" for axis in "xyz")
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{properties}end_header\n"
    path.write_bytes(header.encode() + points.astype("<f8").tobytes())


def _write_pcd(path: Path, points: NDArray) -> None:
    open3d = _formats.optional("open3d", "a PCD")
    cloud = open3d.t.geometry.PointCloud(open3d.core.Tensor(points.astype(np.float32)))
    if not open3d.t.io.write_point_cloud(str(path), cloud):
        raise OSError(f"{path} could not be written.")


def _write_text(path: Path, points: NDArray, form: str = "%.17g %.17g %.17g", header: str = "") -> None:
    np.savetxt(path, points, form, header=header, comments="")


_WRITERS: dict[str, Callable[[Path, NDArray], object]] = {
    ".ply": _write_ply,
    ".pcd": _write_pcd,
    ".obj": lambda path, points: _write_text(path, points, "v %.17g %.17g %.17g"),
    ".off": lambda path, points: _write_text(path, points, header=f"OFF\n{len(points)} 0 0"),
    ".npy": np.save,
    ".npz": lambda path, points: np.savez(path, points=points),
    ".xyz": _write_text,
    ".pts": _write_text,
    ".txt": _write_text,
    ".csv": lambda path, points: _write_text(path, points, "%.17g,%.17g,%.17g", "x,y,z"),
    ".bin": lambda path, points: path.write_bytes(np.pad(points, ((0, 0), (0, 1))).astype("<f4").tobytes()),
}


def read_transform(path: str | Path, *, tolerance: float = 1e-3) -> Transform:
    """The transform of a file that holds its matrix (4, 4), or the first three rows of it.

    By the suffix: txt, lines of numbers; npy; json, the rows or an object with them as `transform`.

    Args:
        path: of the file.
        tolerance: by how much an entry of A may differ from the nearest multiple s R of a rotation, over s.
            The default lets matrices with three decimals pass.

    Returns:
        float64, the rotation the nearest one, the scale tr(R^T A) / 3.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: with the file: not such a matrix, not finite, a reflection, further from a rotation, a
            last row other than 0 0 0 1.
    """
    path = Path(path)
    suffix = _suffix(path, _MATRIX_READERS)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file of a transform.")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    array = _MATRIX_READERS[suffix](path, path.read_bytes())
    if array.shape not in ((4, 4), (3, 4)) or array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: wanted a matrix (4, 4) or (3, 4); got {array.shape}, {array.dtype}.")
    matrix = torch.from_numpy(array.astype(np.float64))
    if not matrix.isfinite().all():
        raise ValueError(f"{path}: the matrix is not finite.")
    last = matrix.new_tensor([0, 0, 0, 1])
    if not torch.equal(matrix[3:], last.expand(len(matrix) - 3, 4)):
        raise ValueError(f"{path}: the last row must be 0 0 0 1; got {matrix[3].tolist()}.")
    a = matrix[:3, :3]
    rotation = special_orthogonalize(a)
    scale = (rotation * a).sum() / 3
    defect = (a - scale * rotation).abs().max() / scale
    if not (scale > 0 and defect <= tolerance):
        what = "a reflection" if torch.linalg.det(a) < 0 else f"{defect:.1e} off" if scale > 0 else "singular"
        raise ValueError(f"{path}: the 3x3 part must be a rotation, or a multiple of one; it is {what}.")
    return Transform(rotation, matrix[:3, 3].clone(), scale)


def _json_matrix(path: Path, data: bytes) -> NDArray:
    try:
        content = json.loads(data)
        return np.array(content["transform"] if isinstance(content, dict) else content)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: wanted rows, or them as `transform` of an object: {error!r}") from error


def _text_matrix(path: Path, data: bytes) -> NDArray:
    return _formats.table(path, _formats.lines(data), [4])


def _npy_matrix(path: Path, data: bytes) -> NDArray:
    array = _formats.load_numpy(path, data)
    return array if isinstance(array, np.ndarray) else np.empty(0)


_MATRIX_READERS: dict[str, Callable[[Path, bytes], NDArray]] = {
    ".txt": _text_matrix,
    ".npy": _npy_matrix,
    ".json": _json_matrix,
}


def write_transform(path: str | Path, transform: Transform) -> None:
    """Write the matrix (4, 4) of one transform, as `read_transform` reads it, whole or not at all.

    Args:
        path: of a txt, npy or json, which is replaced.
        transform: of 3-D points, without batch dimensions, finite.

    Raises:
        ValueError: if it is not such a transform, or the suffix is another.
        OSError: if the file cannot be written.
    """
    path = Path(path)
    suffix = _suffix(path, _MATRIX_READERS)
    matrix = transform.matrix.detach().to("cpu", torch.float64)
    if matrix.shape != (4, 4) or not matrix.isfinite().all():
        raise ValueError(f"`transform` must be one, of 3-D points, and finite; got {tuple(matrix.shape)}.")
    with replacing(path) as new:
        if suffix == ".npy":
            np.save(new, matrix.numpy())
        elif suffix == ".json":
            new.write_text(json.dumps({"transform": matrix.tolist()}, indent=1) + "\n")
        else:
            np.savetxt(new, matrix.numpy(), "%.17g")
