"""Losses: per element, without reduction, finite with their gradients on all of SO(3).

Rotations are (..., 3, 3) and act on column vectors, angles are radians. Half precision is computed in float32
and given back as it came (float32 under autocast). An element with a NaN or an infinity gives NaN in its own
place. `ReducedLoss` takes means and sums.
"""

from .point_matching import add as add
from .point_matching import add_symmetric as add_symmetric
from .reduction import ReducedLoss as ReducedLoss
from .rotations import chordal as chordal
from .rotations import geodesic as geodesic
from .rotations import huber_chordal as huber_chordal
from .rotations import huber_geodesic as huber_geodesic
from .rotations import laplace_geodesic as laplace_geodesic
from .rotations import raw_9d as raw_9d
from .rotations import squared_chordal as squared_chordal
from .rotations import squared_geodesic as squared_geodesic
from .symmetric import axial as axial
from .symmetric import minimum_over_symmetries as minimum_over_symmetries

__all__ = [
    "ReducedLoss",
    "add",
    "add_symmetric",
    "axial",
    "chordal",
    "geodesic",
    "huber_chordal",
    "huber_geodesic",
    "laplace_geodesic",
    "minimum_over_symmetries",
    "raw_9d",
    "squared_chordal",
    "squared_geodesic",
]
