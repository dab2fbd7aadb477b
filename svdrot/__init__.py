"""Differentiable rotations: exact, fast and finite where a singular value decomposition is not.

Column vectors, quaternions w x y z, radians. Every function takes any batch shape.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from . import nn as nn
from . import optim as optim
from . import polar as polar
from . import representations as representations
from . import schedules as schedules
from .interpolation import exp_map as exp_map
from .interpolation import interpolate_rotations as interpolate_rotations
from .interpolation import log_map as log_map
from .interpolation import slerp as slerp
from .metrics import chordal_distance as chordal_distance
from .metrics import geodesic_distance as geodesic_distance
from .projection import orthogonalize as orthogonalize
from .projection import projection_gap as projection_gap
from .projection import special_orthogonalize as special_orthogonalize
from .representations import axis_angle_to_matrix as axis_angle_to_matrix
from .representations import axis_angle_to_quaternion as axis_angle_to_quaternion
from .representations import convert_rotation as convert_rotation
from .representations import euler_to_matrix as euler_to_matrix
from .representations import euler_to_quaternion as euler_to_quaternion
from .representations import matrix_to_axis_angle as matrix_to_axis_angle
from .representations import matrix_to_euler as matrix_to_euler
from .representations import matrix_to_mrp as matrix_to_mrp
from .representations import matrix_to_quaternion as matrix_to_quaternion
from .representations import matrix_to_rotation_2vec as matrix_to_rotation_2vec
from .representations import matrix_to_rotation_5d as matrix_to_rotation_5d
from .representations import matrix_to_rotation_6d as matrix_to_rotation_6d
from .representations import matrix_to_rotation_9d as matrix_to_rotation_9d
from .representations import matrix_to_symmetric_10d as matrix_to_symmetric_10d
from .representations import mrp_to_matrix as mrp_to_matrix
from .representations import mrp_to_quaternion as mrp_to_quaternion
from .representations import quaternion_to_axis_angle as quaternion_to_axis_angle
from .representations import quaternion_to_euler as quaternion_to_euler
from .representations import quaternion_to_matrix as quaternion_to_matrix
from .representations import quaternion_to_mrp as quaternion_to_mrp
from .representations import rotation_2vec_to_matrix as rotation_2vec_to_matrix
from .representations import rotation_5d_to_matrix as rotation_5d_to_matrix
from .representations import rotation_6d_to_matrix as rotation_6d_to_matrix
from .representations import rotation_9d_to_matrix as rotation_9d_to_matrix
from .representations import symmetric_10d_to_matrix as symmetric_10d_to_matrix
from .rotations import is_rotation as is_rotation
from .rotations import random_rotation as random_rotation
from .rotations import random_rotation_within as random_rotation_within
from .rotations import random_small_rotation as random_small_rotation

if TYPE_CHECKING:
    from . import conventions as conventions
    from . import distributions as distributions
    from . import losses as losses
    from . import registration as registration
    from . import streaming as streaming
    from . import symmetries as symmetries


# Half of the import.
_LAZY = ("conventions", "distributions", "losses", "registration", "streaming", "symmetries")


def __getattr__(name: str):
    if name in _LAZY:
        return import_module(f"svdrot.{name}")
    if name in representations.NAMED:
        return representations.NAMED[name]
    known = f"; it has X_to_Y of {', '.join(representations.KINDS)}" if "_to_" in name else ""
    raise AttributeError(f"module 'svdrot' has no attribute {name!r}{known}")


__all__ = [
    "axis_angle_to_matrix",
    "axis_angle_to_quaternion",
    "chordal_distance",
    "conventions",
    "convert_rotation",
    "distributions",
    "euler_to_matrix",
    "euler_to_quaternion",
    "exp_map",
    "geodesic_distance",
    "interpolate_rotations",
    "is_rotation",
    "log_map",
    "losses",
    "matrix_to_axis_angle",
    "matrix_to_euler",
    "matrix_to_mrp",
    "matrix_to_quaternion",
    "matrix_to_rotation_2vec",
    "matrix_to_rotation_5d",
    "matrix_to_rotation_6d",
    "matrix_to_rotation_9d",
    "matrix_to_symmetric_10d",
    "mrp_to_matrix",
    "mrp_to_quaternion",
    "nn",
    "optim",
    "orthogonalize",
    "polar",
    "projection_gap",
    "quaternion_to_axis_angle",
    "quaternion_to_euler",
    "quaternion_to_matrix",
    "quaternion_to_mrp",
    "random_rotation",
    "random_rotation_within",
    "random_small_rotation",
    "registration",
    "representations",
    "rotation_2vec_to_matrix",
    "rotation_5d_to_matrix",
    "rotation_6d_to_matrix",
    "rotation_9d_to_matrix",
    "schedules",
    "slerp",
    "special_orthogonalize",
    "streaming",
    "symmetric_10d_to_matrix",
    "symmetries",
]
