"""The conventions of other libraries: their numbers for a rotation, and ours.

Ours: matrices for column vectors, quaternions w x y z, radians, 6D the first two columns, one tensor each.

| | quaternion | Euler angles | 6D | else |
|---|---|---|---|---|
| scipy | x y z w | as ours | | |
| roma | x y z w | as ours | the columns of (..., 3, 2) | 9D is (..., 3, 3), 10D in the order x y z w |
| pytorch3d | w x y z | intrinsic only | the first two rows | |
| pytorch3d.Transform3d | | | | matrices for row vectors |
| kornia | w x y z | roll, pitch, yaw: "euler_xyz" | | |
| kornia.quaternion_log | | | | half the rotation vector |

Tested against scipy 1.17, roma 1.8.0, kornia 0.9.0 and the outputs of pytorch3d 0.7.9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ._checks import check_shape
from ._precision import result_dtype, to_compute
from ._stand_ins import takes_arrays
from .representations import SEQUENCES, TABLE, matrix_to_rotation_6d, rotation_6d_to_matrix

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation


@takes_arrays
def from_convention(value: Tensor, library: str, representation: str, *, degrees: bool = False) -> Tensor:
    """Convert the numbers of a rotation in another library to ours.

    Args:
        value: as the functions of `library` give it, any batch shape.
        library: "scipy", "roma", "pytorch3d", "pytorch3d.Transform3d", "kornia" or "kornia.quaternion_log".
        representation: its name in `convert_rotation`, such as "quaternion" or "euler_XYZ".
        degrees: whether `value` is in degrees; for "axis_angle" and Euler angles only.

    Returns:
        The same representation in our convention, in radians, of the same batch shape.

    Raises:
        ValueError: if `library` or `representation` is not in the table, `degrees` is asked of numbers that
            are no angles, or `value` has not the shape that `library` gives.
        TypeError: if `value` is not floating point.

    Example:
        >>> import torch, svdrot
        >>> xyzw = torch.tensor([0.0, 0.0, 0.6, 0.8])  # as scipy's `as_quat()`
        >>> svdrot.conventions.from_convention(xyzw, "scipy", "quaternion")
        tensor([0.8000, 0.0000, 0.0000, 0.6000])
    """
    pair = _find(library, representation)
    check_shape("value", value, *pair.shape)
    return pair.read(value) * _unit_angle(representation, degrees)


@takes_arrays
def to_convention(value: Tensor, library: str, representation: str, *, degrees: bool = False) -> Tensor:
    """Convert our numbers of a rotation to those of another library: the inverse of `from_convention`.

    Args:
        value: numbers of `representation` in our convention, any batch shape, in radians.
        library: "scipy", "roma", "pytorch3d", "pytorch3d.Transform3d", "kornia" or "kornia.quaternion_log".
        representation: its name in `convert_rotation`, such as "quaternion" or "euler_XYZ".
        degrees: whether to return degrees; for "axis_angle" and Euler angles only.

    Returns:
        The same representation as the functions of `library` take it, of the same batch shape.

    Raises:
        ValueError: if `library` or `representation` is not in the table, `degrees` is asked of numbers that
            are no angles, or `value` has not the shape of `representation`.
        TypeError: if `value` is not floating point.

    Example:
        >>> import torch, svdrot
        >>> vector = torch.tensor([0.0, 0.0, torch.pi / 2])
        >>> svdrot.conventions.to_convention(vector, "scipy", "axis_angle", degrees=True)
        tensor([ 0.,  0., 90.])
    """
    pair = _find(library, representation)
    check_shape("value", value, *TABLE[representation].shape)
    return pair.write(value) / _unit_angle(representation, degrees)


def from_scipy(rotation: Rotation, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the rotation matrices of a `scipy.spatial.transform.Rotation`.

    Args:
        rotation: one rotation, or any number of them.
        dtype: of the result, floating point.

    Returns:
        Rotations, shape (3, 3) for a single one, otherwise (N, 3, 3), on the CPU.

    Raises:
        TypeError: if `rotation` is not a Rotation of scipy.

    Example:
        >>> import svdrot
        >>> from scipy.spatial.transform import Rotation
        >>> svdrot.conventions.from_scipy(Rotation.from_quat([0.0, 0.0, 0.0, 1.0]))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]], dtype=torch.float64)
    """
    if not hasattr(rotation, "as_matrix"):
        raise TypeError(f"`rotation` must be a Rotation of scipy; got {type(rotation).__name__}.")
    if not getattr(rotation, "single", True) and len(rotation) == 0:  # scipy 1.8 has no matrices of none
        return torch.empty(0, 3, 3, dtype=dtype)
    return torch.from_numpy(rotation.as_matrix()).to(dtype)


