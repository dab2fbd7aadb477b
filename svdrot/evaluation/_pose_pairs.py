"""Pairs of poses of a trajectory, frames, a distance or an angle apart; and lengths along its path."""

import torch
from torch import Tensor

from svdrot._checks import check_whole
from svdrot.metrics import geodesic_distance
from svdrot.transform import Transform, check_transform

_CHUNK = 2**18  # angles at a time: 9 x 8 bytes each, twice


def frame_pairs(count: int, delta: int, *, overlapping: bool = False) -> Tensor:
    """Return the pairs of poses that are `delta` frames apart.

    Args:
        count: number of poses, at least 0.
        delta: frames, at least 1.
        overlapping: whether a pair begins at every pose, and not only where the last pair ended.

    Returns:
        Indices, shape (P, 2), ascending; none if `count` is at most `delta`.

    Raises:
        ValueError: if a number is not whole, or too small.

    Example:
        >>> import torch, svdrot
        >>> svdrot.evaluation.trajectories.frame_pairs(7, 3)
        tensor([[0, 3],
                [3, 6]])
    """
    count, delta = check_whole("count", count, 0), check_whole("delta", delta)
    start = torch.arange(0, max(count - delta, 0), 1 if overlapping else delta)
    return torch.stack((start, start + delta), 1)


def path_pairs(
    trajectory: Transform, delta: float, *, overlapping: bool = False, tolerance: float = 0.1
) -> Tensor:
    """Return the pairs of poses that are `delta` apart along the path.

    Args:
        trajectory: poses (N,). Those that are not finite are in no pair.
        delta: in the units of the positions, positive.
        overlapping: from every pose the one whose distance is nearest to `delta`; not only from where the
            last pair ended, the first that is at least `delta` away. Of those the first stretch only leads to
            the first pose, as in the program `evo`.
        tolerance: how far distances of overlapping pairs may be from `delta`, as a part of it.

    Returns:
        Indices, shape (P, 2), ascending; none if the path is too short.

    Raises:
        ValueError: if `trajectory` is a batch, or `delta` is not positive.
        TypeError: if `trajectory` is not a `Transform`.

    Example:
        >>> import torch, svdrot
        >>> position = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
        >>> drive = svdrot.Transform(torch.eye(3).expand(4, 3, 3), position, torch.ones(4))
        >>> svdrot.evaluation.trajectories.path_pairs(drive, 2.0, overlapping=True)
        tensor([[0, 2],
                [2, 3]])
    """
    check_one(trajectory)
    _check_delta(delta)
    live = finite(trajectory).nonzero()[:, 0]
    path = path_lengths(trajectory)[live]
    if overlapping:
        return live[_nearest_along(path, delta, tolerance * delta)]
    ends = []
    end = _first_from(path, delta)
    while end < len(path):
        ends.append(end)
        end = max(_first_from(path, path[end].item() + delta), end + 1)  # `delta` may be below rounding
    ends = torch.tensor(ends, dtype=torch.int64)
    return live[torch.stack((ends[:-1], ends[1:]), 1)]


def _first_from(path: Tensor, length: float) -> int:
    """Return the index of the first pose at least `length` along the path."""
    return int(torch.searchsorted(path, length))


