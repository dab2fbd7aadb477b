"""Conversions and transforms, as pytorch3d.transforms names them. Quaternions are w x y z.

Different from pytorch3d on purpose, everywhere: any batch shape; gradients are finite, and values exact, at
zero, at half turns and at gimbal lock, so that `eps`, `cos_bound` and `fast` are accepted and not read; bad
rows give NaN in their place instead of an error for the batch.
"""

from .rotation_conversions import axis_angle_to_matrix as axis_angle_to_matrix
from .rotation_conversions import axis_angle_to_quaternion as axis_angle_to_quaternion
from .rotation_conversions import euler_angles_to_matrix as euler_angles_to_matrix
from .rotation_conversions import matrix_to_axis_angle as matrix_to_axis_angle
from .rotation_conversions import matrix_to_euler_angles as matrix_to_euler_angles
from .rotation_conversions import matrix_to_quaternion as matrix_to_quaternion
from .rotation_conversions import matrix_to_rotation_6d as matrix_to_rotation_6d
from .rotation_conversions import quaternion_apply as quaternion_apply
from .rotation_conversions import quaternion_invert as quaternion_invert
from .rotation_conversions import quaternion_multiply as quaternion_multiply
from .rotation_conversions import quaternion_raw_multiply as quaternion_raw_multiply
from .rotation_conversions import quaternion_to_axis_angle as quaternion_to_axis_angle
from .rotation_conversions import quaternion_to_matrix as quaternion_to_matrix
from .rotation_conversions import random_quaternions as random_quaternions
from .rotation_conversions import random_rotation as random_rotation
from .rotation_conversions import random_rotations as random_rotations
from .rotation_conversions import rotation_6d_to_matrix as rotation_6d_to_matrix
from .rotation_conversions import standardize_quaternion as standardize_quaternion
from .se3 import se3_exp_map as se3_exp_map
from .se3 import se3_log_map as se3_log_map
from .so3 import hat as hat
from .so3 import hat_inv as hat_inv
from .so3 import so3_exp_map as so3_exp_map
from .so3 import so3_exponential_map as so3_exponential_map
from .so3 import so3_log_map as so3_log_map
from .so3 import so3_relative_angle as so3_relative_angle
from .so3 import so3_rotation_angle as so3_rotation_angle
from .transform3d import Rotate as Rotate
from .transform3d import RotateAxisAngle as RotateAxisAngle
from .transform3d import Scale as Scale
from .transform3d import Transform3d as Transform3d
from .transform3d import Translate as Translate
