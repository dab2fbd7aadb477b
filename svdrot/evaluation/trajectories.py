r"""Trajectories against a reference: alignment, absolute, relative and segment errors, association by time.

A trajectory is a `Transform` of batch shape (..., N): pose i takes the body's coordinates to the world's, and
its `translation` is where the body is. Scales of poses are taken for 1 and never read.

One policy for bad poses. A position or an orientation that is not finite gives NaN errors in its own place,
and so in every statistic that counts it; `mask` says what counts. It is never dropped in silence, but a path
runs past such a pose, from the finite one before it to the one after, so that distances along the rest are
known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from svdrot._checks import check_mask, common_batch
from svdrot._displacements import live
from svdrot._precision import compute_dtype, to_compute
from svdrot._stand_ins import takes_arrays
from svdrot._vectors import image, product, root
from svdrot.evaluation._pose_pairs import angle_pairs as angle_pairs
from svdrot.evaluation._pose_pairs import check_one, check_pairs, finite
from svdrot.evaluation._pose_pairs import frame_pairs as frame_pairs
from svdrot.evaluation._pose_pairs import path_lengths as path_lengths
from svdrot.evaluation._pose_pairs import path_pairs as path_pairs
from svdrot.metrics import chordal_distance, geodesic_distance
from svdrot.registration.pairs.procrustes import Alignment, kabsch, umeyama
from svdrot.transform import Transform, check_transform

KITTI_LENGTHS = (100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0)  # meters, of the KITTI devkit


@takes_arrays
def align_trajectories(
    estimate: Transform,
    reference: Transform,
    *,
    scale: bool = False,
    mask: Tensor | None = None,
    motion: str = "free",
    axis: Tensor | None = None,
) -> Alignment:
    """Find the rigid transform, or with `scale` the similarity, of the world that fits positions best.

    Orientations have no part in it. `move_trajectory` applies it. Visual-inertial odometry knows gravity, and
    is compared after a motion "yaw", of 4 degrees of freedom: a free one would hide errors of roll and pitch.

    Args:
        estimate: poses (..., N), pose by pose those of `reference`; see `associate`.
        reference: poses (..., N).
        scale: whether the estimate has no scale of its own, as that of a single camera.
        mask: boolean, shape (..., N): poses that count. What does not may be NaN. Its first n give an
            alignment by the beginning.
        motion: "free"; "yaw", a rotation about `axis` and any translation; or "planar", a rotation about
            `axis` and a translation across it. As of `svdrot.registration.kabsch`.
        axis: shape (..., 3), along gravity, of any length. Default: z.

    Returns:
        `Alignment` (...), with `residual` the root mean square error of position, and `gap`, which is 0 where
        the alignment is ambiguous: positions on a line, or fewer than three; about an axis those on one
        parallel of it, or fewer than two. One pose gives the identity and
        the difference of positions, no pose the identity. A pose that counts and is not finite gives NaN.

    Raises:
        ValueError: if the trajectories differ in length, or there is no such motion.
        TypeError: if a trajectory is not a `Transform`, `mask` not boolean, or `axis` no tensor.

    Source:
        Zhang and Scaramuzza, "A Tutorial on Quantitative Trajectory Evaluation for Visual(-Inertial)
        Odometry", IROS 2018, for which alignment is due to which sensors.

    Example:
        >>> import torch, svdrot
        >>> from svdrot.evaluation import trajectories
        >>> position = torch.rand(10, 3, generator=torch.Generator().manual_seed(0))
        >>> reference = svdrot.Transform(torch.eye(3).expand(10, 3, 3), position, torch.ones(10))
        >>> estimate = svdrot.Transform(reference.rotation, position / 2, torch.ones(10))
        >>> round(trajectories.align_trajectories(estimate, reference, scale=True).scale.item(), 4)
        2.0
    """
    _check_pair(estimate, reference)
    fit = umeyama if scale else kabsch
    return fit(estimate.translation, reference.translation, mask=mask, motion=motion, axis=axis)


@takes_arrays
def align_origins(estimate: Transform, reference: Transform) -> Transform:
    """Return the rigid transform of the world that makes the first poses equal.

    Args:
        estimate: poses (..., N).
        reference: poses (..., N).

    Returns:
        Transforms (...), of scale 1, for `move_trajectory`; the identity if there are no poses, NaN if a
        first pose is.

    Raises:
        ValueError: if the trajectories differ in length.
        TypeError: if a trajectory is not a `Transform`.

    Example:
        >>> import torch, svdrot
        >>> from svdrot.evaluation import trajectories
        >>> position = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> reference = svdrot.Transform(torch.eye(3).expand(2, 3, 3), position, torch.ones(2))
        >>> estimate = svdrot.Transform(reference.rotation, position - 5, torch.ones(2))
        >>> trajectories.align_origins(estimate, reference).translation
        tensor([5., 5., 5.])
    """
    _check_pair(estimate, reference)
    if estimate.translation.shape[-2] == 0:
        return align_trajectories(estimate, reference)
    first, second = (
        Transform(
            poses.rotation[..., 0, :, :],
            poses.translation[..., 0, :],
            torch.ones_like(poses.translation[..., 0, 0]),
        )
        for poses in (estimate, reference)
    )
    return second @ first.inverse()


@takes_arrays
def move_trajectory(transform: Transform, trajectory: Transform) -> Transform:
    """Move a trajectory to another world: positions are moved, turned and scaled, orientations only turned.

    Args:
        transform: shape (...), of the world, such as `align_trajectories` finds.
        trajectory: poses (..., N), which stay poses: their scale is 1.

    Returns:
        Poses (..., N), differentiable.

    Raises:
        ValueError: if batch dimensions do not broadcast.
        TypeError: if an argument is not a `Transform`.

    Example:
        >>> import torch, svdrot
        >>> from svdrot.evaluation import trajectories
        >>> position = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> path = svdrot.Transform(torch.eye(3).expand(2, 3, 3), position, torch.ones(2))
        >>> double = svdrot.Transform(torch.eye(3), torch.zeros(3), torch.tensor(2.0))
        >>> moved = trajectories.move_trajectory(double, path)
        >>> moved.translation[1], moved.scale
        (tensor([2., 0., 0.]), tensor([1., 1.]))
    """
    check_transform("transform", transform)
    _check_poses("trajectory", trajectory)
    worlds, paths = transform.translation.shape[:-1], trajectory.translation.shape[:-2]
    common_batch(transform=worlds, trajectory=paths)
    rotation = product(transform.rotation[..., None, :, :], trajectory.rotation)
    return Transform(rotation, transform.apply(trajectory.translation), torch.ones_like(rotation[..., 0, 0]))


@dataclass(frozen=True)
class PoseErrors:
    """Hold what is between poses and where they should be.

    Attributes:
        translation: distances, shape (..., P), in the units of the positions.
        rotation: angles, shape (..., P), radians in [0, pi].
        full: Frobenius norms of E - I for the 4x4 matrix E from one pose to the other, shape (..., P). Their
            squares are those of meters and of 2 sqrt(2) sin(angle / 2) added: they depend on the unit.

    Example:
        >>> import torch, svdrot
        >>> from svdrot.evaluation import trajectories
        >>> off = torch.tensor([[3.0, 4.0, 0.0]])
        >>> errors = trajectories.PoseErrors.between(torch.eye(3)[None], 0 * off, torch.eye(3)[None], off)
        >>> errors.translation, errors.rotation, errors.full
        (tensor([5.]), tensor([0.]), tensor([5.]))
    """

    translation: Tensor
    rotation: Tensor
    full: Tensor

    @staticmethod
    def between(
        rotation: Tensor, translation: Tensor, other_rotation: Tensor, other_translation: Tensor
    ) -> "PoseErrors":
        """Return the errors between two poses of each of P pairs.

        Args:
            rotation: of the first, shape (..., P, 3, 3).
            translation: of the first, shape (..., P, 3).
            other_rotation: of the second, shape (..., P, 3, 3).
            other_translation: of the second, shape (..., P, 3).

        Returns:
            `PoseErrors` (..., P), differentiable; NaN where a pose is not finite.
        """
        step = to_compute(other_translation, 1) - to_compute(translation, 1)
        distance = torch.linalg.vector_norm(step, dim=-1)
        both = torch.stack((chordal_distance(rotation, other_rotation), distance), -1)
        full = torch.linalg.vector_norm(both, dim=-1)  # not hypot, whose gradient at 0 is NaN
        return PoseErrors(distance, geodesic_distance(rotation, other_rotation), full)


@takes_arrays
def absolute_pose_error(estimate: Transform, reference: Transform) -> PoseErrors:
    """Return the errors of the poses themselves (APE, or ATE), of E = reference⁻¹ estimate.

    Align the estimate first, unless it is meant to be in the world of the reference.

    Args:
        estimate: poses (..., N).
        reference: poses (..., N).

    Returns:
        `PoseErrors` (..., N), differentiable. NaN where a pose is not finite.

    Raises:
        ValueError: if the trajectories differ in length.
        TypeError: if a trajectory is not a `Transform`.

    Source:
        Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012.

    Example:
        >>> import torch, svdrot
        >>> from svdrot.evaluation import trajectories
        >>> position = torch.rand(10, 3, generator=torch.Generator().manual_seed(0))
        >>> reference = svdrot.Transform(torch.eye(3).expand(10, 3, 3), position, torch.ones(10))
        >>> estimate = svdrot.Transform(reference.rotation, position + 1, torch.ones(10))
        >>> world = trajectories.align_trajectories(estimate, reference)
        >>> moved = trajectories.move_trajectory(world, estimate)
        >>> bool(trajectories.absolute_pose_error(moved, reference).translation.max() < 1e-5)
        True
    """
    _check_pair(estimate, reference)
    return PoseErrors.between(
        reference.rotation, reference.translation, estimate.rotation, estimate.translation
    )


@takes_arrays
def relative_pose_error(estimate: Transform, reference: Transform, pairs: Tensor) -> PoseErrors:
    r"""Return the errors of the motions between pairs of poses (RPE), which no alignment changes.

    With motions $Q_{ij} = P_i^{-1} P_j$ of the reference and $\hat Q_{ij}$ of the estimate, of
    $E = Q_{ij}^{-1} \hat Q_{ij}$.

    Args:
        estimate: poses (..., N).
        reference: poses (..., N).
        pairs: indices i, j, shape (P, 2), such as `frame_pairs`, `path_pairs` and `angle_pairs` find.

    Returns:
        `PoseErrors` (..., P), differentiable. NaN where a pose of the pair is not finite.

    Raises:
        ValueError: if the trajectories differ in length, or `pairs` are not indices of two poses each.
        TypeError: if a trajectory is not a `Transform`, or `pairs` no tensor.

    Source:
        Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012.

    Example:
        >>> import torch, svdrot
        >>> from svdrot.evaluation import trajectories
        >>> steps = torch.arange(4.0)[:, None] * torch.tensor([1.0, 0.0, 0.0])
        >>> reference = svdrot.Transform(torch.eye(3).expand(4, 3, 3), steps, torch.ones(4))
        >>> drifting = svdrot.Transform(reference.rotation, 1.5 * steps, torch.ones(4))
        >>> pairs = trajectories.frame_pairs(4, 1)
        >>> trajectories.relative_pose_error(drifting, reference, pairs).translation
        tensor([0.5000, 0.5000, 0.5000])
    """
    _check_pair(estimate, reference)
    count = reference.translation.shape[-2]
    check_pairs(pairs)
    if len(pairs) and not 0 <= int(pairs.min()) <= int(pairs.max()) < count:
        raise ValueError(f"`pairs` must index {count} poses; got {int(pairs.min())} to {int(pairs.max())}.")
    return PoseErrors.between(*_motions(reference, pairs), *_motions(estimate, pairs))


def _motions(poses: Transform, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rotations and translations of P_i⁻¹ P_j."""
    i, j = pairs.unbind(1)
    back = poses.rotation[..., i, :, :].mT
    step = poses.translation[..., j, :] - poses.translation[..., i, :]
    return product(back, poses.rotation[..., j, :, :]), image(back, step)


