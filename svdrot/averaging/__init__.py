"""Averages of rotations: of many measurements of one, and of graphs of relative ones between many."""

from .graphs import Synchronization as Synchronization
from .graphs import synchronize_rotations as synchronize_rotations
from .rotations import average_curvature as average_curvature
from .rotations import average_rotations as average_rotations

__all__ = ["Synchronization", "average_curvature", "average_rotations", "synchronize_rotations"]
