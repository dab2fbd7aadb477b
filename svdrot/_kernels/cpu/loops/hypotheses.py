# pyright: reportUndefinedVariable=false
"""What robust estimation does for every hypothesis with every correspondence, for numba.

Correspondences are seven rows of n numbers: the source's coordinates, the target's, and weights.
"""

from typing import Any

import torch

AGREEING = 512  # pairs that agree with a seed, at most, among which its set is looked for
GENERATIONS = 30  # steps of the replicator dynamics

# What the kernels take; see `loops`.
KERNELS = {
    # hypotheses, costs, pairs, their number, square of the threshold, scratch, from, to
    "truncated_costs": ("pointer", "pointer", "pointer", "intp", "double", "pointer", "intp", "intp"),
    # seeds, members, shares, size of a set, pairs, their number, square of the threshold, scratch, from, to
    "consistent_sets": (
        *("pointer", "pointer", "pointer", "intp", "pointer", "intp", "double", "pointer", "intp", "intp"),
    ),
}


def scratch(size: int) -> int:
    """Numbers: coordinates, place and votes of what agrees with a seed, and the agreement within a set."""
    return 8 * AGREEING + size * (size + 1)


def truncated_costs(hypotheses, costs, pairs, n, limit, scratch, start, stop):
    """Sums of w min(|A x + t - y|², limit) for hypotheses (A, t), rows of 9 + 3 numbers."""
    use_widest_vectors()
    h, cost, p = carray(hypotheses, (stop, 12)), carray(costs, (stop,)), carray(pairs, (7, n))
    limit_ = dtype(limit)
    for row in range(start, stop):
        a, b, c = (
            (h[row, 0], h[row, 1], h[row, 2]),
            (h[row, 3], h[row, 4], h[row, 5]),
            (h[row, 6], h[row, 7], h[row, 8]),
        )
        s, t, r = h[row, 9], h[row, 10], h[row, 11]
        total = dtype(0)
        for i in range(n):
            x, y, z = p[0, i], p[1, i], p[2, i]
            u = a[0] * x + a[1] * y + a[2] * z + s - p[3, i]
            v = b[0] * x + b[1] * y + b[2] * z + t - p[4, i]
            w = c[0] * x + c[1] * y + c[2] * z + r - p[5, i]
            squared = u * u + v * v + w * w
            total += p[6, i] * (squared if squared < limit_ else limit_)
        cost[row] = total


def consistent_sets(seeds, members, shares, size, pairs, n, limit, scratch, start, stop):
    """For each seed, a place among the pairs, those that agree best with it and with each other.

    Of the first `AGREEING` pairs that agree with the seed, the `size` - 1 that agree with most of the others;
    then their shares and the seed's under replicator dynamics. Past the end of a smaller set, the seed again
    with a share of 0.
    """
    use_widest_vectors()
    s, p = carray(seeds, (stop,)), carray(pairs, (7, n))
    set_, share = carray(members, (stop, size)), carray(shares, (stop, size))
    near = carray(scratch, (8, AGREEING))
    within = carray(scratch, (8 * AGREEING + size * (size + 1),))[8 * AGREEING :]
    grown = within[size * size :]
    limit_ = dtype(limit)
    for row in range(start, stop):
        seed = int(s[row])
        live = 0
        for i in range(n):
            if live < AGREEING and agree(p, seed, p, i, limit_):
                for k in range(6):
                    near[k, live] = p[k, i]
                near[6, live] = dtype(i)
                live += 1
        for i in range(live):
            total = dtype(0)
            for j in range(live):
                total += dtype(1) if agree(near, i, near, j, limit_) else dtype(0)
            near[7, i] = total

        count = min(size, 1 + live)
        for k in range(size):
            set_[row, k] = s[row]
        for k in range(1, count):
            best = 0
            for i in range(live):
                if near[7, i] > near[7, best]:
                    best = i
            set_[row, k] = near[6, best]
            near[7, best] = dtype(-1)

        for i in range(size):
            share[row, i] = dtype(1) if i < count else dtype(0)
            for j in range(size):
                both = agree(p, int(set_[row, i]), p, int(set_[row, j]), limit_)
                within[i * size + j] = dtype(1) if both else dtype(0)
        for _ in range(GENERATIONS):
            total = dtype(0)
            for i in range(count):
                support = dtype(0)
                for j in range(count):
                    support += within[i * size + j] * share[row, j]
                grown[i] = share[row, i] * support
                total += grown[i]
            # Not a branch that sets them to zero: LLVM makes it a call of memset, which is not linked.
            factor = dtype(1) / (total if total > dtype(0) else dtype(1))
            for i in range(count):
                share[row, i] = grown[i] * factor


def agree(p, i, q, j, limit):
    """Whether the distances of two points in source and target, a and b, differ by less than the root of
    `limit`, and add to more: |limit - a² - b²| < 2 a b, squared."""
    x, y, z = p[0, i] - q[0, j], p[1, i] - q[1, j], p[2, i] - q[2, j]
    u, v, w = p[3, i] - q[3, j], p[4, i] - q[4, j], p[5, i] - q[5, j]
    a, b = x * x + y * y + z * z, u * u + v * v + w * w
    rest = limit - a - b
    return rest * rest < dtype(4) * a * b


HELPERS = (agree,)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    return {"dtype": scalar, "AGREEING": AGREEING, "GENERATIONS": GENERATIONS}
