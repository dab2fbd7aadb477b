"""Two views of one scene: essential matrices, the poses in them, errors of pairs of image points, and fits.

A pose takes points from the frame of the first camera to that of the second, x' = R x + t, and its essential
matrix is $E = [t]_\\times R$: pairs of image points a = (x, y) of the first and b of the second view, in the
coordinates of the cameras (x right, y down, z forward, of depth 1), have $b^\\top E a = 0$ with a 1 after
each. Those of OpenCV (`findEssentialMat`, `recoverPose`) and of kornia are the same, for points that are
multiplied by the inverse of the intrinsic matrix. Of pixels the matrix is a fundamental one, $F = K'^{-\\top}
E K^{-1}$.
"""

from .errors import algebraic_error as algebraic_error
from .errors import sampson_error as sampson_error
from .errors import symmetric_epipolar_error as symmetric_epipolar_error
from .errors import triangulate as triangulate
from .essential import decompose_essential as decompose_essential
from .essential import essential_from_pose as essential_from_pose
from .essential import pose_from_essential as pose_from_essential
from .essential import project_to_essential as project_to_essential
from .essential import project_to_rank_two as project_to_rank_two
from .fits import EpipolarFit as EpipolarFit
from .fits import eight_point as eight_point

__all__ = [
    "EpipolarFit",
    "algebraic_error",
    "decompose_essential",
    "eight_point",
    "essential_from_pose",
    "pose_from_essential",
    "project_to_essential",
    "project_to_rank_two",
    "sampson_error",
    "symmetric_epipolar_error",
    "triangulate",
]
