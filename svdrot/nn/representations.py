"""What a head can regress: raw numbers, their map to rotations, and the raw numbers of a rotation."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from svdrot._formulas import conversions, euler, frames, linear
from svdrot.engine.maps import Map
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
    rotation_9d_to_matrix,
    symmetric_10d_to_matrix,
)


class Representation(NamedTuple):
    features: int  # raw numbers per rotation
    to_matrix: Callable[[Tensor], Tensor]  # (..., features) -> (..., 3, 3)
    from_matrix: Callable[[Tensor], Tensor]  # (..., 3, 3) -> (..., features), of all raw numbers the standard
    formula: Map  # of `to_matrix`


_euler = {"sequence": "XYZ"}
REPRESENTATIONS: dict[str, Representation] = {
    "svd": Representation(9, rotation_9d_to_matrix, matrix_to_rotation_9d, linear.rotation_9d_to_matrix),
    "6d": Representation(6, rotation_6d_to_matrix, matrix_to_rotation_6d, frames.rotation_6d_to_matrix),
    "quaternion": Representation(
        4, quaternion_to_matrix, matrix_to_quaternion, conversions.quaternion_to_matrix
    ),
    "axis_angle": Representation(
        3, axis_angle_to_matrix, matrix_to_axis_angle, conversions.axis_angle_to_matrix
    ),
    "euler": Representation(
        3,
        partial(euler_to_matrix, **_euler),
        partial(matrix_to_euler, **_euler),
        euler.euler_to_matrix["XYZ"],
    ),
    "10d": Representation(
        10, symmetric_10d_to_matrix, matrix_to_symmetric_10d, linear.symmetric_10d_to_matrix
    ),
    "5d": Representation(5, rotation_5d_to_matrix, matrix_to_rotation_5d, frames.rotation_5d_to_matrix),
    "2vec": Representation(
        6, rotation_2vec_to_matrix, matrix_to_rotation_2vec, frames.rotation_2vec_to_matrix
    ),
    "mrp": Representation(3, mrp_to_matrix, matrix_to_mrp, conversions.mrp_to_matrix),
}
