"""Alignment of two clouds from any position: features, poses that many pairs agree on, evidence, ICP.

Every length is a multiple of one voxel, and the voxel follows from the clouds, so that meters and
millimeters give the same. Features are made at that voxel, at twice and at four times it; each scale gives
some poses, and of all of them the one is kept that lays surface on surface. Nothing is random.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot._checks import check_choice, check_positive, check_shape
from svdrot._kernels.cpu import clouds
from svdrot._kernels.records import ALIGNED
from svdrot._precision import result_dtype
from svdrot.registration.clouds import _candidates, _evidence
from svdrot.registration.clouds._finish import finished, uncertainty
from svdrot.registration.clouds._levels import Level, levels
from svdrot.registration.clouds.icp import METHODS as REFINEMENTS
from svdrot.registration.clouds.icp import icp
from svdrot.registration.clouds.neighbors import Neighbors
from svdrot.registration.clouds.surfaces import spacing
from svdrot.registration.pairs.robust import by_more_than_chance
from svdrot.transform import Transform

Array = NDArray[Any]

POINTS, MOST_POINTS = 5000, 20_000  # one in a voxel: of the smaller cloud, and of the larger at most
APART = 2.0  # a voxel, in distances of points to the next: of points at random on a surface a voxel holds one
THRESHOLD = 1.5  # voxels, of correspondences
FACTORS = (1, 2, 4)  # of the voxel, for features: smooth shapes have none that are small
SCALES = ((1, 1.5, 20), (0.5, 0.5, 30))  # of ICP at the end: voxel and distance, in voxels, and iterations
LEAST_KEPT = 0.9  # of the fitness of the pose from features, by ICP
FINE_POINTS = 20  # by which normals are estimated at the end
FEWEST = 4  # points of a cloud
STEPS = 8  # towards the automatic voxel


@dataclass(frozen=True)
class Stage:
    """Describe what one step of `register` came to.

    Attributes:
        name: "features", "robust" or "local".
        transform: after the step, from source to target.
        fitness: as in `GlobalRegistration`, after the step.
        rmse: likewise.
        seconds: that the step took.

    Example:
        >>> import torch, svdrot
        >>> scan = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0))
        >>> found = svdrot.registration.register(scan, scan)  # doctest: +SKIP
        >>> [(stage.name, round(stage.fitness, 2)) for stage in found.stages]  # doctest: +SKIP
        [('features', 1.0), ('robust', 1.0), ('local', 1.0)]
    """

    name: str
    transform: Transform
    fitness: float
    rmse: float
    seconds: float


@dataclass(frozen=True)
class GlobalRegistration:
    """Describe where the source lies on the target, as `register` returns it.

    Attributes:
        transform: from source to target, rigid.
        fitness: share of the source's voxels with a point of the target within 1.5 voxels, in [0, 1].
        rmse: root of the mean square of the distances of those, NaN if there are none.
        converged: whether more correspondences agree with the transform than would by chance.
        correspondences: number of matched features, at the voxel below.
        inliers: how many of them agree with the robust fit.
        voxel: at which the features were made, 0 if the clouds determine none.
        stages: each `Stage`, in order; none if a cloud is too small.

    Example:
        >>> import torch, svdrot
        >>> found = svdrot.registration.register(torch.zeros(3, 3), torch.rand(9, 3))  # too few points
        >>> found.converged, found.fitness, found.transform.rotation.diagonal()
        (False, 0.0, tensor([1., 1., 1.]))
    """

    transform: Transform
    fitness: float
    rmse: float
    converged: bool
    correspondences: int
    inliers: int
    voxel: float
    stages: tuple[Stage, ...]


def register(
    source: Tensor,
    target: Tensor,
    *,
    voxel: float | None = None,
    refine: str | None = "point_to_plane",
) -> GlobalRegistration:
    """Find the rigid motion that lays the source on the target where their shapes agree, from any position.

    Args:
        source: shape (N, 3), any floating dtype. Points that are not finite are left out.
        target: shape (M, 3), likewise, in the same units.
        voxel: edge length of the grid on which both are compared, in the units of the points. Default:
            `automatic_voxel`.
        refine: method of `icp`, or None to end with the pose found at the voxel.

    Returns:
        `GlobalRegistration`, the transform in the source's dtype. Clouds of fewer than four points, or
        without extent, give the identity and what it makes of them, not `converged`; so do clouds that
        share no shape, with the best that was found. Equal arguments give equal results. Not
        differentiable. Computed on the CPU.

    Raises:
        ValueError: if a shape is another, `voxel` is not positive, or a method is unknown.
        TypeError: if a cloud is not a floating-point tensor.

    Source:
        Rusu, Blodow and Beetz, "Fast Point Feature Histograms (FPFH) for 3D Registration", ICRA 2009; Chen
        et al., "SC2-PCR", CVPR 2022.

    Example:
        >>> import torch, svdrot
        >>> x, y = 4 * torch.rand(2, 4000, generator=torch.Generator().manual_seed(0)) - 2
        >>> target = torch.stack((x, y, (x * y).sin() + 0.3 * x * (2 * y).cos()), -1)
        >>> turn = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 2.0, 1.0]))
        >>> found = svdrot.registration.register(target @ turn, target)
        >>> found.converged, bool(svdrot.geodesic_distance(found.transform.rotation, turn) < 1e-3)
        (True, True)
    """
    _check_clouds(source, target)
    if voxel is not None:
        check_positive("voxel", voxel)
    if refine is not None:
        check_choice("refine", refine, REFINEMENTS)
    x, y = _finite(source), _finite(target)
    size = _automatic(x, y) if voxel is None else float(voxel)
    with torch.no_grad():
        return _register(x, y, size, refine, source)


def _check_clouds(source: Tensor, target: Tensor) -> None:
    check_shape("source", source, 3)
    check_shape("target", target, 3)
    if source.ndim != 2 or target.ndim != 2:
        shapes = f"{tuple(source.shape)} and {tuple(target.shape)}"
        raise ValueError(f"`source` and `target` must have shapes (N, 3) and (M, 3); got {shapes}.")


def _finite(cloud: Tensor) -> Array:
    points = cloud.detach().double().cpu().numpy()
    finite = np.isfinite(points).all(1)
    return np.ascontiguousarray(points if finite.all() else points[finite])


def _register(x: Array, y: Array, voxel: float, refine: str | None, like: Tensor) -> GlobalRegistration:
    nothing = np.eye(4)[None, :3]
    if voxel == 0 or min(len(x), len(y)) < FEWEST:
        return GlobalRegistration(_transform(nothing[0], like), 0.0, math.nan, False, 0, 0, voxel, ())
    center = np.median(y, 0)  # keeps lengths of the order of the clouds', wherever they lie
    x, y = x - center, y - center
    tick = _Clock()
    a, b = levels(x, voxel, FACTORS), levels(y, voxel, FACTORS)
    if a is None or b is None:
        return GlobalRegistration(_transform(nothing[0], like), 0.0, math.nan, False, 0, 0, voxel, ())
    report = _Report(a[0].cells.points, b[0].cells.points, center, voxel, like)
    pairs = [_candidates.matched(u.features, v.features) for u, v in zip(a, b, strict=True)]
    points = [(u.cells.points[i], v.cells.points[j]) for u, v, (i, j) in zip(a, b, pairs, strict=True)]
    stages = [report("features", nothing[0], tick())]

    found = [
        _candidates.candidates(*some, THRESHOLD * voxel * factor, _candidates.KEEP)
        for some, factor in zip(points, FACTORS, strict=True)
    ]
    poses = np.concatenate([poses for poses, _ in found])
    inliers = np.concatenate([count for _, count in found])
    scales = np.repeat(np.arange(len(found)), [len(poses) for poses, _ in found])
    pose, at = nothing[0], 0
    if len(poses):
        pose, at = _evidence.verified(a, b, poses, scales)
    stages.append(report("robust", pose, tick()))

    if refine is not None and len(poses):
        pose = _refined(a[0], b[0], x, y, pose, refine)
        stages.append(report("local", pose, tick()))
    most = _candidates.MOST
    converged = any(
        by_more_than_chance(u[:most], v[:most], pose, THRESHOLD * voxel * factor)
        for (u, v), factor in zip(points, FACTORS, strict=True)
    )
    # Refined, a little less may lie on the target, but not if it ran away.
    end = stages[-1] if stages[-1].fitness >= LEAST_KEPT * stages[1].fitness else stages[1]
    scale = int(scales[at]) if len(poses) else 0
    return GlobalRegistration(
        end.transform,
        end.fitness,
        end.rmse,
        converged,
        len(points[scale][0]),
        int(inliers[at]) if len(poses) else 0,
        voxel,
        tuple(stages),
    )


class _Clock:
    """Give the seconds since it was asked before."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self) -> float:
        before, self._last = self._last, time.perf_counter()
        return self._last - before


