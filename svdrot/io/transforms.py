"""One transform in a file: its matrix as text, npy or json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot.io.arrays import load_numpy
from svdrot.io.files import replacing
from svdrot.io.points import suffix_of
from svdrot.io.text import rows_of, table
from svdrot.projection import special_orthogonalize
from svdrot.transform import Transform


def read_transform(path: str | Path, *, tolerance: float = 1e-3) -> Transform:
    r"""Read the transform of a file that holds its matrix (4, 4), or the first three rows of it.

    By the suffix: txt, lines of numbers; npy; json, the rows or an object with them as `transform`.

    Args:
        path: of the file.
        tolerance: by how much an entry of A may differ from the nearest multiple s R of a rotation, over s.
            The default lets matrices with three decimals pass.

    Returns:
        `Transform` without batch dimensions, float64, the rotation the nearest one, the scale tr(R^T A) / 3.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: with the file: not such a matrix, not finite, a reflection, further from a rotation, a
            last row other than 0 0 0 1.

    Example:
        >>> import pathlib, torch, svdrot
        >>> _ = pathlib.Path("calibration.txt").write_text("2 0 0 5\n0 2 0 6\n0 0 2 7\n0 0 0 1\n")
        >>> camera = svdrot.io.read_transform("calibration.txt")
        >>> round(camera.scale.item(), 6), camera.translation
        (2.0, tensor([5., 6., 7.], dtype=torch.float64))
    """
    path = Path(path)
    suffix = suffix_of(path, _MATRIX_READERS)
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


def _json_matrix(path: Path, data: bytes) -> NDArray[Any]:
    try:
        content = json.loads(data)
        return np.array(content["transform"] if isinstance(content, dict) else content)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: wanted rows, or them as `transform` of an object: {error!r}") from error


def _text_matrix(path: Path, data: bytes) -> NDArray[Any]:
    return table(path, rows_of(data), [4])


def _npy_matrix(path: Path, data: bytes) -> NDArray[Any]:
    array = load_numpy(path, data)
    return array if isinstance(array, np.ndarray) else np.empty(0)


_MATRIX_READERS: dict[str, Callable[[Path, bytes], NDArray[Any]]] = {
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

    Example:
        >>> import torch, svdrot
        >>> camera = svdrot.Transform(torch.eye(3), torch.tensor([5.0, 6.0, 7.0]), torch.tensor(1.0))
        >>> svdrot.io.write_transform("calibration.json", camera)
        >>> svdrot.io.read_transform("calibration.json").translation
        tensor([5., 6., 7.], dtype=torch.float64)
    """
    path = Path(path)
    suffix = suffix_of(path, _MATRIX_READERS)
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


def check_rotations(path: Path, numbers: list[int], rotation: Tensor, tolerance: float) -> None:
    """Raise a ValueError that names the first line whose matrix is not a rotation within `tolerance`.

    Args:
        path: of the file.
        numbers: the line of each matrix.
        rotation: shape (N, 3, 3).
        tolerance: of the entries of R^T R - I.
    """
    off = (rotation.mT @ rotation - torch.eye(3, dtype=rotation.dtype)).abs().amax((-2, -1))
    turned = torch.linalg.det(rotation) < 0
    for k in ((off > tolerance) | turned).nonzero()[:1, 0].tolist():
        what = "is a reflection" if turned[k] and off[k] <= tolerance else f"is off by {off[k].item():.3g}"
        raise ValueError(
            f"{path}, line {numbers[k]}: wanted a rotation, R^T R = I within {tolerance:g}; this one {what}."
        )
