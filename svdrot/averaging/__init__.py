"""Averages of rotations and poses: of many measurements of one, and of graphs of relative ones."""

from .graphs import Synchronization as Synchronization
from .graphs import synchronize_rotations as synchronize_rotations
from .rotations import average_curvature as average_curvature
from .rotations import average_rotations as average_rotations
from .transforms import average_transforms as average_transforms
from .transforms import transform_covariance as transform_covariance

__all__ = [
    "Synchronization",
    "average_curvature",
    "average_rotations",
    "average_transforms",
    "synchronize_rotations",
    "transform_covariance",
]
