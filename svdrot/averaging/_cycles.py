"""Agreement of each relative rotation with others: the best of the short cycles that it closes.

An edge (i, j) closes a cycle with each path of one, two or three other edges, i, a, b, j, and without noise
$R_{ij} = R_{ia} R_{ab} R_{bj}$. The variance of the angle between the two sides is the sum of the variances
of the edges. One wrong edge spoils all cycles through it; a right one has some without.
"""

import torch
from torch import Tensor

SIDES = 6  # edges of a node that are tried: so many squared cycles at most for each edge
BLOCK = 1 << 14  # edges at a time


def best_cycles(i: Tensor, j: Tensor, relative: Tensor, weights: Tensor) -> Tensor:
    """Return the square of the angle left over in the best cycle of each edge, over its variance, (E,).

    Infinite for an edge without any cycle.

    Args:
        i: nodes, (E,).
        j: nodes, (E,), different from those of `i`.
        relative: from j to i, (E, 3, 3).
        weights: inverse variances, (E,), positive.
    """
    edges, variance = len(i), 1 / weights
    best = torch.full((edges,), torch.inf, dtype=torch.float64, device="cpu")
    if not edges:
        return best
    count = int(torch.maximum(i, j).max()) + 1
    # Every edge from both of its ends, in the order of (from, to): `end` is where such a side leads, `turns`
    # its rotation, `edge` which edge it is, and `first` the place of the first side of each node.
    begin, end = torch.cat((i, j)), torch.cat((j, i))
    key, order = (begin * count + end).sort(stable=True)
    end, turns, edge = end[order], torch.cat((relative, relative.mT))[order], order % edges
    first = torch.searchsorted(key, torch.arange(count, device="cpu") * count)
    # (nodes, SIDES): the sides of each node that are tried, evenly spread over all if there are more.
    slot, degree = torch.arange(SIDES, device="cpu"), torch.bincount(begin, minlength=count)[:, None]
    slot = torch.where(degree > SIDES, slot * degree // SIDES, slot)
    exists = slot < degree
    sides = torch.where(exists, first[:, None] + slot, 0)

    def agree(path: Tensor, direct: Tensor, members: list[Tensor], spread: Tensor) -> None:
        """All edges of a good cycle are good. Half of the squared chord is the square of a small angle."""
        nonlocal best
        squared = (path - direct).square().sum((-2, -1)) / 2 / spread
        for member in members:
            best = best.scatter_reduce(0, member, squared, "amin")

    # Cycles of two: equal keys are edges between the same nodes, and lie next to each other.
    for step in range(1, SIDES):
        (at,) = (key[step:] == key[:-step]).nonzero(as_tuple=True)
        pair = [edge[at], edge[at + step]]
        agree(turns[at + step], turns[at], pair, variance[pair[0]] + variance[pair[1]])
    # Cycles of three and four: for each edge (i, j) a side u from i to a and a side v from j to b, all pairs
    # of them, (block, SIDES, SIDES); the cycle closes if a = b, or if there is a side from a to b. Neither
    # may lead along the edge itself.
    for block in torch.arange(edges, device="cpu").split(BLOCK):
        u, v = sides[i[block], :, None], sides[j[block], None, :]
        a, b = end[u], end[v]
        closing = torch.searchsorted(key, a * count + b).clamp(max=len(key) - 1)
        paths = exists[i[block], :, None] & exists[j[block], None, :]
        paths &= (a == b) | (key[closing] == a * count + b)
        paths &= (a != j[block, None, None]) & (b != i[block, None, None])
        row, s, t = paths.nonzero(as_tuple=True)
        at, u, v, closing = block[row], u[row, s, 0], v[row, 0, t], closing[row, s, t]
        apart = end[u] != end[v]
        across = torch.where(
            apart[:, None, None], turns[closing], torch.eye(3, dtype=turns.dtype, device="cpu")
        )
        spread = variance[at] + variance[edge[u]] + variance[edge[v]]
        spread += torch.where(apart, variance[edge[closing]], 0)
        members = [at, edge[u], edge[v], torch.where(apart, edge[closing], at)]
        agree(turns[u] @ across @ turns[v].mT, relative[at], members, spread)
    return best
