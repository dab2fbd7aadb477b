"""roma 1.8 by its names, on the functions of svdrot: `from svdrot.compat import roma`.

Quaternions are x y z w, angles radians, matrices for column vectors, as there. The differences, on purpose:

- Quaternions of any length are read as rotations. There those of other lengths than 1 give scaled matrices
  and images. The zero quaternion is the identity, and its inverse zero, where roma has NaN.
- Quaternions that come from matrices have w >= 0; there their largest entry is positive, or the sign any.
- Gradients are finite everywhere: those of distances are 0 at 0 and pi, where roma has infinity at pi.
- NaN and infinity spoil their own row alone.
- `epsilon`, `threshold`, `clamping`, `gradient_eps` and `method` are accepted and not read, for nothing needs
  them. A `regularization` other than 0 is an error that says what to add to the loss.

Example:
    >>> import torch
    >>> from svdrot.compat import roma
    >>> turn = roma.euler_to_rotmat("XYZ", [0.0, 0.0, 90.0], degrees=True)
    >>> roma.rotmat_to_unitquat(turn)
    tensor([0.0000, 0.0000, 0.7071, 0.7071])
    >>> matrix, shift = roma.rigid_points_registration(torch.eye(3), torch.eye(3) + 1)
    >>> shift.round()
    tensor([1., 1., 1.])
"""

from .euler import euler_to_rotmat as euler_to_rotmat
from .euler import euler_to_rotvec as euler_to_rotvec
from .euler import euler_to_unitquat as euler_to_unitquat
from .euler import rotmat_to_euler as rotmat_to_euler
from .euler import rotvec_to_euler as rotvec_to_euler
from .euler import unitquat_to_euler as unitquat_to_euler
from .mappings import inv_sinc as inv_sinc
from .mappings import procrustes as procrustes
from .mappings import procrustes_naive as procrustes_naive
from .mappings import quat_wxyz_to_xyzw as quat_wxyz_to_xyzw
from .mappings import quat_xyzw_to_wxyz as quat_xyzw_to_wxyz
from .mappings import rotmat_to_rotvec as rotmat_to_rotvec
from .mappings import rotmat_to_unitquat as rotmat_to_unitquat
from .mappings import rotvec_to_rotmat as rotvec_to_rotmat
from .mappings import rotvec_to_unitquat as rotvec_to_unitquat
from .mappings import sinc as sinc
from .mappings import special_gramschmidt as special_gramschmidt
from .mappings import special_procrustes as special_procrustes
from .mappings import special_procrustes_naive as special_procrustes_naive
from .mappings import special_procrustes_unitquat as special_procrustes_unitquat
from .mappings import symmatrix_to_projective_point as symmatrix_to_projective_point
from .mappings import symmatrixvec_to_unitquat as symmatrixvec_to_unitquat
from .mappings import unitquat_to_rotmat as unitquat_to_rotmat
from .mappings import unitquat_to_rotvec as unitquat_to_rotvec
from .registration import rigid_points_registration as rigid_points_registration
from .registration import rigid_points_registration_unitquat as rigid_points_registration_unitquat
from .registration import rigid_vectors_registration as rigid_vectors_registration
from .registration import rigid_vectors_registration_unitquat as rigid_vectors_registration_unitquat
from .transforms import Affine as Affine
from .transforms import Isometry as Isometry
from .transforms import Linear as Linear
from .transforms import Orthonormal as Orthonormal
from .transforms import Rigid as Rigid
from .transforms import RigidUnitQuat as RigidUnitQuat
from .transforms import Rotation as Rotation
from .transforms import RotationUnitQuat as RotationUnitQuat
from .utils import identity_quat as identity_quat
from .utils import is_orthonormal_matrix as is_orthonormal_matrix
from .utils import is_rotation_matrix as is_rotation_matrix
from .utils import quat_action as quat_action
from .utils import quat_composition as quat_composition
from .utils import quat_conjugation as quat_conjugation
from .utils import quat_inverse as quat_inverse
from .utils import quat_normalize as quat_normalize
from .utils import quat_product as quat_product
from .utils import random_rotmat as random_rotmat
from .utils import random_rotvec as random_rotvec
from .utils import random_unitquat as random_unitquat
from .utils import rotmat_composition as rotmat_composition
from .utils import rotmat_cosine_angle as rotmat_cosine_angle
from .utils import rotmat_geodesic_distance as rotmat_geodesic_distance
from .utils import rotmat_geodesic_distance_naive as rotmat_geodesic_distance_naive
from .utils import rotmat_inverse as rotmat_inverse
from .utils import rotmat_slerp as rotmat_slerp
from .utils import rotvec_composition as rotvec_composition
from .utils import rotvec_geodesic_distance as rotvec_geodesic_distance
from .utils import rotvec_inverse as rotvec_inverse
from .utils import rotvec_slerp as rotvec_slerp
from .utils import unitquat_geodesic_distance as unitquat_geodesic_distance
from .utils import unitquat_slerp as unitquat_slerp
from .utils import unitquat_slerp_fast as unitquat_slerp_fast
