"""Euler angles as roma has them: about one axis or more, upper case intrinsic. Quaternions are x y z w."""

from collections.abc import Sequence

import torch
from torch import Tensor

from svdrot._checks import check_shape
from svdrot.compat._shared import scalar_first, scalar_last
from svdrot.quaternions import quaternion_multiply
from svdrot.representations import (
    CONVERSIONS,
    SEQUENCES,
    axis_angle_to_quaternion,
    euler_to_quaternion,
    matrix_to_euler,
    quaternion_to_axis_angle,
    quaternion_to_euler,
    quaternion_to_matrix,
)

Angles = Tensor | Sequence[Tensor | float]


def euler_to_unitquat(
    convention: str,
    angles: Angles,
    degrees: bool = False,
    normalize: bool = True,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the quaternions of turns about axes of coordinates.

    Args:
        convention: D axes, upper case for intrinsic or lower case for extrinsic, such as "XYZ" or "z".
        angles: shape (..., D), or D numbers or tensors of shape (...), in the order of `convention`.
        degrees: whether `angles` are in degrees.
        normalize: not read; quaternions have length 1.
        dtype: of angles that come as numbers, and of the result; as they come if None.
        device: of the same.

    Returns:
        Unit quaternions x y z w, shape (..., 4).

    Raises:
        ValueError: if `convention` is something else, or `angles` has not one for each axis.
    """
    return scalar_last(_quaternion(convention, angles, degrees, dtype, device))


def euler_to_rotvec(
    convention: str,
    angles: Angles,
    degrees: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the rotation vectors of turns about axes of coordinates.

    Args:
        convention, angles, degrees, dtype, device: see `euler_to_unitquat`.

    Returns:
        Radians, shape (..., 3), of length in [0, pi].
    """
    return quaternion_to_axis_angle(_quaternion(convention, angles, degrees, dtype, device))


def euler_to_rotmat(
    convention: str,
    angles: Angles,
    degrees: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the matrices of turns about axes of coordinates.

    Args:
        convention, angles, degrees, dtype, device: see `euler_to_unitquat`.

    Returns:
        Rotations, shape (..., 3, 3).
    """
    return quaternion_to_matrix(_quaternion(convention, angles, degrees, dtype, device))


def unitquat_to_euler(
    convention: str, quat: Tensor, as_tuple: bool = False, degrees: bool = False, epsilon: float = 1e-7
) -> Tensor | tuple[Tensor, ...]:
    """Return the Euler angles of quaternions.

    Args:
        convention: three axes, upper case for intrinsic or lower case for extrinsic, neighbors different.
        quat: x y z w, shape (..., 4), of any nonzero length.
        as_tuple: whether to return three tensors of shape (...).
        degrees: whether to return degrees.
        epsilon: not read; the third angle is 0 within rounding of gimbal lock.

    Returns:
        Angles, shape (..., 3), in the ranges of `svdrot.matrix_to_euler`.
    """
    found = quaternion_to_euler(scalar_first("quat", quat), convention)
    return _returned(found, as_tuple, degrees)


def rotvec_to_euler(
    convention: str, rotvec: Tensor, as_tuple: bool = False, degrees: bool = False, epsilon: float = 1e-7
) -> Tensor | tuple[Tensor, ...]:
    """Return the Euler angles of rotation vectors.

    Args:
        convention, as_tuple, degrees, epsilon: see `unitquat_to_euler`.
        rotvec: radians, shape (..., 3).

    Returns:
        Angles, shape (..., 3), or three of shape (...).
    """
    return _returned(CONVERSIONS["axis_angle_to_euler"](rotvec, convention), as_tuple, degrees)


def rotmat_to_euler(
    convention: str, rotmat: Tensor, as_tuple: bool = False, degrees: bool = False, epsilon: float = 1e-7
) -> Tensor | tuple[Tensor, ...]:
    """Return the Euler angles of rotations.

    Args:
        convention, as_tuple, degrees, epsilon: see `unitquat_to_euler`.
        rotmat: shape (..., 3, 3).

    Returns:
        Angles, shape (..., 3), or three of shape (...).
    """
    return _returned(matrix_to_euler(rotmat, convention), as_tuple, degrees)


def _returned(angles: Tensor, as_tuple: bool, degrees: bool) -> Tensor | tuple[Tensor, ...]:
    angles = angles.rad2deg() if degrees else angles
    return angles.unbind(-1) if as_tuple else angles


def _quaternion(
    convention: str,
    angles: Angles,
    degrees: bool,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> Tensor:
    """Return quaternions w x y z."""
    if not isinstance(angles, Tensor):
        parts = [torch.as_tensor(angle, dtype=dtype, device=device) for angle in angles]
        angles = torch.stack(torch.broadcast_tensors(*parts), -1)
    angles = angles.to(device=device, dtype=dtype)
    if not convention or (convention.strip("xyz") and convention.strip("XYZ")):
        raise ValueError(
            f'`convention` must be axes x, y, z, all upper case or all lower; got "{convention}".'
        )
    check_shape("angles", angles, len(convention))
    angles = angles.deg2rad() if degrees else angles
    if convention in SEQUENCES:
        return euler_to_quaternion(angles, convention)
    turns = torch.eye(3, dtype=angles.dtype, device=angles.device)
    each = [
        axis_angle_to_quaternion(angles[..., k, None] * turns["xyz".index(axis)])
        for k, axis in enumerate(convention.lower())
    ]
    found = each[0]
    for quaternion in each[1:]:
        pair = (found, quaternion) if convention.isupper() else (quaternion, found)
        found = quaternion_multiply(*pair)
    return found
