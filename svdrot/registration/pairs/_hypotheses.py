"""Many hypotheses at a time, for robust estimators: cost them, and descend from the best of them.

The truncated cost of a transform T is the sum of w min(|T x - y|², threshold²) over the pairs. What cannot be
improved by a least-squares fit to its own inliers is a fixed point of `descend`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from svdrot import _kernels
from svdrot._kernels import cpu
from svdrot._kernels.cpu.loops import hypotheses
from svdrot.registration.pairs.procrustes import Alignment, kabsch, umeyama
from svdrot.transform import Transform

BLOCK = 1 << 20  # pairs of a hypothesis and a correspondence held at a time, where there is no kernel
DESCENTS = 8  # hypotheses that are improved; only the best one until nothing changes
FIRST, MOST = 3, 50  # steps


@dataclass(frozen=True)
class Selection:
    """Hold what a robust method selects, from a problem or a batch (...), for the least-squares fit."""

    weights: Tensor  # (..., N), 0 for what is left out
    iterations: Tensor  # (...), integers
    settled: Tensor  # (...), whether it ended at a fixed point, and not for want of steps or hypotheses


@dataclass(frozen=True)
class Pairs:
    """Hold the correspondences of one problem, float64, all finite."""

    x: Tensor  # (N, 3)
    y: Tensor  # (N, 3)
    w: Tensor  # (N,), positive
    threshold: float
    scaled: bool

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> "Pairs":
        return Pairs(self.x[index], self.y[index], self.w[index], self.threshold, self.scaled)

    def fit(self, weights: Tensor) -> Alignment:
        return (umeyama if self.scaled else kabsch)(self.x, self.y, weights)


def squared_residuals(transform: Transform, x: Tensor, y: Tensor) -> Tensor:
    """Return |T x - y|², shape (..., N)."""
    return (transform.apply(x) - y).square().sum(-1)


def truncated_costs(transform: Transform, pairs: Pairs) -> Tensor:
    """Return the truncated cost of each of H transforms, shape (H,)."""
    linear = transform.scale[:, None, None] * transform.rotation
    rows = torch.cat((linear.flatten(1), transform.translation), 1)
    limit = pairs.threshold**2
    if _kernels.side(rows) == "cpu":
        costs = torch.empty_like(rows[:, 0])
        n, packed = len(pairs), _packed(pairs)
        cpu.run_rows("truncated_costs", rows.dtype, len(rows), n, (rows, costs, packed, n, limit), 1, 1)
        return costs
    return torch.cat([_truncated_costs(part, pairs, limit) for part in rows.split(_step(len(pairs)))])


def _truncated_costs(rows: Tensor, pairs: Pairs, limit: float) -> Tensor:
    moved = pairs.x @ rows[:, :9].unflatten(1, (3, 3)).mT + rows[:, None, 9:]
    return (moved - pairs.y).square().sum(-1).clamp_max(limit) @ pairs.w


def consistent_sets(seeds: Tensor, size: int, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Find for each seed a set of pairs that agree with it and with each other.

    Two pairs agree if the distances |x_i - x_j| and |y_i - y_j| differ by less than the threshold and add to
    more. Of the first 512 pairs that agree with the seed come the `size` - 1 that agree with most of the
    others. Then shares grow in proportion to the shares of what they agree with, which leaves those of a
    clique and lets the others die out. Where there are fewer members, the seed itself has the share 0.

    Args:
        seeds: indices into `pairs`, (S,).
        size: of a set, the seed included.
        pairs: of the problem.

    Returns:
        The indices of the members, and their shares of the set, (S, size) each.
    """
    limit = pairs.threshold**2
    if _kernels.side(seeds) == "cpu":
        members, shares = torch.empty(2, len(seeds), size, dtype=pairs.x.dtype, device="cpu")
        n, packed = len(pairs), _packed(pairs)
        arguments = (seeds.to(packed.dtype), members, shares, size, packed, n, limit)
        work = n + hypotheses.AGREEING**2 // 4
        scratch = hypotheses.scratch(size)
        cpu.run_rows("consistent_sets", packed.dtype, len(seeds), work, arguments, scratch, 1)
        return members.long(), shares
    parts = [consistent_sets_reference(part, size, pairs) for part in seeds.split(_step(len(pairs)))]
    members, shares = (torch.cat(part) for part in zip(*parts, strict=True))
    return members, shares


