"""Alignment of two clouds from any position: features, poses that many pairs agree on, evidence, ICP.

Every length is a multiple of one voxel, and the voxel follows from the clouds, so that meters and
millimeters give the same. Features are made at that voxel, at twice and at four times it; each scale gives
some poses, and of all of them the one is kept that lays surface on surface. Nothing is random.

Where the size of the source is not known, the likeliest few are found first, each is tried so, and that of
the pose kept is improved with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot import _deprecated
from svdrot._checks import check_choice, check_positive, check_shape
from svdrot._kernels import cpu
from svdrot._kernels.cpu import clouds
from svdrot._precision import result_dtype
from svdrot._stand_ins import takes_arrays
from svdrot.registration._motions import Allowed, one_axis
from svdrot.registration.clouds import _candidates, _evidence, _starts
from svdrot.registration.clouds._global import batches, sizes
from svdrot.registration.clouds._global.fit import Similarity
from svdrot.registration.clouds._global.refinement import by_icp, refined
from svdrot.registration.clouds._global.results import GlobalRegistration, Stage
from svdrot.registration.clouds._global.search import finished_with_size, likeliest
from svdrot.registration.clouds._global.told import Clock, Report, about, as_matrix, as_transform
from svdrot.registration.clouds._global.voxels import FEWEST, automatic, usable
from svdrot.registration.clouds._levels import levels
from svdrot.registration.clouds._starts import THRESHOLD
from svdrot.registration.clouds.icp import METHODS as REFINEMENTS
from svdrot.registration.clouds.icp import initial
from svdrot.registration.clouds.verdict import Verdict, judge
from svdrot.registration.pairs.robust import by_more_than_chance
from svdrot.transform import Transform

Array = NDArray[Any]

FACTORS = (1, 2, 4)  # of the voxel, for features: smooth shapes have none that are small
START_FACTORS = (1, 2, 4, 8)  # for a start, which may be so far off
SEARCHES = ("features", "rotations")
LEAST_KEPT = 0.9  # of the fitness of the pose from features, by ICP
CERTAIN = 4.1  # standard deviations: of six numbers a hundredth are farther off
# Of the size: what scans share beside noise, as drift, lets poses that are as good differ so much.
NEAR = 0.005


@_deprecated.renamed_arguments("svdrot.registration.register")
@takes_arrays
def register(
    source: Tensor,
    target: Tensor,
    *,
    voxel: float | None = None,
    refine: str | None = "point_to_plane",
    search: str = "features",
    init: Transform | Tensor | None = None,
    verdict: bool = True,
    scale: bool = False,
    motion: str = "free",
    axis: Tensor | None = None,
) -> GlobalRegistration:
    """Find the motion that lays the source on the target where their shapes agree, from any position.

    Args:
        source: shape (N, 3), any floating dtype. Points that are not finite are left out, and those ten
            thousand times as far from the middle as half of all are: fill values, such as 1e30.
        target: shape (M, 3), likewise, in the same units but with `scale`.
        voxel: edge length of the grid on which both are compared, in the units of the target. Default:
            `automatic_voxel`.
        refine: method of `icp`, or None to end with the pose found at the voxel.
        search: "features", which both clouds must show alike, or "rotations": 960 of them, with the middles
            of both clouds laid on each other, for small things whose features noise spoils. On objects of
            700 points that takes thirteen times as long.
        init: rigid transform or matrix (4, 4) to begin at, in place of a search. From near, that pose is
            found and no other; from farther off, up to some eight voxels, the best that steps from coarser
            scales lead to.
        verdict: whether to judge the pose (0.1 to 0.2 seconds of a processor). Then motions that change
            nothing stay where they began, and another pose that fits better takes the place of the one
            found.
        scale: whether the source may be of any other size: in millimeters where the target is in meters, a
            few per cent larger, or without a unit. Then the transform has the scale, for which up to nine
            sizes are tried, and takes ten times as long. `init` may have one, good to some ten per cent.
        motion: "free"; "yaw", rotations about `axis` and any translation, as of scans with the same up; or
            "planar", which keeps heights along it, too. As of `icp`: from `init` on, or else the identity.
        axis: of such a motion, in the frame of the target, shape (3,), of any length but 0. Default: z.

    Returns:
        `GlobalRegistration`, the transform in the source's dtype, rigid without `scale`. Clouds of fewer than
        four points, or without extent, give the identity and what it makes of them, not `converged`; so do
        clouds that share no shape, with the best that was found. Equal arguments give equal results. Not
        differentiable. Computed on the CPU.

    Raises:
        ValueError: if a shape is another, `voxel` is not positive, a method is unknown, or `scale` is asked
            with a motion about an axis.
        TypeError: if a cloud is not a floating-point tensor.

    Source:
        Rusu, Blodow and Beetz, "Fast Point Feature Histograms (FPFH) for 3D Registration", ICRA 2009; Chen
        et al., "SC2-PCR", CVPR 2022; the size by votes as in Yang, Shi and Carlone, "TEASER", T-RO 2021.

    Example:
        >>> import torch, svdrot
        >>> x, y = 4 * torch.rand(2, 4000, generator=torch.Generator().manual_seed(0)) - 2
        >>> target = torch.stack((x, y, (x * y).sin() + 0.3 * x * (2 * y).cos() + 0.2 * x**2), -1)
        >>> turn = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 2.0, 1.0]))
        >>> found = svdrot.registration.register(target @ turn, target)
        >>> found.converged, bool(svdrot.geodesic_distance(found.transform.rotation, turn) < 1e-3)
        (True, True)
        >>> found = svdrot.registration.register(target @ turn / 1000, target, scale=True)
        >>> found.converged, round(found.transform.scale.item())
        (True, 1000)
    """
    asked = _Asked(voxel, refine, search, verdict, scale, motion, axis)
    _check_clouds(source, target)
    start = None if init is None else _start(init, source, scale)
    return _found(source, target, start, asked)


@takes_arrays
def register_batch(
    source: Tensor | Sequence[Tensor],
    target: Tensor | Sequence[Tensor],
    *,
    voxel: float | None = None,
    refine: str | None = "point_to_plane",
    search: str = "features",
    init: Transform | Tensor | Sequence[Transform | Tensor] | None = None,
    verdict: bool = True,
    scale: bool = False,
    motion: str = "free",
    axis: Tensor | None = None,
) -> list[GlobalRegistration]:
    """Find where each of many sources lies on its target, each as `register` does.

    For many small clouds: as many threads as torch uses (`torch.get_num_threads`) take one pair after the
    other, where those of a single small pair would wait for each other.

    Args:
        source: clouds: a sequence of tensors (N, 3) of any lengths, a tensor (B, N, 3), or one cloud (N, 3)
            for all targets. Any floating dtype.
        target: likewise, as many, or one for all sources.
        voxel: as in `register`, for all.
        refine: likewise.
        search: likewise.
        init: one for all, as `register` takes it, or as many: a sequence, a tensor (B, 4, 4), or a
            `Transform` of batch (B,).
        verdict: as in `register`.
        scale: likewise.
        motion: likewise, for all.
        axis: likewise.

    Returns:
        A list of B `GlobalRegistration`, in order: what a verdict names, motions and rivals, is of other
        shapes for each. Each is that of a call of its own, to the last bit; one that fails, on clouds of
        nothing, changes no other.

    Raises:
        ValueError: if there are not as many targets as sources, or of a cloud as `register` does, whose
            argument is then named with its number.
        TypeError: likewise.

    Example:
        >>> import torch, svdrot
        >>> clouds = torch.rand(3, 400, 3, generator=torch.Generator().manual_seed(0))
        >>> found = svdrot.registration.register_batch(clouds, clouds[0], verdict=False)
        >>> len(found), found[0].fitness
        (3, 1.0)
    """
    asked = _Asked(voxel, refine, search, verdict, scale, motion, axis)
    sources, targets, inits = batches.matched(source, target, init)
    pairs = list(zip(sources, targets, strict=True))
    for i, (x, y) in enumerate(pairs):
        _check_clouds(x, y, f"[{i}]")
    starts = [None if t is None else _start(t, x, scale) for (x, _), t in zip(pairs, inits, strict=True)]
    return cpu.each(lambda i: _found(*pairs[i], starts[i], asked), len(pairs))


@dataclass(frozen=True)
class _Asked:
    """Hold the options of `register`, checked."""

    voxel: float | None
    refine: str | None
    search: str
    verdict: bool
    scale: bool
    motion: str
    axis: Tensor | None

    def __post_init__(self) -> None:
        if self.voxel is not None:
            check_positive("voxel", self.voxel)
        if self.refine is not None:
            check_choice("refine", self.refine, REFINEMENTS)
        check_choice("search", self.search, SEARCHES)
        if self.unit is not None and self.scale:
            raise ValueError(f'`scale` must be False for `motion` "{self.motion}".')

    @cached_property
    def unit(self) -> Array | None:
        """The axis of a motion that has one, (3,)."""
        return one_axis(self.motion, self.axis)

    def allowed(self, x: Array, start: Transform | None) -> Allowed | None:
        """What keeps poses of a cloud to the motions that are asked, or None if these are all."""
        if self.unit is None or not len(x):
            return None
        begun = np.eye(4)[:3] if start is None else as_matrix(start)
        return Allowed(self.unit, self.motion == "planar", begun, np.median(x, 0))


def _found(source: Tensor, target: Tensor, start: Transform | None, asked: _Asked) -> GlobalRegistration:
    x, y = usable(source), usable(target)
    how = asked.voxel, asked.refine, asked.search, start, source
    with torch.no_grad():
        found = _register_sized(x, y, *how) if asked.scale else _register(x, y, *how, asked.allowed(x, start))
        return _judged(found, x, y, start, source, asked) if asked.verdict else found


def _start(init: Transform | Tensor, like: Tensor, scaled: bool) -> Transform:
    start = initial(init, torch.Size(), like)
    size = start.scale.item()
    if size != 1 and not scaled:
        raise ValueError(
            f"`init` must be rigid; got a scale of {size:.6g}. With `scale=True` it may have one."
        )
    if not 0 < size < math.inf:
        raise ValueError(f"`init` must have a positive scale; got {size:.6g}.")
    return Transform(start.rotation[0], start.translation[0], start.scale[0])


def _check_clouds(source: Tensor, target: Tensor, which: str = "") -> None:
    check_shape(f"source{which}", source, 3)
    check_shape(f"target{which}", target, 3)
    if source.ndim != 2 or target.ndim != 2:
        shapes = f"{tuple(source.shape)} and {tuple(target.shape)}"
        names = f"`source{which}` and `target{which}`"
        raise ValueError(f"{names} must have shapes (N, 3) and (M, 3); got {shapes}.")


def _register_sized(
    x: Array,
    y: Array,
    voxel: float | None,
    refine: str | None,
    search: str,
    start: Transform | None,
    like: Tensor,
) -> GlobalRegistration:
    """The likeliest of what is found with the source multiplied by some factors, and the factor that fits."""
    tick = Clock()
    (middle, own), (away, other) = (sizes.middle_and_extent(z) for z in (x, y))
    a, b = x - middle, y - away
    begun, factors, rigid, edge = np.eye(4)[:3], [], None, 0.0
    exact = torch.empty((), dtype=torch.float64, device="cpu")
    if start is not None:
        pose, first = as_matrix(start), float(start.scale)
        begun = np.c_[pose[:, :3], first * pose[:, :3] @ middle + pose[:, 3] - away]
        factors, rigid = [first * ratio for ratio in sizes.NEAR], as_transform(begun, exact)
    elif own > 0 and other > 0:
        edge = automatic(a / own, b / other) if voxel is None else voxel / other
        factors = [other / own * ratio for ratio in sizes.ratios(a / own, b / other, edge)] if edge else []
    seconds = tick()
    tried = [_register(factor * a, b, voxel, None, search, rigid, exact) for factor in factors]
    pairs = [
        (t, factor)
        for t, factor in zip(tried, factors, strict=True)
        if t.stages and (t.correspondences or start is not None)
    ]
    if not pairs:
        found = _register(x, y, voxel, refine, search, start, like)
        if start is not None:
            found = replace(found, transform=as_transform(as_matrix(start), like, factors[0]))
        return found
    poses = [Similarity(as_matrix(t.transform), factor) for t, factor in pairs]
    edges = [t.voxel for t, _ in pairs]
    poses, at = likeliest(a, b, poses, edges, edge * other or edges[0])
    found = pairs[at][0]

    def told(name: str, pose: Similarity, seconds: float) -> Stage:
        cells = [clouds.fill_cells(points, found.voxel) for points in (pose.factor * a, b)]
        assert cells[0] is not None and cells[1] is not None
        report = Report(cells[0].points, cells[1].points, np.zeros(3), found.voxel, exact)
        there = as_transform(pose.between(middle, away), like, pose.factor)
        return replace(report(name, pose.pose, seconds), transform=there)

    names = "features" if start is None else "start", "robust", "local"
    stages = [told(names[0], Similarity(begun, factors[0]), seconds), told(names[1], poses[at], tick())]
    if refine is not None:
        best = finished_with_size(a, b, poses[at], found.voxel)
        if refine != "point_to_plane":
            best = Similarity(by_icp(best.factor * a, b, best.pose, found.voxel, refine), best.factor)
        stages.append(told(names[2], best, tick()))
    end = stages[-1] if stages[-1].fitness >= LEAST_KEPT * stages[1].fitness else stages[1]
    return replace(found, transform=end.transform, fitness=end.fitness, rmse=end.rmse, stages=tuple(stages))


def _register(
    x: Array,
    y: Array,
    voxel: float | None,
    refine: str | None,
    search: str,
    start: Transform | None,
    like: Tensor,
    allowed: Allowed | None = None,
) -> GlobalRegistration:
    voxel = automatic(x, y) if voxel is None else float(voxel)
    nothing = np.eye(4)[:3] if start is None else as_matrix(start)
    if voxel == 0 or min(len(x), len(y)) < FEWEST:
        return GlobalRegistration(as_transform(nothing, like), 0.0, math.nan, False, 0, 0, voxel, ())
    center = np.median(y, 0)  # keeps lengths of the order of the clouds', wherever they lie
    x, y, pose = x - center, y - center, about(nothing, center)
    allowed = None if allowed is None else allowed.moved(center, center)
    tick = Clock()
    factors = FACTORS if start is None else START_FACTORS
    a, b = levels(x, voxel, factors), levels(y, voxel, factors)
    if a is None or b is None:
        return GlobalRegistration(as_transform(nothing, like), 0.0, math.nan, False, 0, 0, voxel, ())
    report = Report(a[0].cells.points, b[0].cells.points, center, voxel, like)
    pairs = _starts.correspondences(a[: len(FACTORS)], b[: len(FACTORS)])
    edges = [voxel * factor for factor in FACTORS]
    stages = [report("features" if start is None else "start", pose, tick())]

    if not len(a[0].cells.points) or not len(b[0].cells.points):  # no point has a normal, as on a line
        found = _starts.NONE
    elif start is not None:
        found = _starts.near(a, b, pose)
    elif search == "rotations":
        found = _starts.all_over(a, b)
    else:
        found = _starts.by_pairs(pairs, edges)
    at = -1
    if len(found.poses):
        begun = found.poses if allowed is None else allowed.nearest(found.poses)
        pose, at = _evidence.verified(a, b, begun, found.scales, allowed)
    stages.append(report("robust", pose, tick()))

    if refine is not None and at >= 0:
        pose = refined(a[0], b[0], x, y, pose, refine, allowed)
        stages.append(report("local", pose, tick()))
    most = _candidates.MOST
    converged = any(
        by_more_than_chance(u[:most], v[:most], pose, THRESHOLD * edge)
        for (u, v), edge in zip(pairs, edges, strict=True)
    )
    # Refined, a little less may lie on the target, but not if it ran away.
    end = stages[-1] if stages[-1].fitness >= LEAST_KEPT * stages[1].fitness else stages[1]
    return GlobalRegistration(
        end.transform,
        end.fitness,
        end.rmse,
        converged,
        len(pairs[found.scales[at] if at >= 0 else 0][0]),
        int(found.inliers[at]) if at >= 0 else 0,
        voxel,
        tuple(stages),
    )


def _judged(
    found: GlobalRegistration,
    x: Array,
    y: Array,
    start: Transform | None,
    like: Tensor,
    asked: _Asked,
) -> GlobalRegistration:
    """What was found, or the pose of the verdict, if that is surely another, and the verdict."""
    tick, dtype = Clock(), result_dtype(like)
    source, target = (torch.from_numpy(points).to(like.device, dtype) for points in (x, y))
    how = {"scale": asked.scale, "motion": asked.motion, "axis": asked.axis}
    told = judge(source, target, found.transform, start=start or found.transform, **how)
    transform, x = found.transform, float(found.transform.scale) * x if asked.scale else x
    if told.answer != "doubtful" and (told.moved or told.answer == "free" or _is_apart(x, transform, told)):
        transform = told.transform
    found = replace(found, transform=transform, converged=told.answer == "aligned", verdict=told)
    if not found.stages:
        return found
    a, b = (clouds.fill_cells(points, found.voxel) for points in (x, y))
    assert a is not None and b is not None
    report = Report(a.points, b.points, np.zeros(3), found.voxel, like)
    end = replace(report("verdict", as_matrix(transform), tick()), transform=transform)
    return replace(found, fitness=end.fitness, rmse=end.rmse, stages=(*found.stages, end))


def _is_apart(x: Array, found: Transform, told: Verdict) -> bool:
    """Whether the verdict's pose is surely another than that found, which is by all points.

    Of 128 objects the median error of those found is 0.18 % of the size, where the verdict's poses have 0.25;
    a tenth have over 0.6 % and not over 1.1.
    """
    turn = as_matrix(found) - as_matrix(told.transform)
    apart = math.sqrt(np.square(x @ turn[:, :3].T + turn[:, 3]).sum(1).mean())
    extent = float(np.linalg.norm(np.subtract(*clouds.bounds_of(x))))
    return apart > NEAR * extent and told.normalized_error(found) > CERTAIN


@takes_arrays
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
    return automatic(usable(source), usable(target))
