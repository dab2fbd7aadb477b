"""The public names for type checkers; `__init__.py` loads them when they are used."""

from collections.abc import Callable

from torch import Tensor

from . import conventions as conventions
from . import distributions as distributions
from . import losses as losses
from . import nn as nn
from . import optim as optim
from . import polar as polar
from . import registration as registration
from . import representations as representations
from . import schedules as schedules
from . import streaming as streaming
from . import symmetries as symmetries
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

def __getattr__(
    name: str,
) -> Callable[..., Tensor]: ...  # X_to_Y of all other pairs
