"""Of poses found with the source at different sizes the one that lays surface on surface. In numpy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from svdrot._kernels.cpu import clouds
from svdrot.registration.clouds import _evidence
from svdrot.registration.clouds._finish import Planes
from svdrot.registration.clouds._global.fit import Similarity, fitted
from svdrot.registration.clouds._levels import Level

Array = NDArray[Any]

LOOKED_AT, STEPS = 1000, (8, 8)  # points, and steps with pairs up to 1.5 voxels and to one
LAST, LAST_STEPS = 10_000, 20  # to the end, with pairs up to half a voxel
SOME = 1000  # points, of the evidence


def likeliest(x: Array, y: Array, poses: list[Similarity], voxel: float) -> tuple[list[Similarity], int]:
    """Similarities of x (n, 3) on y (m, 3), after steps with cells of a voxel, and which is the likeliest."""
    there = clouds.fill_cells(y, voxel)
    assert there is not None
    b, found, heights = Level.of(there), [], []
    planes = Planes(b.cells.points)
    for pose in poses:
        here = clouds.fill_cells(pose.factor * x, voxel)
        assert here is not None
        other, pose_ = Planes(here.points / pose.factor), pose
        for share, steps in zip((_evidence.REACH, 1.0), STEPS, strict=True):
            pose_ = fitted(other, planes, pose_, share * voxel, LOOKED_AT, steps)
        found.append(pose_)
        here = clouds.fill_cells(pose_.factor * x, voxel)
        assert here is not None
        a, at = Level.of(here), pose_.pose[None]
        heights.append(_evidence.measured(a, b, at, SOME, _evidence.REACH * voxel))
    both = [np.concatenate([_resampled(h[k]) for h in heights]) for k in range(2)]
    return found, int(_evidence.scored(both[0], both[1], voxel).argmax())


def _resampled(heights: Array) -> Array:
    """As many for every pose: of fewer points some count twice."""
    n = heights.shape[1]
    if n == 0:
        return np.full((1, SOME), np.nan)
    return heights[:, np.arange(SOME) * n // SOME]


def finished_with_size(x: Array, y: Array, start: Similarity, voxel: float) -> Similarity:
    """The similarity fitted to the points themselves."""
    return fitted(Planes(x), Planes(y), start, 0.5 * voxel, LAST, LAST_STEPS)
