"""Exponential, logarithm and angles of SO(3), as pytorch3d names them. Matrices are for column vectors."""

from torch import Tensor

from svdrot._checks import check_shape
from svdrot._vectors import product
from svdrot.metrics import geodesic_distance
from svdrot.representations import axis_angle_to_matrix, matrix_to_axis_angle
from svdrot.vectors import hat as skew
from svdrot.vectors import rotation_angle, vee


def so3_relative_angle(
    R1: Tensor, R2: Tensor, cos_angle: bool = False, cos_bound: float = 1e-4, eps: float = 1e-4
) -> Tensor:
    """Return the angles between rotations, or the cosines of them.

    Args:
        R1: shape (..., 3, 3).
        R2: shape (..., 3, 3).
        cos_angle: whether to return the cosine.
        cos_bound: not read; angles are exact at 0, where pytorch3d returns 0.007, and gradients finite.
        eps: not read; pytorch3d raises for traces that no rotation has.

    Returns:
        Radians in [0, pi], or cosines, shape (...).
    """
    if cos_angle:
        return so3_rotation_angle(product(R1, R2.mT), cos_angle=True)
    return geodesic_distance(R1, R2)


def so3_rotation_angle(
    R: Tensor, eps: float = 1e-4, cos_angle: bool = False, cos_bound: float = 1e-4
) -> Tensor:
    """Return the angles of rotations, or the cosines of them.

    Args:
        R: shape (..., 3, 3).
        eps, cos_angle, cos_bound: see `so3_relative_angle`.

    Returns:
        Radians in [0, pi], or cosines, shape (...).
    """
    check_shape("R", R, 3, 3)
    return (R.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2 if cos_angle else rotation_angle(R)


def so3_exp_map(log_rot: Tensor, eps: float = 0.0001) -> Tensor:
    """Return the rotations of rotation vectors.

    Args:
        log_rot: radians, shape (..., 3).
        eps: not read.

    Returns:
        Rotations, shape (..., 3, 3).
    """
    return axis_angle_to_matrix(log_rot)


def so3_exponential_map(log_rot: Tensor, eps: float = 0.0001) -> Tensor:
    """Return the same as `so3_exp_map`.

    Args:
        log_rot: radians, shape (..., 3).
        eps: not read.

    Returns:
        Rotations, shape (..., 3, 3).
    """
    return so3_exp_map(log_rot)


def so3_log_map(R: Tensor, eps: float = 0.0001, cos_bound: float = 1e-4) -> Tensor:
    """Return the rotation vectors of rotations.

    Args:
        R: shape (..., 3, 3).
        eps, cos_bound: not read.

    Returns:
        Radians, shape (..., 3), of length in [0, pi].
    """
    return matrix_to_axis_angle(R)


def hat(v: Tensor) -> Tensor:
    """Return skew matrices, whose product with a vector is the cross product with `v`.

    Args:
        v: shape (..., 3).

    Returns:
        Shape (..., 3, 3).
    """
    return skew(v)


def hat_inv(h: Tensor) -> Tensor:
    """Return the vectors of skew matrices.

    Args:
        h: shape (..., 3, 3). Of what is not skew it is the nearest one that counts, without an error.

    Returns:
        Shape (..., 3).
    """
    return vee(h)
