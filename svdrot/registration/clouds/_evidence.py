"""Which of some poses lays one surface on another. In numpy.

Where parts are missing the truth has less overlap than a half turn that lays cut side on cut side; but it
lays surface *on* surface, not near it. Let d be the distance of a point from the plane at the nearest
point, if one is within some voxels. The score of a pose is the mean over the points of both clouds of

    max(1/2 - d² / 2 sigma², -4), and of 0 for points with none near:

the log likelihood of d on the surface, against that of lying anywhere. sigma² is the least mean of d² that
any of the poses has which reaches half of the largest overlap; the others are out, for a sliver may fit
well by chance.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from svdrot.registration._motions import Allowed

from ._levels import Level, inverse

Array = NDArray[Any]

REACH = 1.5  # voxels: of points to the other cloud
LEAST_OVERLAP = 0.5  # of the largest
WORST = -4.0  # of the evidence of one point, as an outlier may be
FEW, SOME, LAST = 300, 700, 10  # points that are looked at, first and last, and poses that are looked at last


def verified(
    x: list[Level], y: list[Level], poses: Array, scales: Array, allowed: Allowed | None = None
) -> tuple[Array, int]:
    """The likeliest of poses (h, 3, 4), after some steps of ICP, and which it was.

    x and y are the clouds at scales from fine to coarse. Each pose is improved at the scale it came from
    first. What is allowed of motions, if not all, is kept to after each round of steps.
    """

    def kept_to(poses: Array) -> Array:
        return poses if allowed is None else allowed.nearest(poses)

    for k in range(len(x) - 1, 0, -1):
        here = scales == k
        if here.any():
            poses[here] = kept_to(y[k].align(x[k].some(FEW), poses[here], REACH * y[k].cells.edge, 6))
    voxel = y[0].cells.edge
    poses = kept_to(y[0].align(x[0].some(FEW), poses, REACH * voxel, 6))
    kept = np.argsort(-evidence(x[0], y[0], poses, FEW), kind="stable")[:LAST]
    poses = kept_to(y[0].align(x[0].some(SOME), poses[kept], voxel, 8))
    best = int(evidence(x[0], y[0], poses, SOME).argmax())
    return poses[best], int(kept[best])


def evidence(x: Level, y: Level, poses: Array, most: int) -> Array:
    """Scores of poses (h, 3, 4)."""
    return scored(*measured(x, y, poses, most, REACH * x.cells.edge), x.cells.edge)


def measured(x: Level, y: Level, poses: Array, most: int, limit: float) -> tuple[Array, Array]:
    """Heights of points of x at poses (h, 3, 4) over planes of y, and of y over x, NaN without one near."""
    return y.measure(x.some(most), poses, limit), x.measure(y.some(most), inverse(poses), limit)


def scored(there: Array, back: Array, edge: float) -> Array:
    """Scores of poses from heights (h, n) and (h, m)."""
    heights = there, back
    near = [np.isfinite(height) for height in heights]
    squares = [np.where(one, height, 0) ** 2 for one, height in zip(near, heights, strict=True)]
    overlap = np.minimum(*(one.mean(1) for one in near))
    enough = overlap >= LEAST_OVERLAP * overlap.max()
    variances = sum(s.sum(1) for s in squares) / np.maximum(sum(one.sum(1) for one in near), 1)
    variance = max(variances[enough].min(), 1e-12 * edge**2)
    gains = (np.maximum(0.5 - s / (2 * variance), WORST) * one for s, one in zip(squares, near, strict=True))
    return np.where(enough, sum(gain.mean(1) for gain in gains), -np.inf)
