# pyright: reportUndefinedVariable=false
"""Pairs of points that keep their distance, as a graph of bits, and sets of them, for numba. Float32.

Two pairs agree if the distance of their sources and that of their targets differ by less than a threshold.
The weight of an edge is how many others agree with both ends, one pass of `and` and of counts over two rows
of bits (Chen et al. 2022, "SC2-PCR: A Second Order Spatial Compatibility for Efficient and Robust Point
Cloud Registration").
"""

from typing import Any

import torch

GENERATIONS = 20  # of the replicator dynamics
MOST = 2048  # pairs
WORDS = MOST // 64

KERNELS = {
    # sources (3, n), targets (3, n), n, square of the threshold, rows of bits, neighbors of each pair
    "agreement_graph": (
        "pointer",
        "pointer",
        "intp",
        "double",
        "pointer",
        "pointer",
        "pointer",
        "intp",
        "intp",
    ),
    # bits, n, seeds, size of a set, members, shares
    "agreeing_sets": ("pointer", "intp", "pointer", "intp", "pointer", "pointer", "pointer", "intp", "intp"),
}
LARGEST = 32  # set
SCRATCH = 4 * MOST + LARGEST * (LARGEST + 1)  # two rows of integers, the edges within a set and its shares


def agreement_graph(source, target, n, limit, graph, degrees, scratch, start, stop):
    """Row i has bit j of word k set if the pairs i and 64 k + j agree: for their distances a and b,
    |limit - a² - b²| < 2 a b, squared.
    """
    use_widest_vectors()
    x, y = carray(source, (3, n)), carray(target, (3, n))
    words = (n + 63) >> 6
    bit, degree = carray(integers(graph), (stop, words)), carray(integers(degrees), (stop,))
    agrees = carray(scratch, (MOST,))
    for j in range(n, words << 6):
        agrees[j] = dtype(0)
    within = dtype(limit)
    for i in range(start, stop):
        a0, a1, a2, b0, b1, b2 = x[0, i], x[1, i], x[2, i], y[0, i], y[1, i], y[2, i]
        for j in range(n):
            u, v, w = x[0, j] - a0, x[1, j] - a1, x[2, j] - a2
            a = u * u + v * v + w * w
            u, v, w = y[0, j] - b0, y[1, j] - b1, y[2, j] - b2
            b = u * u + v * v + w * w
            rest = within - a - b
            agrees[j] = where(rest * rest < dtype(4) * a * b, dtype(1), dtype(0))
        total = 0
        for k in range(words):
            bits = 0
            for j in range(64):
                bits |= int(agrees[(k << 6) + j]) << j
            bit[i, k] = bits
            total += ones(bits)
        degree[i] = total


def agreeing_sets(graph, n, seeds, size, members, shares, scratch, start, stop):
    """For each seed it and those that agree with it and most of its neighbors, and their shares of a clique.

    Past the end of a smaller set, the seed again with a share of 0.
    """
    words = (n + 63) >> 6
    bit, seed_ = carray(integers(graph), (n, words)), carray(integers(seeds), (stop,))
    member, share = carray(integers(members), (stop, size)), carray(shares, (stop, size))
    weight, at = carray(integers(scratch), (2 * MOST,))[:MOST], carray(integers(scratch), (2 * MOST,))[MOST:]
    work = carray(scratch, (SCRATCH,))[4 * MOST :]
    for s in range(start, stop):
        seed, count = seed_[s], 0
        for k in range(words):
            bits = bit[seed, k]
            while bits != 0:
                low = bits & -bits
                j = (k << 6) + ones(low - 1)
                bits ^= low
                common = 0
                for l in range(words):
                    common += ones(bit[seed, l] & bit[j, l])
                weight[count], at[count] = common, j
                count += 1
        live = min(size, count + 1)
        for k in range(size):
            member[s, k] = seed
            share[s, k] = dtype(1) if k < live else dtype(0)
        for k in range(1, live):
            best = k - 1
            for c in range(k - 1, count):
                if weight[c] > weight[best]:
                    best = c
            member[s, k] = at[best]
            weight[best], at[best] = weight[k - 1], at[k - 1]
        reduce_to_clique(bit, member[s], share[s], live, work, work[size * size :])


def reduce_to_clique(bit, member, share, live, within, grown):
    """Replicator dynamics: who agrees with more of the others grows."""
    for a in range(live):
        for b in range(live):
            i, j = member[a], member[b]
            within[a * live + b] = dtype((bit[i, j >> 6] >> (j & 63)) & 1)
    for _ in range(GENERATIONS):
        total = dtype(0)
        for a in range(live):
            support = dtype(0)
            for b in range(live):
                support += within[a * live + b] * share[b]
            grown[a] = share[a] * support
            total += grown[a]
        factor = where(total > dtype(0), dtype(1) / where(total > dtype(0), total, dtype(1)), dtype(0))
        for a in range(live):
            share[a] = grown[a] * factor


HELPERS = (reduce_to_clique,)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    from svdrot._kernels.cpu.compiler.simd import integers, ones

    return {
        "dtype": scalar,
        "MOST": MOST,
        "SCRATCH": SCRATCH,
        "GENERATIONS": GENERATIONS,
        "integers": integers,
        "ones": ones,
    }
