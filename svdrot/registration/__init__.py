"""Alignment of points and of clouds: target = scale * R source + t, column vectors.

`pairs` has what aligns points with known partners, some of which may be wrong; `clouds` what finds partners.
"""

from svdrot import _deprecated
from svdrot._robust_kernels import KERNELS as KERNELS
from svdrot._robust_kernels import RobustKernel as RobustKernel
from svdrot.transform import Transform as Transform

from ._points import pad as pad
from .clouds.features import fpfh as fpfh
from .clouds.features import match as match
from .clouds.global_registration import GlobalRegistration as GlobalRegistration
from .clouds.global_registration import Stage as Stage
from .clouds.global_registration import automatic_voxel as automatic_voxel
from .clouds.global_registration import register as register
from .clouds.global_registration import register_batch as register_batch
from .clouds.icp import METHODS as METHODS
from .clouds.icp import Iteration as Iteration
from .clouds.icp import Registration as Registration
from .clouds.icp import Status as Status
from .clouds.icp import icp as icp
from .clouds.neighbors import Neighbors as Neighbors
from .clouds.neighbors import nearest as nearest
from .clouds.surfaces import estimate_normals as estimate_normals
from .clouds.surfaces import voxel_downsample as voxel_downsample
from .clouds.verdict import ANSWERS as ANSWERS
from .clouds.verdict import Verdict as Verdict
from .clouds.verdict import judge as judge
from .pairs.procrustes import Alignment as Alignment
from .pairs.procrustes import kabsch as kabsch
from .pairs.procrustes import procrustes as procrustes
from .pairs.procrustes import umeyama as umeyama
from .pairs.robust import RobustAlignment as RobustAlignment
from .pairs.robust import robust_kabsch as robust_kabsch
from .pairs.robust import robust_umeyama as robust_umeyama

__all__ = [
    "ANSWERS",
    "KERNELS",
    "METHODS",
    "Alignment",
    "GlobalRegistration",
    "Iteration",
    "Neighbors",
    "Registration",
    "RobustAlignment",
    "RobustKernel",
    "Stage",
    "Status",
    "Transform",
    "Verdict",
    "automatic_voxel",
    "estimate_normals",
    "fpfh",
    "icp",
    "judge",
    "kabsch",
    "match",
    "nearest",
    "pad",
    "procrustes",
    "register",
    "register_batch",
    "robust_kabsch",
    "robust_umeyama",
    "umeyama",
    "voxel_downsample",
]


_deprecated.alias_modules(__name__)


def __getattr__(name: str) -> object:
    return _deprecated.renamed(__name__, name)
