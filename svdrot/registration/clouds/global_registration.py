"""Alignment of two clouds from any position: features, correspondences, a robust fit, local refinement.

Every length is a multiple of one voxel, and the voxel follows from the clouds, so that meters and millimeters
give the same. Correspondences are made at that voxel, at twice and at four times it, each is fitted, and of
the three transforms the one is kept that lays most of the source on the target.
"""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from svdrot._checks import check_choice, check_positive, check_shape
from svdrot._precision import result_dtype
from svdrot._robust_kernels import KERNELS
from svdrot.registration.clouds.features import fpfh, match
from svdrot.registration.clouds.icp import METHODS as REFINEMENTS
from svdrot.registration.clouds.icp import icp
from svdrot.registration.clouds.neighbors import Neighbors
from svdrot.registration.clouds.surfaces import spacing, voxel_downsample
from svdrot.registration.pairs.robust import METHODS, robust_kabsch
from svdrot.transform import Transform

POINTS, MOST_POINTS = 5000, 20_000  # one in a voxel: of the smaller cloud, and of the larger at most
THRESHOLD = 1.5  # voxels, of correspondences
FACTORS = (1, 2, 4)  # of the voxel, for features: smooth shapes have none that are small
SCALES = ((1, 1.5, 20), (0.5, 0.5, 30))  # of ICP: voxel and distance, in voxels, and iterations
LEAST_KEPT = 0.9  # of the fitness of the robust fit, by ICP
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
    method: str = "consistency",
    refine: str | None = "point_to_plane",
    generator: torch.Generator | None = None,
) -> GlobalRegistration:
    """Find the rigid motion that lays the source on the target where their shapes agree, from any position.

    Args:
        source: shape (N, 3), any floating dtype. Points that are not finite are left out.
        target: shape (M, 3), likewise, in the same units.
        voxel: edge length of the grid on which both are compared, in the units of the points. Default:
            `automatic_voxel`.
        method: of `robust_kabsch`.
        refine: method of `icp`, or None to end with the fit to correspondences.
        generator: of random numbers; torch's global one if None.

    Returns:
        `GlobalRegistration`, the transform in the source's dtype. Clouds of fewer than four points, or
        without extent, give the identity and what it makes of them, not `converged`; so do clouds that share
        no shape, with the best that was found. Not differentiable.

    Raises:
        ValueError: if a shape is another, `voxel` is not positive, or a method is unknown.
        TypeError: if a cloud is not a floating-point tensor.
        ImportError: if open3d cannot be loaded.

    Example:
        >>> import torch, svdrot
        >>> scan = svdrot.io.read_points("scan.ply")  # doctest: +SKIP
        >>> model = svdrot.io.read_points("model.ply")  # doctest: +SKIP
        >>> found = svdrot.registration.register(scan, model)  # doctest: +SKIP
        >>> aligned = found.transform.apply(scan) if found.converged else None  # doctest: +SKIP
    """
    _check_clouds(source, target)
    if voxel is not None:
        check_positive("voxel", voxel)
    check_choice("method", method, (*METHODS, *KERNELS))
    if refine is not None:
        check_choice("refine", refine, REFINEMENTS)
    with torch.no_grad():
        x, y = (cloud[cloud.isfinite().all(-1)].double() for cloud in (source, target))
        size = automatic_voxel(x, y) if voxel is None else float(voxel)
        return _register(x, y, size, method, refine, generator, result_dtype(source))


def _check_clouds(source: Tensor, target: Tensor) -> None:
    check_shape("source", source, 3)
    check_shape("target", target, 3)
    if source.ndim != 2 or target.ndim != 2:
        shapes = f"{tuple(source.shape)} and {tuple(target.shape)}"
        raise ValueError(f"`source` and `target` must have shapes (N, 3) and (M, 3); got {shapes}.")


