"""The numbers of a rotation in other libraries, and ours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from svdrot._checks import check_shape
from svdrot._stand_ins import takes_arrays
from svdrot.conventions._rows import CONVENTIONS, Pair
from svdrot.representations import TABLE

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation


@takes_arrays
def from_convention(value: Tensor, library: str, representation: str, *, degrees: bool = False) -> Tensor:
    """Convert the numbers of a rotation in another library to ours.

    Args:
        value: as the functions of `library` give it, any batch shape.
        library: a key of `CONVENTIONS`, such as "scipy" or "blender".
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
        library: a key of `CONVENTIONS`, such as "scipy" or "blender".
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


def _find(library: str, representation: str) -> Pair:
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
