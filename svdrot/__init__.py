"""Differentiable rotations: exact, fast and finite where a singular value decomposition is not.

Column vectors, quaternions w x y z, radians. Every function takes any batch shape.
"""

from . import nn as nn
from . import optim as optim
from . import polar as polar
from . import registration as registration
from . import schedules as schedules
from .metrics import chordal_distance as chordal_distance
from .metrics import geodesic_distance as geodesic_distance
from .projection import orthogonalize as orthogonalize
from .projection import projection_gap as projection_gap
from .projection import special_orthogonalize as special_orthogonalize
from .representations import axis_angle_to_matrix as axis_angle_to_matrix
from .representations import euler_to_matrix as euler_to_matrix
from .representations import matrix_to_axis_angle as matrix_to_axis_angle
from .representations import matrix_to_euler as matrix_to_euler
from .representations import matrix_to_quaternion as matrix_to_quaternion
from .representations import matrix_to_rotation_6d as matrix_to_rotation_6d
from .representations import quaternion_to_matrix as quaternion_to_matrix
from .representations import rotation_6d_to_matrix as rotation_6d_to_matrix
from .representations import symmetric_10d_to_matrix as symmetric_10d_to_matrix
from .rotations import is_rotation as is_rotation
from .rotations import random_rotation as random_rotation

__all__ = [
    "axis_angle_to_matrix",
    "chordal_distance",
    "euler_to_matrix",
    "geodesic_distance",
    "is_rotation",
    "matrix_to_axis_angle",
    "matrix_to_euler",
    "matrix_to_quaternion",
    "matrix_to_rotation_6d",
    "nn",
    "optim",
    "orthogonalize",
    "polar",
    "projection_gap",
    "quaternion_to_matrix",
    "random_rotation",
    "registration",
    "rotation_6d_to_matrix",
    "schedules",
    "special_orthogonalize",
    "symmetric_10d_to_matrix",
]
