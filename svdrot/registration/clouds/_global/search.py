"""The likeliest of poses at which the source has different sizes: it lays surface on surface. In numpy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from svdrot._kernels.cpu import clouds
from svdrot.registration.clouds import _evidence
from svdrot.registration.clouds._finish import Planes
from svdrot.registration.clouds._global.fit import Similarity, fitted
from svdrot.registration.clouds._levels import Level

Array = NDArray[Any]

LOOKED_AT, SHARES, STEPS = 1000, (1.5, 1.0), (8, 8)  # points, and steps with pairs up to so many voxels
LAST, LAST_STEPS = 10_000, 20  # to the end, with pairs up to half a voxel
SOME = 1000  # points, of the evidence


def likeliest(
    x: Array, y: Array, poses: list[Similarity], edges: list[float], voxel: float
) -> tuple[list[Similarity], int]:
    """Similarities of x (n, 3) on y (m, 3) after steps with cells of its own edge each, and the likeliest.

    That is by cells of one voxel.
    """
    found = [_stepped(x, y, pose, edge) for pose, edge in zip(poses, edges, strict=True)]
    b, heights = _level(y, voxel), []
    for at in found:
        a = _level(at.factor * x, voxel)
        heights.append(_evidence.measured(a, b, at.pose[None], SOME, _evidence.REACH * voxel))
    both = [np.concatenate([_resampled(h[k]) for h in heights]) for k in range(2)]
    return found, int(_evidence.scored(both[0], both[1], voxel).argmax())


def _stepped(x: Array, y: Array, pose: Similarity, edge: float) -> Similarity:
    here, there = clouds.fill_cells(pose.factor * x, edge), clouds.fill_cells(y, edge)
    assert here is not None and there is not None
    planes = Planes(here.points / pose.factor), Planes(there.points)
    for share, steps in zip(SHARES, STEPS, strict=True):
        pose = fitted(*planes, pose, share * edge, LOOKED_AT, steps)
    return pose


def _level(points: Array, edge: float) -> Level:
    cells = clouds.fill_cells(points, edge)
    assert cells is not None
    return Level.of(cells)


def _resampled(heights: Array) -> Array:
    """Make them as many for every pose: of fewer points some count twice."""
    n = heights.shape[1]
    if n == 0:
        return np.full((1, SOME), np.nan)
    return heights[:, np.arange(SOME) * n // SOME]


def finished_with_size(x: Array, y: Array, start: Similarity, voxel: float) -> Similarity:
    """The similarity fitted to the points themselves."""
    return fitted(Planes(x), Planes(y), start, 0.5 * voxel, LAST, LAST_STEPS)
