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

from svdrot._checks import to_compute
from svdrot.metrics import chordal_distance, geodesic_distance
from svdrot.registration.procrustes import Alignment, kabsch, umeyama
from svdrot.registration.transform import Transform

KITTI_LENGTHS = (100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0)  # metres, of the KITTI devkit
_CHUNK = 2**18  # angles at a time: 9 x 8 bytes each, twice


def align_trajectories(
    estimate: Transform, reference: Transform, *, scale: bool = False, mask: Tensor | None = None
) -> Alignment:
    """The rigid transform, or with `scale` the similarity, of the world that fits positions best.

    Orientations have no part in it. `move_trajectory` applies it.

    Args:
        estimate: poses (..., N), pose by pose those of `reference`; see `associate`.
        reference: poses (..., N).
        scale: whether the estimate has no scale of its own, as that of a single camera.
        mask: boolean, shape (..., N): poses that count. What does not may be NaN. Its first n give an
            alignment by the beginning.

    Returns:
        `Alignment` (...), with `residual` the root mean square error of position, and `gap`, which is 0 where
        the alignment is ambiguous: positions on a line, or fewer than three. One pose gives the identity and
        the difference of positions, no pose the identity. A pose that counts and is not finite gives NaN.

    Raises:
        ValueError: if the trajectories differ in length.
    """
    _check_pair(estimate, reference)
    return (umeyama if scale else kabsch)(estimate.translation, reference.translation, mask=mask)


def align_origins(estimate: Transform, reference: Transform) -> Transform:
    """The rigid transform of the world that makes the first poses equal, or the identity if there are none.

    Args:
        estimate: poses (..., N).
        reference: poses (..., N).
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


def move_trajectory(transform: Transform, trajectory: Transform) -> Transform:
    """The trajectory in another world: positions are moved, turned and scaled, orientations only turned.

    Args:
        transform: shape (...), of the world, such as `align_trajectories` finds.
        trajectory: poses (..., N), which stay poses: their scale is 1.
    """
    rotation = transform.rotation[..., None, :, :] @ trajectory.rotation
    return Transform(rotation, transform.apply(trajectory.translation), torch.ones_like(rotation[..., 0, 0]))


@dataclass(frozen=True)
class PoseErrors:
    """What is between poses and where they should be.

    Attributes:
        translation: distances, shape (..., P), in the units of the positions.
        rotation: angles, shape (..., P), radians in [0, pi].
        full: Frobenius norms of E - I for the 4x4 matrix E from one pose to the other, shape (..., P). Their
            squares are those of metres and of 2 sqrt(2) sin(angle / 2) added: they depend on the unit.
    """

    translation: Tensor
    rotation: Tensor
    full: Tensor

    @staticmethod
    def between(
        rotation: Tensor, translation: Tensor, other_rotation: Tensor, other_translation: Tensor
    ) -> "PoseErrors":
        step = to_compute(other_translation, 1) - to_compute(translation, 1)
        distance = torch.linalg.vector_norm(step, dim=-1)
        both = torch.stack((chordal_distance(rotation, other_rotation), distance), -1)
        full = torch.linalg.vector_norm(both, dim=-1)  # not hypot, whose gradient at 0 is NaN
        return PoseErrors(distance, geodesic_distance(rotation, other_rotation), full)


def absolute_pose_error(estimate: Transform, reference: Transform) -> PoseErrors:
    """Errors of the poses themselves (APE, or ATE), of E = reference⁻¹ estimate.

    Align the estimate first, unless it is meant to be in the world of the reference.

    Args:
        estimate: poses (..., N).
        reference: poses (..., N).

    Returns:
        `PoseErrors` (..., N), differentiable. NaN where a pose is not finite.

    Raises:
        ValueError: if the trajectories differ in length.

    Source:
        Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012.
    """
    _check_pair(estimate, reference)
    return PoseErrors.between(
        reference.rotation, reference.translation, estimate.rotation, estimate.translation
    )


def relative_pose_error(estimate: Transform, reference: Transform, pairs: Tensor) -> PoseErrors:
    r"""Errors of the motions between pairs of poses (RPE), which no alignment changes.

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

    Source:
        Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012.
    """
    _check_pair(estimate, reference)
    count = reference.translation.shape[-2]
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point() or pairs.dtype == torch.bool:
        raise ValueError(f"`pairs` must be integers of shape (P, 2); got {pairs.dtype} {tuple(pairs.shape)}.")
    if len(pairs) and not 0 <= int(pairs.min()) <= int(pairs.max()) < count:
        raise ValueError(f"`pairs` must index {count} poses; got {int(pairs.min())} to {int(pairs.max())}.")
    return PoseErrors.between(*_motions(reference, pairs), *_motions(estimate, pairs))


def _motions(poses: Transform, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations and translations of P_i⁻¹ P_j."""
    i, j = pairs.unbind(1)
    back = poses.rotation[..., i, :, :].mT
    step = poses.translation[..., j, :] - poses.translation[..., i, :]
    return back @ poses.rotation[..., j, :, :], (back @ step[..., None])[..., 0]