def _nearest_along(path: Tensor, delta: float, tolerance: float) -> Tensor:
    """Return pairs i < j with path[j] - path[i] as near to delta as there is, and within the tolerance."""
    # Two candidates for each i: the last pose before `wanted` and the first after.
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
    """Return the pairs of poses that are turned by `delta` against each other.

    Args:
        trajectory: poses (N,). Those that are not finite are in no pair.
        delta: radians, positive; overlapping, at most pi.
        overlapping: every two poses whose relative rotation is by `delta`, which takes all N² / 2 of them;
            and not, from where the last pair ended, the first to which the angles from pose to pose add up to
            at least `delta`.
        tolerance: how far angles of overlapping pairs may be from `delta`, as a part of it.

    Returns:
        Indices, shape (P, 2), ascending; none if the body turns too little.

    Raises:
        ValueError: if `trajectory` is a batch, or `delta` is not positive.
        TypeError: if `trajectory` is not a `Transform`.

    Example:
        >>> import torch, svdrot
        >>> yaw = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.2], [0.0, 0.0, 0.6], [0.0, 0.0, 1.2]])
        >>> spin = svdrot.Transform(svdrot.axis_angle_to_matrix(yaw), torch.zeros(4, 3), torch.ones(4))
        >>> svdrot.evaluation.trajectories.angle_pairs(spin, 0.5)
        tensor([[0, 2],
                [2, 3]])
    """
    check_one(trajectory)
    _check_delta(delta)
    live = finite(trajectory).nonzero()[:, 0]
    rotation = trajectory.rotation[live].detach()
    if overlapping:
        return live[_turned_by(rotation, delta, tolerance * delta)]
    turned = geodesic_distance(rotation[:-1], rotation[1:]).double().cumsum(0)
    turned = torch.cat((turned.new_zeros(min(len(live), 1)), turned))
    pairs, start = [], 0
    while start < len(turned):
        end = max(_first_from(turned, turned[start].item() + delta), start + 1)
        if end < len(turned):
            pairs.append((start, end))
        start = end
    return live[torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)]


def _turned_by(rotation: Tensor, delta: float, tolerance: float) -> Tensor:
    # The upper triangle, some rows at a time: within a block both indices are counted from `first`.
    rows = max(_CHUNK // max(len(rotation), 1), 1)
    found = [torch.empty(0, 2, dtype=torch.int64, device=rotation.device)]
    for first in range(0, len(rotation), rows):
        angles = geodesic_distance(rotation[first : first + rows, None], rotation[None, first:])
        pairs = ((angles - delta).abs() <= tolerance).nonzero() + first
        found.append(pairs[pairs[:, 1] > pairs[:, 0]])
    return torch.cat(found)


def path_lengths(trajectory: Transform) -> Tensor:
    """Return how far the body has come at each pose, along straight lines from pose to pose.

    Args:
        trajectory: poses (N,).

    Returns:
        Shape (N,), float64, ascending from 0, in the units of the positions. At a pose that is not finite,
        that of the last finite one. Not differentiable.

    Raises:
        ValueError: if `trajectory` is a batch.
        TypeError: if `trajectory` is not a `Transform`.

    Example:
        >>> import torch, svdrot
        >>> position = torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [3.0, 4.0, 1.0]])
        >>> walk = svdrot.Transform(torch.eye(3).expand(3, 3, 3), position, torch.ones(3))
        >>> svdrot.evaluation.trajectories.path_lengths(walk)
        tensor([0., 5., 6.], dtype=torch.float64)
    """
    check_one(trajectory)
    live = finite(trajectory)
    position = trajectory.translation.detach().double()
    path = position.new_zeros(len(position))
    steps = torch.linalg.vector_norm(position[live].diff(dim=0), dim=-1)
    path[live.nonzero()[1:, 0]] = steps
    return path.cumsum(0)


def finite(trajectory: Transform) -> Tensor:
    """Tell which poses have a finite position and orientation, boolean, shape (..., N)."""
    rotation, translation = trajectory.rotation.detach(), trajectory.translation.detach()
    return rotation.isfinite().all(-1).all(-1) & translation.isfinite().all(-1)


def check_one(trajectory: Transform, name: str = "trajectory") -> None:
    """Raise unless `trajectory` is one of poses (N,)."""
    check_transform(name, trajectory)
    if trajectory.translation.ndim != 2:
        raise ValueError(
            f"`{name}` must be one trajectory, translations (N, 3); got translations "
            f"{tuple(trajectory.translation.shape)}."
        )


def check_pairs(pairs: Tensor) -> None:
    """Raise unless `pairs` are integers (P, 2)."""
    if not isinstance(pairs, Tensor):
        raise TypeError(f"`pairs` must be a tensor; got {type(pairs).__name__}.")
    integer = not (pairs.is_floating_point() or pairs.is_complex() or pairs.dtype == torch.bool)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not integer:
        raise ValueError(f"`pairs` must be integers of shape (P, 2); got {pairs.dtype} {tuple(pairs.shape)}.")


def _check_delta(delta: float) -> None:
    if not delta > 0:
        raise ValueError(f"`delta` must be positive; got {delta}.")
