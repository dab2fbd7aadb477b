"""Alignment of points, clouds, rotations and trajectories. Column vectors, target = R source + t."""

from .procrustes import Alignment as Alignment
from .procrustes import kabsch as kabsch
from .procrustes import pad as pad
from .procrustes import procrustes as procrustes
from .procrustes import umeyama as umeyama
from .transform import Transform as Transform

__all__ = ["Alignment", "Transform", "kabsch", "pad", "procrustes", "umeyama"]
