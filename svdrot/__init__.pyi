"""The public names for type checkers; `__init__.py` loads them when they are used."""

from . import averaging as averaging
from . import conventions as conventions
from . import distributions as distributions
from . import evaluation as evaluation
from . import io as io
from . import losses as losses
from . import nn as nn
from . import optim as optim
from . import polar as polar
from . import quaternions as quaternions
from . import registration as registration
from . import representations as representations
from . import schedules as schedules
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
from .quaternions import quaternion_apply as quaternion_apply
from .quaternions import quaternion_conjugate as quaternion_conjugate
from .quaternions import quaternion_exp as quaternion_exp
from .quaternions import quaternion_inverse as quaternion_inverse
from .quaternions import quaternion_log as quaternion_log
from .quaternions import quaternion_mean as quaternion_mean
from .quaternions import quaternion_multiply as quaternion_multiply
from .quaternions import quaternion_normalize as quaternion_normalize
from .quaternions import quaternion_power as quaternion_power
from .quaternions import quaternion_slerp as quaternion_slerp
from .representations import convert_rotation as convert_rotation
from .representations._conversions import *  # noqa: F403
from .rotations import is_rotation as is_rotation
from .rotations import random_rotation as random_rotation
from .rotations import random_rotation_within as random_rotation_within
from .rotations import random_small_rotation as random_small_rotation
from .transform import Transform as Transform

__version__: str