def frame_pairs(count: int, delta: int, *, overlapping: bool = False) -> Tensor:
    """Pairs of poses `delta` frames apart.

    Args:
        count: of poses.
        delta: frames, at least 1.
        overlapping: from every pose, and not only from where the last pair ended.

    Returns:
        Indices, shape (P, 2), ascending; none if `count` is at most `delta`.
    """
    if delta < 1:
        raise ValueError(f"`delta` must be at least 1 frame; got {delta}.")
    start = torch.arange(0, max(count - delta, 0), 1 if overlapping else delta)
    return torch.stack((start, start + delta), 1)


def path_pairs(
    trajectory: Transform, delta: float, *, overlapping: bool = False, tolerance: float = 0.1
) -> Tensor:
    """Pairs of poses `delta` apart along the path.

    Args:
        trajectory: poses (N,). Those that are not finite are in no pair.
        delta: in the units of the positions, positive.
        overlapping: from every pose the one whose distance is nearest to `delta`; not only from where the
            last pair ended, the first that is at least `delta` away. Of those the first stretch only leads to
            the first pose, as in the program `evo`.
        tolerance: how far distances of overlapping pairs may be from `delta`, as a part of it.

    Returns:
        Indices, shape (P, 2), ascending; none if the path is too short.
    """
    _check_one(trajectory)
    _check_delta(delta)
    live = _finite(trajectory).nonzero()[:, 0]
    path = path_lengths(trajectory)[live]
    if overlapping:
        return live[_nearest_along(path, delta, tolerance * delta)]
    ends = []
    end = _first_from(path, delta)
    while end < len(path):
        ends.append(end)
        end = _first_from(path, path[end].item() + delta)
    ends = torch.tensor(ends, dtype=torch.int64)
    return live[torch.stack((ends[:-1], ends[1:]), 1)]


def _first_from(path: Tensor, length: float) -> int:
    return int(torch.searchsorted(path, length))


def _nearest_along(path: Tensor, delta: float, tolerance: float) -> Tensor:
    """Pairs i < j with path[j] - path[i] as near to delta as there is, and within the tolerance."""
    i = torch.arange(max(len(path) - 1, 0), device=path.device)
    wanted = path[i] + delta
    after = torch.searchsorted(path, wanted)
    found = []
    for j in (after - 1, after):
        j = j.clamp(0, len(path) - 1)
        j = torch.maximum(torch.searchsorted(path, path[j]), i + 1)  # the first of poses at rest
        found.append(j)
    before, after = found
    nearer = (path[after] - wanted).abs() < (path[before] - wanted).abs()
    j = torch.where(nearer, after, before)
    kept = (path[j] - wanted).abs() <= tolerance
    return torch.stack((i, j), 1)[kept]


def angle_pairs(
    trajectory: Transform, delta: float, *, overlapping: bool = False, tolerance: float = 0.1
) -> Tensor:
    """Pairs of poses turned by `delta` against each other.

    Args:
        trajectory: poses (N,). Those that are not finite are in no pair.
        delta: radians, positive; overlapping, at most pi.
        overlapping: every two poses whose relative rotation is by `delta`, which takes all N² / 2 of them;
            and not, from where the last pair ended, the first to which the angles from pose to pose add up to
            at least `delta`.
        tolerance: how far angles of overlapping pairs may be from `delta`, as a part of it.

    Returns:
        Indices, shape (P, 2), ascending; none if the body turns too little.
    """
    _check_one(trajectory)
    _check_delta(delta)
    live = _finite(trajectory).nonzero()[:, 0]
    rotation = trajectory.rotation[live].detach()
    if overlapping:
        return live[_turned_by(rotation, delta, tolerance * delta)]
    turned = geodesic_distance(rotation[:-1], rotation[1:]).double().cumsum(0)
    turned = torch.cat((turned.new_zeros(min(len(live), 1)), turned))
    pairs, start = [], 0
    while (end := _first_from(turned, turned[start].item() + delta) if len(turned) else 0) < len(turned):
        pairs.append((start, end))
        start = end
    return live[torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)]


