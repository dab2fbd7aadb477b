"""Mappings between representations, as roma names them. Quaternions are x y z w."""

import math

import torch
from torch import Tensor

from svdrot._checks import check_shape, check_square
from svdrot.compat._shared import scalar_first, scalar_last
from svdrot.conventions import from_convention
from svdrot.projection import orthogonalize, special_orthogonalize
from svdrot.quaternions import quaternion_log, quaternion_normalize
from svdrot.representations import (
    CONVERSIONS,
    axis_angle_to_matrix,
    axis_angle_to_quaternion,
    matrix_to_axis_angle,
    matrix_to_quaternion,
    quaternion_to_axis_angle,
    quaternion_to_matrix,
    rotation_6d_to_matrix,
)


def procrustes(
    M: Tensor,
    force_rotation: bool = False,
    regularization: float = 0.0,
    gradient_eps: float = 1e-5,
    return_singular_values: bool = False,
    method: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the nearest orthonormal matrices, or the nearest rotations.

    Args:
        M: shape (..., n, n).
        force_rotation: whether the determinant must be 1.
        regularization: must be 0.
        gradient_eps: not read; gradients are exact and bounded by the data.
        return_singular_values: whether to return the singular values, too, the last one with the sign of the
            determinant if rotations are forced.
        method: not read; there is one.

    Returns:
        Matrices, shape (..., n, n), and singular values (..., n) if asked for. See
        `svdrot.special_orthogonalize` for the singular set.

    Raises:
        ValueError: if `M` is not square, or `regularization` not 0.
        TypeError: if `M` is not floating point.
    """
    if regularization != 0:
        raise ValueError(
            f"`regularization` must be 0; got {regularization}. Add regularization * |M - R|^2 to the loss."
        )
    check_square("M", M)
    nearest = special_orthogonalize(M) if force_rotation else orthogonalize(M)
    if not return_singular_values:
        return nearest
    values = torch.linalg.svdvals(M)
    if force_rotation:
        sign = torch.where(torch.linalg.det(M) < 0, -1, 1).to(M.dtype)
        values = torch.cat((values[..., :-1], values[..., -1:] * sign[..., None]), -1)
    return nearest, values


def special_procrustes(
    M: Tensor,
    regularization: float = 0.0,
    gradient_eps: float = 1e-5,
    return_singular_values: bool = False,
    method: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the nearest rotations, as `svdrot.special_orthogonalize` does.

    Args:
        M: shape (..., n, n).
        regularization, gradient_eps, return_singular_values, method: see `procrustes`.

    Returns:
        Rotations, shape (..., n, n), and signed singular values (..., n) if asked for.
    """
    return procrustes(M, True, regularization, gradient_eps, return_singular_values, method)


def procrustes_naive(
    M: Tensor, force_rotation: bool = False, return_singular_values: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the same as `procrustes`.

    Args:
        M: shape (..., n, n).
        force_rotation, return_singular_values: see `procrustes`.

    Returns:
        As `procrustes`.
    """
    return procrustes(M, force_rotation, return_singular_values=return_singular_values)


def special_procrustes_naive(
    M: Tensor, return_singular_values: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the same as `special_procrustes`.

    Args:
        M: shape (..., n, n).
        return_singular_values: see `procrustes`.

    Returns:
        As `special_procrustes`.
    """
    return procrustes(M, True, return_singular_values=return_singular_values)


def special_procrustes_unitquat(M: Tensor, gradient_eps: float = 1e-5) -> Tensor:
    """Return the quaternions of the nearest rotations.

    Args:
        M: shape (..., 3, 3).
        gradient_eps: not read.

    Returns:
        Unit quaternions x y z w, shape (..., 4), w >= 0.
    """
    check_shape("M", M, 3, 3)
    return scalar_last(matrix_to_quaternion(special_orthogonalize(M)))


def special_gramschmidt(M: Tensor, epsilon: float = 0) -> Tensor:
    """Return the rotations whose first two columns are the Gram-Schmidt frame of the first two of a matrix.

    Args:
        M: shape (..., 3, N), N at least 2.
        epsilon: not read; collinear columns give rotations, too.

    Returns:
        Rotations, shape (..., 3, 3). See `svdrot.rotation_6d_to_matrix` for the singular set.
    """
    return rotation_6d_to_matrix(from_convention(M[..., :2], "roma", "6d"))


def symmatrix_to_projective_point(A: Tensor, gradient_eps: float = 1e-5, method: str = "auto") -> Tensor:
    """Return unit eigenvectors of the smallest eigenvalue.

    Args:
        A: symmetric matrices, of which the upper triangle is read, shape (..., 4, 4).
        gradient_eps, method: not read.

    Returns:
        Unit vectors, shape (..., 4), the last entry at least 0. Computed as the nearest rotation that is
        `svdrot.symmetric_10d_to_matrix`, with its singular set; the gradient has no differences of
        eigenvalues in it.
    """
    check_shape("A", A, 4, 4)
    row, column = torch.triu_indices(4, 4)
    return symmatrixvec_to_unitquat(A[..., row, column])


def symmatrixvec_to_unitquat(x: Tensor, gradient_eps: float = 1e-5, method: str = "auto") -> Tensor:
    """Return the quaternions that ten numbers stand for: the upper triangle of a symmetric matrix.

    Args:
        x: upper triangle, row by row, in the order x y z w, shape (..., 10).
        gradient_eps, method: not read.

    Returns:
        Unit quaternions x y z w, shape (..., 4), w >= 0.
    """
    convert = CONVERSIONS["symmetric_10d_to_quaternion"]
    return scalar_last(convert(from_convention(x, "roma", "10d")))


def sinc(x: Tensor, threshold: float | None = None) -> Tensor:
    """Return sin(x) / x.

    Args:
        x: any shape.
        threshold: not read.

    Returns:
        Shape of `x`, 1 at 0.
    """
    return torch.sinc(x / math.pi)


def inv_sinc(x: Tensor, threshold: float | None = None) -> Tensor:
    """Return x / sin(x).

    Args:
        x: any shape.
        threshold: not read.

    Returns:
        Shape of `x`, 1 at 0, and large or infinite at other multiples of pi.
    """
    return 1 / torch.sinc(x / math.pi)


def rotvec_to_unitquat(rotvec: Tensor) -> Tensor:
    """Return the quaternions of rotation vectors.

    Args:
        rotvec: radians, shape (..., 3).

    Returns:
        Unit quaternions x y z w, shape (..., 4), smooth in the vector.
    """
    return scalar_last(axis_angle_to_quaternion(rotvec))


def unitquat_to_rotvec(quat: Tensor, shortest_arc: bool = True) -> Tensor:
    """Return the rotation vectors of quaternions.

    Args:
        quat: x y z w, shape (..., 4), of any nonzero length.
        shortest_arc: whether `quat` and `-quat` give the same vector; else one of length up to 2 pi.

    Returns:
        Radians, shape (..., 3), of length in [0, pi], or [0, 2 pi]. At a half turn, w = 0, the shortest is
        along x y z; there it is opposite.
    """
    quaternion = scalar_first("quat", quat)
    if shortest_arc:
        return quaternion_to_axis_angle(quaternion)
    return 2 * quaternion_log(quaternion_normalize(quaternion))[..., 1:]


def unitquat_to_rotmat(quat: Tensor) -> Tensor:
    """Return the matrices of quaternions.

    Args:
        quat: x y z w, shape (..., 4), of any nonzero length.

    Returns:
        Rotations, shape (..., 3, 3).
    """
    return quaternion_to_matrix(scalar_first("quat", quat))


def rotmat_to_unitquat(R: Tensor) -> Tensor:
    """Return the quaternions of rotations.

    Args:
        R: shape (..., 3, 3).

    Returns:
        Unit quaternions x y z w, shape (..., 4), w >= 0.
    """
    return scalar_last(matrix_to_quaternion(R))


def rotvec_to_rotmat(rotvec: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Return the matrices of rotation vectors.

    Args:
        rotvec: radians, shape (..., 3).
        epsilon: not read; small angles are exact.

    Returns:
        Rotations, shape (..., 3, 3).
    """
    return axis_angle_to_matrix(rotvec)


def rotmat_to_rotvec(R: Tensor) -> Tensor:
    """Return the rotation vectors of matrices.

    Args:
        R: shape (..., 3, 3).

    Returns:
        Radians, shape (..., 3), of length in [0, pi].
    """
    return matrix_to_axis_angle(R)


def quat_xyzw_to_wxyz(xyzw: Tensor) -> Tensor:
    """Return quaternions with the scalar first.

    Args:
        xyzw: shape (..., 4).

    Returns:
        Quaternions w x y z, shape (..., 4).
    """
    return scalar_first("xyzw", xyzw)


def quat_wxyz_to_xyzw(wxyz: Tensor) -> Tensor:
    """Return quaternions with the scalar last.

    Args:
        wxyz: shape (..., 4).

    Returns:
        Quaternions x y z w, shape (..., 4).
    """
    check_shape("wxyz", wxyz, 4)
    return scalar_last(wxyz)