@takes_arrays
def to_scipy(matrix: Tensor) -> Rotation:
    """Return the `scipy.spatial.transform.Rotation` of rotation matrices, detached and in float64.

    Args:
        matrix: rotations, shape (3, 3) or (N, 3, 3), and any batch shape where scipy takes it (from 1.17).

    Returns:
        The Rotation, of as many rotations as `matrix` has.

    Raises:
        ValueError: if the last two dimensions are not (3, 3), or a matrix is not finite.
        TypeError: if `matrix` is not floating point.

    Example:
        >>> import torch, svdrot
        >>> matrix = svdrot.euler_to_matrix(torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64), "XYZ")
        >>> svdrot.conventions.to_scipy(matrix).as_euler("XYZ").round(3)
        array([[0.1, 0.2, 0.3]])
    """
    from scipy.spatial.transform import Rotation

    check_shape("matrix", matrix, 3, 3)
    if not matrix.isfinite().all():
        raise ValueError("`matrix` must be finite: a Rotation of scipy is.")
    return Rotation.from_matrix(matrix.detach().cpu().double().resolve_neg().numpy())


class _Pair(NamedTuple):
    shape: tuple[int, ...]  # of one element there
    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]


def _same(value: Tensor) -> Tensor:
    return value


def _transposed(value: Tensor) -> Tensor:
    return value.mT


def _last_to_first(xyzw: Tensor) -> Tensor:
    return xyzw.roll(1, -1)


def _first_to_last(wxyz: Tensor) -> Tensor:
    return wxyz.roll(-1, -1)


def _rows_and_columns(rotation_6d: Tensor) -> Tensor:
    """Return the first two columns from the first two rows, or the reverse: the matrix is transposed."""
    matrix = rotation_6d_to_matrix(to_compute(rotation_6d, 1))
    return matrix_to_rotation_6d(matrix.mT).to(result_dtype(rotation_6d))


# Where the entries of the upper triangle of a symmetric matrix go if its last row and column come first.
_LAST_TO_FIRST_10D = (9, 3, 6, 8, 0, 1, 2, 4, 5, 7)
_FIRST_TO_LAST_10D = (4, 5, 6, 1, 7, 8, 2, 9, 3, 0)

_MATRIX = _Pair((3, 3), _same, _same)
_WXYZ = _Pair((4,), _same, _same)
_XYZW = _Pair((4,), _last_to_first, _first_to_last)
_THREE = _Pair((3,), _same, _same)
_EULER = {f"euler_{sequence}": _THREE for sequence in SEQUENCES}

CONVENTIONS: dict[str, dict[str, _Pair]] = {
    "scipy": {"matrix": _MATRIX, "quaternion": _XYZW, "axis_angle": _THREE, "mrp": _THREE, **_EULER},
    "roma": {
        "matrix": _MATRIX,
        "quaternion": _XYZW,
        "axis_angle": _THREE,
        "6d": _Pair((3, 2), lambda m: m.mT.flatten(-2), lambda x: x.unflatten(-1, (2, 3)).mT),
        "9d": _Pair((3, 3), lambda m: m.flatten(-2), lambda x: x.unflatten(-1, (3, 3))),
        "10d": _Pair((10,), lambda a: a[..., _LAST_TO_FIRST_10D], lambda a: a[..., _FIRST_TO_LAST_10D]),
        **_EULER,
    },
    "pytorch3d": {
        "matrix": _MATRIX,
        "quaternion": _WXYZ,
        "axis_angle": _THREE,
        "6d": _Pair((6,), _rows_and_columns, _rows_and_columns),
        **{name: pair for name, pair in _EULER.items() if name[-3:].isupper()},
    },
    "pytorch3d.Transform3d": {"matrix": _Pair((3, 3), _transposed, _transposed)},
    "kornia": {"matrix": _MATRIX, "quaternion": _WXYZ, "axis_angle": _THREE, "euler_xyz": _THREE},
    "kornia.quaternion_log": {"axis_angle": _Pair((3,), lambda v: v * 2, lambda v: v / 2)},
}


def _find(library: str, representation: str) -> _Pair:
    for argument, name, known in (
        ("library", library, CONVENTIONS),
        ("representation", representation, CONVENTIONS.get(library, {})),
    ):
        if name not in known:
            raise ValueError(f"`{argument}` must be one of {', '.join(map(repr, known))}; got {name!r}.")
    return CONVENTIONS[library][representation]


def _unit_angle(representation: str, degrees: bool) -> float:
    if degrees and not representation.startswith(("axis_angle", "euler_")):
        raise ValueError(f"`degrees` are units of rotation vectors and Euler angles; got {representation!r}.")
    return math.pi / 180 if degrees else 1.0
