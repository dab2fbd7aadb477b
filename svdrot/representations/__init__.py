"""Rotation representations: `X_to_Y` from any to any other, and `convert_rotation` by their names.

Rotations act on column vectors, quaternions are w x y z, angles are radians. Every map takes any batch shape,
computes half precision in float32 and gives it back as it came (float32 under autocast), and answers an
element that has a NaN or an infinity with NaN in all of that element and in no other.

| name | numbers | its maps are in |
|---|---|---|
| matrix | (3, 3) | |
| quaternion, axis_angle (rotation vector), mrp (modified Rodrigues) | 4, 3, 3 | `_quaternions` |
| euler, all 24 sequences | 3 | `_euler` |
| 6d (Gram-Schmidt), 5d (the same, projected), 2vec (bisector) | 6, 5, 6 | `_frames` |
| 9d (nearest rotation), 10d (eigenvector) | 9, 10 | `_linear` |

The maps from and to the matrix, and those that meet in the quaternion, are written out; `_named` makes the
others. Davenport's angles, about axes of one's own, are in `_davenport`. In names of functions 6d is
rotation_6d, and so on, and 10d symmetric_10d.
"""

from typing import TYPE_CHECKING

from ._convert import convert_rotation as convert_rotation
from ._davenport import davenport_to_matrix as davenport_to_matrix
from ._davenport import matrix_to_davenport as matrix_to_davenport
from ._euler import SEQUENCES as SEQUENCES
from ._euler import euler_to_matrix as euler_to_matrix
from ._euler import euler_to_quaternion as euler_to_quaternion
from ._euler import matrix_to_euler as matrix_to_euler
from ._euler import quaternion_to_euler as quaternion_to_euler
from ._frames import matrix_to_rotation_2vec as matrix_to_rotation_2vec
from ._frames import matrix_to_rotation_5d as matrix_to_rotation_5d
from ._frames import matrix_to_rotation_6d as matrix_to_rotation_6d
from ._frames import rotation_2vec_to_matrix as rotation_2vec_to_matrix
from ._frames import rotation_5d_to_matrix as rotation_5d_to_matrix
from ._frames import rotation_6d_to_matrix as rotation_6d_to_matrix
from ._linear import matrix_to_rotation_9d as matrix_to_rotation_9d
from ._linear import matrix_to_symmetric_10d as matrix_to_symmetric_10d
from ._linear import rotation_9d_to_matrix as rotation_9d_to_matrix
from ._linear import symmetric_10d_to_matrix as symmetric_10d_to_matrix
from ._named import KINDS as KINDS
from ._named import named_conversions
from ._quaternions import axis_angle_to_matrix as axis_angle_to_matrix
from ._quaternions import axis_angle_to_quaternion as axis_angle_to_quaternion
from ._quaternions import matrix_to_axis_angle as matrix_to_axis_angle
from ._quaternions import matrix_to_mrp as matrix_to_mrp
from ._quaternions import matrix_to_quaternion as matrix_to_quaternion
from ._quaternions import mrp_to_matrix as mrp_to_matrix
from ._quaternions import mrp_to_quaternion as mrp_to_quaternion
from ._quaternions import quaternion_to_axis_angle as quaternion_to_axis_angle
from ._quaternions import quaternion_to_matrix as quaternion_to_matrix
from ._quaternions import quaternion_to_mrp as quaternion_to_mrp
from ._table import TABLE as TABLE
from ._table import Row as Row

CONVERSIONS = {name: globals().get(name, made) for name, made in named_conversions().items()}
globals().update(CONVERSIONS)

if TYPE_CHECKING:  # `_conversions.pyi` says the types of all of them
    from ._conversions import *  # noqa: F403  # pyright: ignore[reportMissingModuleSource]
else:

    def __getattr__(name):
        from svdrot._deprecated import renamed

        return renamed(__name__, name)