def _register(
    x: Tensor,
    y: Tensor,
    voxel: float,
    method: str,
    refine: str | None,
    generator: torch.Generator | None,
    dtype: torch.dtype,
) -> GlobalRegistration:
    transform = Transform.identity(dtype=torch.float64, device=x.device)
    if voxel == 0 or min(len(x), len(y)) < FEWEST:
        return GlobalRegistration(_to(transform, dtype), 0.0, math.nan, False, 0, 0, voxel, ())
    center = y.median(0).values  # keeps lengths of the order of the clouds', wherever they lie
    x, y = x - center, y - center
    coarse_x, coarse_y = (voxel_downsample(cloud, voxel)[0] for cloud in (x, y))
    tree = Neighbors(coarse_y)
    stages: list[Stage] = []

    def report(name: str, transform: Transform, seconds: float) -> None:
        distances = tree.query(transform.apply(coarse_x), 1, THRESHOLD * voxel)[0]
        near = distances[distances.isfinite()]
        fitness, rmse = len(near) / len(distances), near.square().mean().sqrt().item()
        moved = center + transform.translation - transform.rotation @ center
        there = _to(Transform(transform.rotation, moved, transform.scale), dtype)
        stages.append(Stage(name, there, fitness, rmse, seconds))

    start = time.perf_counter()
    found = [_correspondences(x, y, factor * voxel) for factor in FACTORS]
    report("features", transform, time.perf_counter() - start)

    start = time.perf_counter()
    fits = [
        robust_kabsch(*pairs, THRESHOLD * factor * voxel, method=method, generator=generator)
        for pairs, factor in zip(found, FACTORS, strict=True)
    ]
    costs = [
        tree.query(fit.apply(coarse_x))[0].clamp_max(2 * THRESHOLD * voxel).square().sum() for fit in fits
    ]
    best = int(torch.stack(costs).argmin())
    robust, factor = fits[best], FACTORS[best]
    transform = Transform(robust.rotation, robust.translation, robust.scale)
    report("robust", transform, time.perf_counter() - start)
    fitted = stages[-1]

    if refine is not None:
        start = time.perf_counter()
        plan = [(factor, 1.5 * factor, 20), *SCALES] if factor > 1 else SCALES
        scales = [(voxel * edge, voxel * distance, steps) for edge, distance, steps in plan]
        local = icp(x, y, init=transform, method=refine, kernel="tukey", scales=scales)
        report("local", local.transform, time.perf_counter() - start)
    # Refined, a little less may lie on the target, but not if it ran away.
    end = stages[-1] if stages[-1].fitness >= LEAST_KEPT * fitted.fitness else fitted
    return GlobalRegistration(
        end.transform,
        end.fitness,
        end.rmse,
        bool(robust.converged),
        len(found[best][0]),
        int(robust.inliers.sum()),
        factor * voxel,
        tuple(stages),
    )


def _correspondences(x: Tensor, y: Tensor, voxel: float) -> tuple[Tensor, Tensor]:
    """Return points of two clouds whose features match, (K, 3) each."""
    coarse_x, coarse_y = (voxel_downsample(cloud, voxel)[0] for cloud in (x, y))
    i, j = match(fpfh(coarse_x, voxel), fpfh(coarse_y, voxel))
    return coarse_x[i], coarse_y[j]


def automatic_voxel(source: Tensor, target: Tensor) -> float:
    """Return the edge length of the voxels at which `register` compares two clouds.

    The smaller cloud fills about 5,000 of such voxels, and the larger not over 20,000; but the length is no
    less than the median distance of a point of either cloud to the next. It is proportional to the size of
    the clouds.

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
    if min(len(source), len(target)) < FEWEST:
        return 0.0
    filled = [_voxel(cloud, POINTS) for cloud in (source, target)]
    most = [_voxel(cloud, MOST_POINTS) for cloud in (source, target)]
    return max(min(filled), *most, *map(spacing, (source, target)))


def _voxel(points: Tensor, count: int) -> float:
    """Return the edge length at which a cloud fills about `count` voxels; 0 if it has fewer points."""
    voxel = torch.linalg.vector_norm(points.amax(0) - points.amin(0)).item() / count**0.5
    if len(points) <= count or voxel == 0:
        return 0.0
    for _ in range(STEPS):
        # Cells are counted by one integer each, row by row of the bounding box.
        cell = ((points - points.amin(0)) / voxel).long()
        sides = cell.amax(0) + 1
        filled = len(torch.unique((cell[:, 0] * sides[1] + cell[:, 1]) * sides[2] + cell[:, 2]))
        voxel *= (filled / count) ** 0.5  # exact for surfaces; a step in the right direction for others
    return voxel


def _to(transform: Transform, dtype: torch.dtype) -> Transform:
    return Transform(transform.rotation.to(dtype), transform.translation.to(dtype), transform.scale.to(dtype))