@dataclass(frozen=True)
class SegmentErrors:
    """Hold the drift over stretches of given lengths, as the KITTI odometry benchmark counts it.

    Attributes:
        pairs: first and last pose of each stretch, shape (S, 2).
        length: its nominal length, shape (S,), meters.
        translation: error of its motion over that length, shape (S,), meters a meter.
        rotation: likewise, shape (S,), radians a meter.

    Example:
        >>> import torch, svdrot
        >>> from svdrot.evaluation import trajectories
        >>> meters = torch.arange(201.0)[:, None] * torch.tensor([1.0, 0.0, 0.0])
        >>> truth = svdrot.Transform(torch.eye(3).expand(201, 3, 3), meters, torch.ones(201))
        >>> short = svdrot.Transform(truth.rotation, 0.5 * meters, torch.ones(201))
        >>> errors = trajectories.kitti_segment_errors(short, truth, lengths=(50, 100))
        >>> errors.of_length(100).pairs[0], round(errors.of_length(100).translation_percent, 1)
        (tensor([  0, 101]), 50.5)
    """

    pairs: Tensor
    length: Tensor
    translation: Tensor
    rotation: Tensor

    @property
    def translation_percent(self) -> float:
        """Return the mean of `translation` over all stretches, in percent; NaN if there is none."""
        return 100 * self.translation.mean().item()

    @property
    def rotation_degrees_per_100m(self) -> float:
        """Return the mean of `rotation` over all stretches, in degrees per 100 m; NaN if there is none."""
        return 100 * torch.rad2deg(self.rotation.mean()).item()

    def of_length(self, length: float) -> "SegmentErrors":
        """Return the errors of the stretches of one length.

        Args:
            length: meters, one of the `lengths` asked for.

        Returns:
            `SegmentErrors`, of none if there is no such stretch.
        """
        of = self.length == length
        return SegmentErrors(self.pairs[of], self.length[of], self.translation[of], self.rotation[of])