def consistent_sets_reference(seeds: Tensor, size: int, pairs: Pairs) -> tuple[Tensor, Tensor]:
    near = agreement(pairs.x[seeds, None], pairs.y[seeds, None], pairs.x, pairs.y, pairs.threshold)[:, 0]
    near &= near.cumsum(1) <= hypotheses.AGREEING
    # Candidates of each seed: first those that agree, in the order of the pairs, as `there` says.
    width = min(max(size - 1, int(near.sum(1).max())), len(pairs))
    there, index = torch.sort(near.to(torch.int8), dim=1, descending=True, stable=True)
    there, index = there[:, :width] > 0, index[:, :width]
    x, y = pairs.x[index], pairs.y[index]
    votes = (agreement(x, y, x, y, pairs.threshold) & there[:, None]).sum(2)
    votes, best = torch.sort(torch.where(there, votes, -1), dim=1, descending=True, stable=True)
    # The seed, then the candidates of most votes; missing ones are the seed once more, with the share 0.
    members = torch.cat((seeds[:, None], index.gather(1, best)), 1)[:, :size]
    there = torch.cat((torch.ones_like(seeds[:, None]), votes + 1), 1)[:, :size] > 0
    members = torch.where(there, members, seeds[:, None])
    missing = size - members.shape[1]
    members = torch.cat((members, seeds[:, None].expand(-1, missing)), 1)
    there = torch.nn.functional.pad(there, (0, missing))
    x, y = pairs.x[members], pairs.y[members]
    within = agreement(x, y, x, y, pairs.threshold).to(x.dtype)
    shares = there.to(x.dtype)
    for _ in range(hypotheses.GENERATIONS):
        grown = shares * (within @ shares[..., None])[..., 0]
        total = grown.sum(1, keepdim=True)
        shares = torch.where(total > 0, grown / torch.where(total > 0, total, 1), 0)
    return members, shares


def agreement(x: Tensor, y: Tensor, other_x: Tensor, other_y: Tensor, threshold: float) -> Tensor:
    """Tell which of the pairs (..., N, 3) agree with which others (..., M, 3): boolean, shape (..., N, M)."""
    a = (x[..., :, None, :] - other_x[..., None, :, :]).square().sum(-1)
    b = (y[..., :, None, :] - other_y[..., None, :, :]).square().sum(-1)
    return (threshold**2 - a - b).square() < 4 * a * b


def _packed(pairs: Pairs) -> Tensor:
    return torch.cat((pairs.x.mT, pairs.y.mT, pairs.w[None]))


def _step(n: int) -> int:
    return max(1, BLOCK // max(1, n))


def improved(transform: Transform, pairs: Pairs) -> tuple[Tensor, Selection]:
    """Descend from the best of H transforms; return the truncated cost at the end, and the selection."""
    top = truncated_costs(transform, pairs).topk(min(DESCENTS, len(transform.scale)), largest=False).indices
    near, _, steps, _ = descend(take(transform, top), pairs, FIRST)
    best = truncated_costs(near, pairs).argmin()[None]
    end, weights, more, settled = descend(take(near, best), pairs, MOST)
    number, end_ = (torch.tensor(value, device="cpu") for value in (steps + more, settled))
    selection = Selection(weights[0], number, end_)
    return truncated_costs(end, pairs)[0], selection


def descend(transform: Transform, pairs: Pairs, most: int) -> tuple[Alignment, Tensor, int, bool]:
    """Fit to the inliers of the last fit, until they stay the same: the truncated cost never grows.

    With the last fit come its weights, the steps, and whether they stayed the same.
    """
    limit = pairs.threshold**2
    inliers = squared_residuals(transform, pairs.x, pairs.y) <= limit
    step = 0
    while True:
        step += 1
        fit = pairs.fit(pairs.w * inliers)
        after = squared_residuals(fit, pairs.x, pairs.y) <= limit
        if torch.equal(after, inliers) or step == most:
            return fit, pairs.w * inliers, step, torch.equal(after, inliers)
        inliers = after


def take(transform: Transform, index: Tensor) -> Transform:
    return Transform(transform.rotation[index], transform.translation[index], transform.scale[index])
