"""The points of a cloud that count, and the voxel at which two clouds are compared. In numpy."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot._kernels import cpu
from svdrot._kernels.cpu import clouds
from svdrot.registration.clouds.surfaces import spacing

Array = NDArray[Any]

POINTS, MOST_POINTS = 5000, 20_000  # one in a voxel: of the smaller cloud, and of the larger at most
APART = 2.0  # a voxel, in distances of points to the next: of points at random on a surface a voxel holds one
FEWEST = 4  # points of a cloud
FAR = 1e4  # median distances from the middle, beyond which lie only fill values such as 1e30
STEPS = 8  # towards the automatic voxel


def usable(cloud: Tensor) -> Array:
    """The points of a cloud in numpy, without those that are not finite or stand for "nothing there"."""
    own = cloud.detach().cpu().resolve_neg()
    own = own if own.dtype in (torch.float32, torch.float64) else own.double()
    points = np.ascontiguousarray(own.numpy(), np.float64)
    if len(points) and not np.isfinite(clouds.bounds_of(points)).all():
        points = points[np.isfinite(points).all(1)]
    if not len(points):
        return points
    some = points[:: max(1, len(points) // 1000)]
    middle = np.median(some, 0)
    far = FAR * float(np.median(np.abs(some - middle).max(1)))
    if far > 0 and (np.abs(clouds.bounds_of(points) - middle) > far).any():
        points = points[(np.abs(points - middle) <= far).all(1)]
    return points


def automatic(source: Array, target: Array) -> float:
    """The voxel that `automatic_voxel` describes."""
    both = source, target
    if min(map(len, both)) < FEWEST:
        return 0.0
    filled = [_voxel(cloud, POINTS) for cloud in both]
    most = [_voxel(cloud, MOST_POINTS) for cloud in both]
    with cpu.alone():
        apart = [APART * spacing(torch.from_numpy(cloud)) for cloud in both if len(cloud) < 4 * POINTS]
    return max(min(filled), *most, *apart)


def _voxel(points: Array, count: int) -> float:
    """Return the edge length at which a cloud fills about `count` voxels; 0 if it has fewer points."""
    bounds = clouds.bounds_of(points)
    voxel = float(np.linalg.norm(bounds[1] - bounds[0])) / count**0.5
    if len(points) <= count or voxel == 0:
        return 0.0
    for _ in range(STEPS):
        filled = clouds.count_cells(points, bounds, voxel, 4 * count)
        voxel *= (filled / count) ** 0.5  # exact for surfaces; a step in the right direction for others
        if abs(filled - count) < 0.01 * count:
            break
    return voxel