@takes_arrays
def kitti_segment_errors(
    estimate: Transform,
    reference: Transform,
    *,
    lengths: Sequence[float] = KITTI_LENGTHS,
    step: int = 10,
    mask: Tensor | None = None,
) -> SegmentErrors:
    """Return the errors of the motion over stretches of 100, 200, ... 800 m, beginning at every tenth pose.

    A stretch ends at the first pose that is further along the reference than its length, by which errors are
    divided, as in the development kit. Nothing is aligned.

    Args:
        estimate: poses (N,).
        reference: poses (N,), in meters.
        lengths: of the stretches, meters.
        step: poses from one beginning to the next.
        mask: boolean, shape (N,): poses that count. No stretch begins or ends at another.

    Returns:
        `SegmentErrors`, by length and then by beginning; none if the path is shorter than every length. NaN
        where a pose of the estimate is not finite; those of the reference begin and end no stretch.

    Raises:
        ValueError: if the trajectories differ in length or are batches of them, or a setting is not positive.
        TypeError: if a trajectory is not a `Transform`, or `mask` not boolean.

    Source:
        Geiger, Lenz and Urtasun, "Are we ready for autonomous driving? The KITTI vision benchmark suite",
        CVPR 2012, and its development kit.

    Example:
        >>> import torch, svdrot
        >>> from svdrot.evaluation import trajectories
        >>> meters = torch.arange(201.0)[:, None] * torch.tensor([1.0, 0.0, 0.0])
        >>> truth = svdrot.Transform(torch.eye(3).expand(201, 3, 3), meters, torch.ones(201))
        >>> errors = trajectories.kitti_segment_errors(truth, truth)
        >>> len(errors.pairs), errors.translation_percent, errors.rotation_degrees_per_100m
        (10, 0.0, 0.0)
    """
    check_one(estimate, "estimate")
    check_one(reference, "reference")
    _check_pair(estimate, reference)
    if step < 1 or not all(length > 0 for length in lengths):
        raise ValueError(f"`step` and `lengths` must be positive; got {step} and {tuple(lengths)}.")
    path = path_lengths(reference)
    counts = finite(reference)
    if mask is not None:
        check_mask("mask", mask, len(counts))
        if mask.ndim != 1:
            raise ValueError(f"`mask` must have shape ({len(counts)},); got {tuple(mask.shape)}.")
        counts = counts & mask
    index = counts.nonzero()[:, 0]
    starts = index[index % step == 0]
    pairs, nominal = [], []
    for length in lengths:
        # `ends` are places in `index`, the poses that count.
        ends = torch.searchsorted(path[index], path[starts] + length, right=True)
        reached = ends < len(index)
        pairs.append(torch.stack((starts[reached], index[ends[reached]]), 1))
        nominal.append(path.new_full((len(pairs[-1]),), length))
    pairs = torch.cat(pairs) if pairs else index.new_empty(0, 2)
    length = torch.cat(nominal) if nominal else path.new_empty(0)
    errors = relative_pose_error(estimate, reference, pairs)
    return SegmentErrors(pairs, length, errors.translation / length, errors.rotation / length)


