"""Conversions between representations, as pytorch3d names them. Quaternions are w x y z."""

import torch
from torch import Tensor

from svdrot import quaternions as algebra
from svdrot import representations, rotations
from svdrot._checks import check_shape


def quaternion_to_matrix(quaternions: Tensor) -> Tensor:
    """Return the matrices of quaternions.

    Args:
        quaternions: w x y z, shape (..., 4), of any nonzero length.

    Returns:
        Rotations for column vectors, shape (..., 3, 3); the identity for zero, where pytorch3d has NaN.
    """
    return representations.quaternion_to_matrix(quaternions)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Return the quaternions of rotations.

    Args:
        matrix: for column vectors, shape (..., 3, 3).

    Returns:
        Unit quaternions w x y z, shape (..., 4), w >= 0.
    """
    return representations.matrix_to_quaternion(matrix)


def euler_angles_to_matrix(euler_angles: Tensor, convention: str) -> Tensor:
    """Return the matrices of intrinsic Euler angles.

    Args:
        euler_angles: radians, shape (..., 3).
        convention: three upper-case axes, neighbors different, such as "XYZ".

    Returns:
        Rotations for column vectors, shape (..., 3, 3).

    Raises:
        ValueError: if `convention` is something else.
    """
    return representations.euler_to_matrix(euler_angles, _intrinsic(convention))


def matrix_to_euler_angles(matrix: Tensor, convention: str) -> Tensor:
    """Return the intrinsic Euler angles of rotations.

    Args:
        matrix: for column vectors, shape (..., 3, 3).
        convention: three upper-case axes, neighbors different, such as "XYZ".

    Returns:
        Radians, shape (..., 3), in the ranges of `svdrot.matrix_to_euler`. At gimbal lock the third is 0.

    Raises:
        ValueError: if `convention` is something else.
    """
    return representations.matrix_to_euler(matrix, _intrinsic(convention))


def _intrinsic(convention: str) -> str:
    if not convention.isupper():
        raise ValueError(f'`convention` must be three upper-case axes, such as "XYZ"; got {convention!r}.')
    return convention


def random_quaternions(
    n: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Draw unit quaternions of uniform rotations.

    Args:
        n: how many.
        dtype: floating point; torch's default one if None.
        device: where to draw.

    Returns:
        Unit quaternions w x y z, shape (n, 4), w >= 0.
    """
    return matrix_to_quaternion(random_rotations(n, dtype, device))


def random_rotations(
    n: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Draw uniform rotations, as `svdrot.random_rotation` does.

    Args:
        n, dtype, device: see `random_quaternions`.

    Returns:
        Rotations, shape (n, 3, 3).
    """
    return rotations.random_rotation(n, dtype=dtype, device=device)


def random_rotation(dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
    """Draw one uniform rotation.

    Args:
        dtype, device: see `random_quaternions`.

    Returns:
        A rotation, shape (3, 3).
    """
    return rotations.random_rotation(dtype=dtype, device=device)


def standardize_quaternion(quaternions: Tensor) -> Tensor:
    """Return quaternions with w >= 0 that are the same rotations.

    Args:
        quaternions: w x y z, shape (..., 4).

    Returns:
        Quaternions w x y z, shape (..., 4), as they are or negated.
    """
    check_shape("quaternions", quaternions, 4)
    return torch.where(quaternions[..., :1] < 0, -quaternions, quaternions)


def quaternion_raw_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return Hamilton's product a b: of rotations, `b` first.

    Args:
        a: w x y z, shape (..., 4).
        b: w x y z, shape (..., 4).

    Returns:
        Quaternions w x y z, shape (..., 4), of either sign.
    """
    return algebra.quaternion_multiply(a, b)


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return Hamilton's product a b with w >= 0.

    Args:
        a: w x y z, shape (..., 4).
        b: w x y z, shape (..., 4).

    Returns:
        Quaternions w x y z, shape (..., 4), w >= 0.
    """
    return standardize_quaternion(algebra.quaternion_multiply(a, b))


def quaternion_invert(quaternion: Tensor) -> Tensor:
    """Return the conjugates of quaternions: of those of length 1 the inverses.

    Args:
        quaternion: w x y z, shape (..., 4).

    Returns:
        Quaternions w x y z, shape (..., 4).
    """
    return algebra.quaternion_conjugate(quaternion)


def quaternion_apply(quaternion: Tensor, point: Tensor) -> Tensor:
    """Return the images of points under the rotations of quaternions.

    Args:
        quaternion: w x y z, shape (..., 4), of any nonzero length; pytorch3d scales by its square.
        point: shape (..., 3).

    Returns:
        Points, shape (..., 3).
    """
    return algebra.quaternion_apply(quaternion, point)


def axis_angle_to_matrix(axis_angle: Tensor, fast: bool = False) -> Tensor:
    """Return the matrices of rotation vectors.

    Args:
        axis_angle: radians, shape (..., 3).
        fast: not read.

    Returns:
        Rotations for column vectors, shape (..., 3, 3).
    """
    return representations.axis_angle_to_matrix(axis_angle)


def matrix_to_axis_angle(matrix: Tensor, fast: bool = False) -> Tensor:
    """Return the rotation vectors of matrices.

    Args:
        matrix: for column vectors, shape (..., 3, 3).
        fast: not read.

    Returns:
        Radians, shape (..., 3), of length in [0, pi].
    """
    return representations.matrix_to_axis_angle(matrix)


def axis_angle_to_quaternion(axis_angle: Tensor) -> Tensor:
    """Return the quaternions of rotation vectors.

    Args:
        axis_angle: radians, shape (..., 3).

    Returns:
        Unit quaternions w x y z, shape (..., 4).
    """
    return representations.axis_angle_to_quaternion(axis_angle)


def quaternion_to_axis_angle(quaternions: Tensor) -> Tensor:
    """Return rotation vectors of quaternions, not the shortest where w < 0, as in pytorch3d.

    Args:
        quaternions: w x y z, shape (..., 4), of any nonzero length.

    Returns:
        Radians, shape (..., 3), of length in [0, 2 pi]; `svdrot.quaternion_to_axis_angle` has the shortest.
    """
    return 2 * algebra.quaternion_log(algebra.quaternion_normalize(quaternions))[..., 1:]


def rotation_6d_to_matrix(d6: Tensor) -> Tensor:
    """Return the rotations whose first two rows are the Gram-Schmidt frame of two vectors.

    Args:
        d6: the first row, then the second, of any length, shape (..., 6).

    Returns:
        Rotations for column vectors, shape (..., 3, 3).
    """
    check_shape("d6", d6, 6)
    return representations.rotation_6d_to_matrix(d6).mT


def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """Return the first two rows of rotations.

    Args:
        matrix: for column vectors, shape (..., 3, 3).

    Returns:
        Shape (..., 6).
    """
    check_shape("matrix", matrix, 3, 3)
    return representations.matrix_to_rotation_6d(matrix.mT)