class _Report:
    """Tell what a pose makes of two clouds, whose points are one in each voxel about a center."""

    def __init__(self, x: Array, y: Array, center: Array, voxel: float, like: Tensor):
        self._x, self._tree = torch.from_numpy(x), Neighbors(torch.from_numpy(y))
        self._center, self._limit, self._like = center, THRESHOLD * voxel, like

    def __call__(self, name: str, pose: Array, seconds: float) -> Stage:
        r, t = torch.from_numpy(pose[:, :3]), torch.from_numpy(pose[:, 3])
        distances = self._tree.query(self._x @ r.mT + t, 1, self._limit)[0].numpy()
        near = distances[np.isfinite(distances)]
        rmse = math.sqrt(np.square(near).mean()) if len(near) else math.nan
        there = pose.copy()
        there[:, 3] += self._center - pose[:, :3] @ self._center
        return Stage(name, _transform(there, self._like), len(near) / max(len(distances), 1), rmse, seconds)


def _refined(a: Level, b: Level, x: Array, y: Array, pose: Array, method: str) -> Array:
    """The pose after ICP at one voxel, and at half of one."""
    voxel = b.cells.edge
    if method != "point_to_plane":
        init = _transform(pose, torch.empty((), dtype=torch.float64))
        scales = [(voxel * edge, voxel * distance, steps) for edge, distance, steps in SCALES]
        both = torch.from_numpy(x), torch.from_numpy(y)
        local = icp(*both, init=init, method=method, kernel="tukey", scales=scales).transform
        return np.concatenate((local.rotation.numpy(), local.translation.numpy()[:, None]), 1)
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
    before = uncertainty(*(known[name][0].numpy() for name in ("count", "square", "matrix")))
    return finished(x, y, poses[0], SCALES[-1][1] * voxel, before)