@dataclass(frozen=True)
class Statistics:
    """Hold statistics of errors over their last dimension, each of shape (...).

    All are NaN if nothing counts, except `sse`, which is 0.

    Attributes:
        rmse: root mean square.
        mean: of the errors.
        median: of the errors; of an even number halfway between the two in the middle.
        std: standard deviation of the errors themselves, over n.
        min: smallest error.
        max: largest error.
        sse: sum of squares.

    Example:
        >>> import torch, svdrot
        >>> found = svdrot.evaluation.trajectories.statistics(torch.tensor([[1.0, 7.0], [3.0, 3.0]]))
        >>> found.rmse, found.max, found.std
        (tensor([5., 3.]), tensor([7., 3.]), tensor([3., 0.]))
    """

    rmse: Tensor
    mean: Tensor
    median: Tensor
    std: Tensor
    min: Tensor
    max: Tensor
    sse: Tensor


@takes_arrays
def statistics(errors: Tensor, mask: Tensor | None = None) -> Statistics:
    """Return root mean square, mean, median, standard deviation, extremes and sum of squares of errors.

    Args:
        errors: shape (..., N).
        mask: boolean, shape (..., N): errors that count. Without it a NaN makes every statistic NaN.

    Returns:
        `Statistics` (...), in float32 or float64; the median of an even number of errors is between the two
        in the middle. NaN if nothing counts, but for the sum, which is 0.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if `errors` is not a floating-point, or `mask` not a boolean tensor.

    Example:
        >>> import torch, svdrot
        >>> errors = torch.tensor([1.0, 7.0, torch.nan])
        >>> svdrot.evaluation.trajectories.statistics(errors, ~errors.isnan()).rmse
        tensor(5.)
    """
    errors, counts = live("errors", errors, mask)
    count = counts.sum(-1)
    e = torch.where(counts, errors.to(compute_dtype(errors)), 0)
    sse = e.square().sum(-1)
    mean = e.sum(-1) / count
    variance = torch.where(counts, e - mean[..., None], 0).square().sum(-1) / count
    if errors.shape[-1] == 0:
        nothing = torch.full_like(sse, torch.nan)
        return Statistics(nothing, mean, nothing, nothing, nothing, nothing, sse)
    unknown = (count == 0) | e.isnan().any(-1)
    ordered = torch.where(counts, e, torch.inf).sort(-1).values
    # What does not count is at the end of `ordered`, so the middle is that of the first `count`.
    low, high = ((count - 1).clamp_min(0) // 2)[..., None], (count // 2).clamp_max(errors.shape[-1] - 1)
    middle = ordered.gather(-1, low)[..., 0] + ordered.gather(-1, high[..., None])[..., 0]
    largest = torch.where(counts, e, -torch.inf).amax(-1)
    return Statistics(
        rmse=root(sse / count),
        mean=mean,
        median=torch.where(unknown, torch.nan, middle / 2),
        std=root(variance),
        min=torch.where(unknown, torch.nan, ordered[..., 0]),
        max=torch.where(unknown, torch.nan, largest),
        sse=sse,
    )


@takes_arrays
def associate(
    first: Tensor, second: Tensor, *, max_difference: float = 0.01, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return indices of poses taken at the same time, one to one: the nearest times are paired first.

    Args:
        first: timestamps, shape (N,), seconds, float64, in any order. A NaN has no partner.
        second: timestamps, shape (M,), likewise.
        max_difference: seconds, of a pair at most.
        offset: added to `second`, seconds.

    Returns:
        Indices into `first` and into `second`, shape (P,) each, by the time of `first`.

    Raises:
        ValueError: if timestamps are not one row of float64: float32 tells seconds since 1970 to 128 s.
        TypeError: if they are no tensor.

    Source:
        Sturm et al., IROS 2012, whose tool `associate.py` pairs greedily likewise.

    Example:
        >>> import torch, svdrot
        >>> camera = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)
        >>> motion_capture = torch.tensor([0.101, 0.199, 0.5], dtype=torch.float64)
        >>> svdrot.evaluation.trajectories.associate(camera, motion_capture)
        (tensor([1, 2]), tensor([0, 1]))
    """
    for name, stamps in (("first", first), ("second", second)):
        if not isinstance(stamps, Tensor):
            raise TypeError(f"`{name}` must be a tensor; got {type(stamps).__name__}.")
        if stamps.ndim != 1 or stamps.dtype != torch.float64:
            raise ValueError(
                f"`{name}` must be float64 of shape (N,); got {stamps.dtype} {tuple(stamps.shape)}."
            )
    # Every i with all j of b, sorted, from low to high: i repeats, j counts up from low for each i.
    a, b = (stamps.detach().cpu().resolve_neg().numpy() for stamps in (first, second))
    b = b + offset
    order = np.argsort(b)  # NaN last, beyond every search
    b = b[order]
    low = np.searchsorted(b, a - max_difference)
    high = np.searchsorted(b, a + max_difference, side="right")
    count = np.where(np.isfinite(a), np.maximum(high - low, 0), 0)
    i = np.repeat(np.arange(len(a)), count)
    j = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count) + np.repeat(low, count)
    difference = np.abs(a[i] - b[j])
    taken_i, taken_j = np.zeros(len(a), bool), np.zeros(len(b), bool)
    pairs = []
    # Nearest first, each timestamp once. The window above is wider by rounding than the difference allowed.
    for k in np.argsort(difference, kind="stable"):
        if difference[k] <= max_difference and not taken_i[i[k]] and not taken_j[j[k]]:
            taken_i[i[k]] = taken_j[j[k]] = True
            pairs.append((i[k], order[j[k]]))
    pairs.sort(key=lambda pair: (a[pair[0]], pair[0]))
    found = torch.tensor(np.array(pairs, dtype=np.int64).reshape(-1, 2), device=first.device)
    return found[:, 0], found[:, 1]


def _check_pair(estimate: Transform, reference: Transform) -> None:
    for name, poses in (("estimate", estimate), ("reference", reference)):
        _check_poses(name, poses)
    ours, theirs = estimate.translation.shape[-2], reference.translation.shape[-2]
    if ours != theirs:
        raise ValueError(
            f"`estimate` must have a pose for each of the {theirs} of `reference`; got {ours}. "
            "`associate` pairs them by time."
        )
    batches = {"estimate": estimate.translation.shape[:-2], "reference": reference.translation.shape[:-2]}
    common_batch(**batches)


def _check_poses(name: str, poses: Transform) -> None:
    check_transform(name, poses)
    if poses.translation.ndim < 2:
        raise ValueError(
            f"`{name}` must be poses (..., N), translations (..., N, 3); got translations "
            f"{tuple(poses.translation.shape)}."
        )