def _turned_by(rotation: Tensor, delta: float, tolerance: float) -> Tensor:
    rows = max(_CHUNK // max(len(rotation), 1), 1)
    found = [torch.empty(0, 2, dtype=torch.int64, device=rotation.device)]
    for first in range(0, len(rotation), rows):
        angles = geodesic_distance(rotation[first : first + rows, None], rotation[None, first:])
        pairs = ((angles - delta).abs() <= tolerance).nonzero() + first
        found.append(pairs[pairs[:, 1] > pairs[:, 0]])
    return torch.cat(found)


def path_lengths(trajectory: Transform) -> Tensor:
    """How far the body has come at each pose, along straight lines from pose to pose.

    Args:
        trajectory: poses (N,).

    Returns:
        Shape (N,), float64, ascending from 0. At a pose that is not finite, that of the last finite one.
    """
    _check_one(trajectory)
    live = _finite(trajectory)
    position = trajectory.translation.detach().double()
    path = position.new_zeros(len(position))
    steps = torch.linalg.vector_norm(position[live].diff(dim=0), dim=-1)
    path[live.nonzero()[1:, 0]] = steps
    return path.cumsum(0)


@dataclass(frozen=True)
class SegmentErrors:
    """Drift over stretches of given lengths, as the KITTI odometry benchmark counts it.

    Attributes:
        pairs: first and last pose of each stretch, shape (S, 2).
        length: its nominal length, shape (S,), metres.
        translation: error of its motion over that length, shape (S,), metres a metre.
        rotation: likewise, shape (S,), radians a metre.
    """

    pairs: Tensor
    length: Tensor
    translation: Tensor
    rotation: Tensor

    @property
    def translation_percent(self) -> float:
        """The mean over all stretches, NaN if there is none."""
        return 100 * self.translation.mean().item()

    @property
    def rotation_degrees_per_100m(self) -> float:
        """The mean over all stretches, NaN if there is none."""
        return 100 * torch.rad2deg(self.rotation.mean()).item()

    def of_length(self, length: float) -> "SegmentErrors":
        """Stretches of one of the lengths."""
        of = self.length == length
        return SegmentErrors(self.pairs[of], self.length[of], self.translation[of], self.rotation[of])


def kitti_segment_errors(
    estimate: Transform,
    reference: Transform,
    *,
    lengths: Sequence[float] = KITTI_LENGTHS,
    step: int = 10,
    mask: Tensor | None = None,
) -> SegmentErrors:
    """Errors of the motion over stretches of 100, 200, ... 800 m, beginning at every tenth pose.

    A stretch ends at the first pose that is further along the reference than its length, by which errors are
    divided, as in the development kit. Nothing is aligned.

    Args:
        estimate: poses (N,).
        reference: poses (N,), in metres.
        lengths: of the stretches, metres.
        step: poses from one beginning to the next.
        mask: boolean, shape (N,): poses that count. No stretch begins or ends at another.

    Returns:
        `SegmentErrors`, by length and then by beginning; none if the path is shorter than every length. NaN
        where a pose of the estimate is not finite; those of the reference begin and end no stretch.

    Raises:
        ValueError: if the trajectories differ in length or are batches of them, or a setting is not positive.

    Source:
        Geiger, Lenz and Urtasun, "Are we ready for autonomous driving? The KITTI vision benchmark suite",
        CVPR 2012, and its development kit.
    """
    _check_one(estimate)
    _check_pair(estimate, reference)
    if step < 1 or not all(length > 0 for length in lengths):
        raise ValueError(f"`step` and `lengths` must be positive; got {step} and {tuple(lengths)}.")
    path = path_lengths(reference)
    live = _finite(reference) if mask is None else _finite(reference) & mask
    index = live.nonzero()[:, 0]
    starts = index[index % step == 0]
    pairs, nominal = [], []
    for length in lengths:
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
    """Of errors over their last dimension; the deviation is that of the errors themselves, over n.

    All are NaN if nothing counts, except `sse`, the sum of squares, which is 0.
    """

    rmse: Tensor
    mean: Tensor
    median: Tensor
    std: Tensor
    min: Tensor
    max: Tensor
    sse: Tensor


def statistics(errors: Tensor, mask: Tensor | None = None) -> Statistics:
    """Root mean square, mean, median, standard deviation, extremes and sum of squares.

    Args:
        errors: shape (..., N).
        mask: boolean, shape (..., N): errors that count. Without it a NaN makes every statistic NaN.

    Returns:
        `Statistics` (...); the median of an even number of errors is between the two in the middle.
    """
    live = torch.ones_like(errors, dtype=torch.bool) if mask is None else mask.expand(errors.shape)
    count = live.sum(-1)
    e = torch.where(live, errors, 0)
    sse = e.square().sum(-1)
    mean = e.sum(-1) / count
    std = (torch.where(live, e - mean[..., None], 0).square().sum(-1) / count).sqrt()
    if errors.shape[-1] == 0:
        nothing = torch.full_like(sse, torch.nan)
        return Statistics(nothing, mean, nothing, nothing, nothing, nothing, sse)
    unknown = (count == 0) | e.isnan().any(-1)
    ordered = torch.where(live, e, torch.inf).sort(-1).values
    low, high = ((count - 1).clamp_min(0) // 2)[..., None], (count // 2).clamp_max(errors.shape[-1] - 1)
    middle = ordered.gather(-1, low)[..., 0] + ordered.gather(-1, high[..., None])[..., 0]
    largest = torch.where(live, e, -torch.inf).amax(-1)
    return Statistics(
        rmse=(sse / count).sqrt(),
        mean=mean,
        median=torch.where(unknown, torch.nan, middle / 2),
        std=std,
        min=torch.where(unknown, torch.nan, ordered[..., 0]),
        max=torch.where(unknown, torch.nan, largest),
        sse=sse,
    )


def associate(
    first: Tensor, second: Tensor, *, max_difference: float = 0.01, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Indices of poses taken at the same time, one to one: the nearest times are paired first.

    Args:
        first: timestamps, shape (N,), seconds, float64, in any order. A NaN has no partner.
        second: timestamps, shape (M,), likewise.
        max_difference: seconds, of a pair at most.
        offset: added to `second`.

    Returns:
        Indices into `first` and into `second`, shape (P,) each, by the time of `first`.

    Raises:
        ValueError: if timestamps are not one row of float64: float32 tells seconds since 1970 to 128 s.

    Source:
        Sturm et al., IROS 2012, whose tool `associate.py` pairs greedily likewise.
    """
    for name, stamps in (("first", first), ("second", second)):
        if stamps.ndim != 1 or stamps.dtype != torch.float64:
            raise ValueError(
                f"`{name}` must be float64 of shape (N,); got {stamps.dtype} {tuple(stamps.shape)}."
            )
    a, b = first.detach().cpu().numpy(), second.detach().cpu().numpy() + offset
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
    for k in np.argsort(difference, kind="stable"):
        if difference[k] <= max_difference and not taken_i[i[k]] and not taken_j[j[k]]:
            taken_i[i[k]] = taken_j[j[k]] = True
            pairs.append((i[k], order[j[k]]))
    pairs.sort(key=lambda pair: (a[pair[0]], pair[0]))
    found = torch.tensor(np.array(pairs, dtype=np.int64).reshape(-1, 2), device=first.device)
    return found[:, 0], found[:, 1]


def _finite(trajectory: Transform) -> Tensor:
    rotation, translation = trajectory.rotation.detach(), trajectory.translation.detach()
    return rotation.isfinite().all(-1).all(-1) & translation.isfinite().all(-1)


def _check_pair(estimate: Transform, reference: Transform) -> None:
    for name, poses in (("estimate", estimate), ("reference", reference)):
        if poses.translation.ndim < 2 or poses.translation.shape[-1] != 3:
            raise ValueError(
                f"`{name}` must be poses (..., N), translations (..., N, 3); got translations "
                f"{tuple(poses.translation.shape)}."
            )
    ours, theirs = estimate.translation.shape[-2], reference.translation.shape[-2]
    if ours != theirs:
        raise ValueError(
            f"`estimate` must have a pose for each of the {theirs} of `reference`; got {ours}. "
            "`associate` pairs them by time."
        )


def _check_one(trajectory: Transform) -> None:
    if trajectory.translation.ndim != 2 or trajectory.translation.shape[-1] != 3:
        raise ValueError(
            f"Wanted one trajectory, translations (N, 3); got translations "
            f"{tuple(trajectory.translation.shape)}."
        )


def _check_delta(delta: float) -> None:
    if not delta > 0:
        raise ValueError(f"`delta` must be positive; got {delta}.")
