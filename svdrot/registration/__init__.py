"""Alignment of points, clouds, rotations and trajectories. Column vectors, target = scale * R source + t."""

from . import pose_metrics as pose_metrics
from . import trajectories as trajectories
from ._iterations import Status as Status
from ._points import pad as pad
from .averaging import average_curvature as average_curvature
from .averaging import average_rotations as average_rotations
from .features import fpfh as fpfh
from .features import match as match
from .files import read_points as read_points
from .files import read_transform as read_transform
from .files import write_points as write_points
from .files import write_transform as write_transform
from .global_registration import GlobalRegistration as GlobalRegistration
from .global_registration import Stage as Stage
from .global_registration import automatic_voxel as automatic_voxel
from .global_registration import register as register
from .icp import KERNELS as KERNELS
from .icp import METHODS as METHODS
from .icp import Iteration as Iteration
from .icp import Registration as Registration
from .icp import icp as icp
from .neighbours import Neighbours as Neighbours
from .neighbours import nearest as nearest
from .procrustes import Alignment as Alignment
from .procrustes import kabsch as kabsch
from .procrustes import procrustes as procrustes
from .procrustes import umeyama as umeyama
from .robust import RobustAlignment as RobustAlignment
from .robust import robust_kabsch as robust_kabsch
from .robust import robust_umeyama as robust_umeyama
from .surfaces import estimate_normals as estimate_normals
from .surfaces import voxel_downsample as voxel_downsample
from .synchronization import Synchronization as Synchronization
from .synchronization import synchronize_rotations as synchronize_rotations
from .transform import Transform as Transform

__all__ = [
    "KERNELS",
    "METHODS",
    "Alignment",
    "GlobalRegistration",
    "Iteration",
    "Neighbours",
    "Registration",
    "RobustAlignment",
    "Stage",
    "Status",
    "Synchronization",
    "Transform",
    "automatic_voxel",
    "average_curvature",
    "average_rotations",
    "estimate_normals",
    "fpfh",
    "icp",
    "kabsch",
    "match",
    "nearest",
    "pad",
    "pose_metrics",
    "procrustes",
    "read_points",
    "read_transform",
    "register",
    "robust_kabsch",
    "robust_umeyama",
    "synchronize_rotations",
    "trajectories",
    "umeyama",
    "voxel_downsample",
    "write_points",
    "write_transform",
]
