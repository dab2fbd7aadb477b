"""The pose found at a voxel, refined by ICP, in the end by the points themselves."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from svdrot._kernels import cpu
from svdrot._kernels.cpu import clouds
from svdrot._kernels.records import ALIGNED
from svdrot.registration._motions import Allowed
from svdrot.registration.clouds._finish import finished, uncertainty
from svdrot.registration.clouds._global.told import as_transform
from svdrot.registration.clouds._levels import Level
from svdrot.registration.clouds.icp import icp

Array = NDArray[Any]

SCALES = ((1, 1.5, 20), (0.5, 0.5, 30))  # of ICP at the end: voxel and distance, in voxels, and iterations
FINE_POINTS = 20  # by which normals are estimated at the end


def refined(
    a: Level, b: Level, x: Array, y: Array, pose: Array, method: str, allowed: Allowed | None
) -> Array:
    """The pose after ICP at one voxel, and at half of one."""
    voxel = b.cells.edge
    if method != "point_to_plane" or allowed is not None:
        return by_icp(x, y, pose, voxel, method, allowed)
    poses, reports = pose[None], np.zeros((1, ALIGNED.size))
    for edge, distance, steps in SCALES:
        if edge != 1:
            cells = [clouds.fill_cells(points, voxel * edge) for points in (x, y)]
            if cells[0] is None or cells[1] is None:
                break
            points, b = cells[0].points, Level.of(cells[1], points=FINE_POINTS)
        else:
            points = a.cells.points
        poses, reports = b.align_and_tell(points, poses, distance * voxel, steps)
    known = ALIGNED.read(torch.from_numpy(reports))
    count, square = known["count"].item(), known["square"].item()
    before = uncertainty(count, square, known["matrix"][0].numpy())
    with cpu.alone():
        return finished(x, y, poses[0], SCALES[-1][1] * voxel, before)


def by_icp(
    x: Array, y: Array, pose: Array, voxel: float, method: str, allowed: Allowed | None = None
) -> Array:
    init = as_transform(pose, torch.empty((), dtype=torch.float64))
    scales = [(voxel * edge, voxel * distance, steps) for edge, distance, steps in SCALES]
    both = torch.from_numpy(x), torch.from_numpy(y)
    how: dict[str, Any] = {}
    if allowed is not None:
        how = {"motion": allowed.motion, "axis": torch.from_numpy(allowed.axis)}
    local = icp(*both, init=init, method=method, kernel="tukey", scales=scales, **how).transform
    return np.concatenate((local.rotation.numpy(), local.translation.numpy()[:, None]), 1)