def automatic_voxel(source: Tensor, target: Tensor) -> float:
    """Return the edge length of the voxels at which `register` compares two clouds.

    The smaller cloud fills about 5,000 of such voxels, and the larger not over 20,000; but the length is no
    less than twice the median distance of a point of either cloud to the next: within less, even the same
    surface has other points. It is proportional to the size of the clouds.

    Args:
        source: shape (N, 3), any floating dtype, all finite.
        target: shape (M, 3), likewise, in the same units.

    Returns:
        The edge length in the units of the points; 0 if a cloud has fewer than four points, or neither has an
        extent.

    Raises:
        ValueError: if a shape is another.
        TypeError: if a cloud is not a floating-point tensor.

    Example:
        >>> import torch, svdrot
        >>> cloud = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0))
        >>> meters = svdrot.registration.automatic_voxel(cloud, cloud)
        >>> millimeters = svdrot.registration.automatic_voxel(1000 * cloud, 1000 * cloud)
        >>> round(millimeters / meters)
        1000
    """
    _check_clouds(source, target)
    return _automatic(_finite(source), _finite(target))


def _automatic(source: Array, target: Array) -> float:
    both = source, target
    if min(map(len, both)) < FEWEST:
        return 0.0
    filled = [_voxel(cloud, POINTS) for cloud in both]
    most = [_voxel(cloud, MOST_POINTS) for cloud in both]
    apart = [APART * spacing(torch.from_numpy(cloud)) for cloud in both if len(cloud) < 4 * POINTS]
    return max(min(filled), *most, *apart)


def _voxel(points: Array, count: int) -> float:
    """Return the edge length at which a cloud fills about `count` voxels; 0 if it has fewer points."""
    voxel = float(np.linalg.norm(np.ptp(points, 0))) / count**0.5
    if len(points) <= count or voxel == 0:
        return 0.0
    for _ in range(STEPS):
        filled = clouds.count_cells(points, voxel, 4 * count)
        voxel *= (filled / count) ** 0.5  # exact for surfaces; a step in the right direction for others
        if abs(filled - count) < 0.01 * count:
            break
    return voxel


def _transform(pose: Array, like: Tensor) -> Transform:
    at = torch.from_numpy(pose.copy()).to(like.device, result_dtype(like))
    return Transform(at[:, :3], at[:, 3], at.new_ones(()))
