"""What a head can regress: raw numbers, their map to rotations, and the raw numbers of a rotation."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from svdrot._checks import check_shape
from svdrot.projection import special_orthogonalize
from svdrot.representations import (
    axis_angle_to_matrix,
    euler_to_matrix,
    matrix_to_axis_angle,
    matrix_to_euler,
    matrix_to_mrp,
    matrix_to_quaternion,
    matrix_to_rotation_2vec,
    matrix_to_rotation_5d,
    matrix_to_rotation_6d,
    matrix_to_rotation_9d,
    matrix_to_symmetric_10d,
    mrp_to_matrix,
    quaternion_to_matrix,
    rotation_2vec_to_matrix,
    rotation_5d_to_matrix,
    rotation_6d_to_matrix,
    symmetric_10d_to_matrix,
)


class Representation(NamedTuple):
    features: int  # raw numbers per rotation
    to_matrix: Callable[[Tensor], Tensor]  # (..., features) -> (..., 3, 3)
    from_matrix: Callable[[Tensor], Tensor]  # (..., 3, 3) -> (..., features), of all raw numbers the standard


def _nearest_rotation(raw: Tensor) -> Tensor:
    """`rotation_9d_to_matrix` without its search for NaN, which the projection keeps in its place anyway: for
    64 matrices the search takes as long as the projection."""
    check_shape("raw", raw, 9)
    return special_orthogonalize(raw.unflatten(-1, (3, 3)))


_euler = {"sequence": "XYZ"}
REPRESENTATIONS: dict[str, Representation] = {
    "svd": Representation(9, _nearest_rotation, matrix_to_rotation_9d),
    "6d": Representation(6, rotation_6d_to_matrix, matrix_to_rotation_6d),
    "quaternion": Representation(4, quaternion_to_matrix, matrix_to_quaternion),
    "axis_angle": Representation(3, axis_angle_to_matrix, matrix_to_axis_angle),
    "euler": Representation(3, partial(euler_to_matrix, **_euler), partial(matrix_to_euler, **_euler)),
    "10d": Representation(10, symmetric_10d_to_matrix, matrix_to_symmetric_10d),
    "5d": Representation(5, rotation_5d_to_matrix, matrix_to_rotation_5d),
    "2vec": Representation(6, rotation_2vec_to_matrix, matrix_to_rotation_2vec),
    "mrp": Representation(3, mrp_to_matrix, matrix_to_mrp),
}
