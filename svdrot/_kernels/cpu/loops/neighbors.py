# pyright: reportUndefinedVariable=false, reportPrivateImportUsage=false
"""A tree of boxes over points in space, and the search of nearest neighbors in it, for numba.

The tree is binary and complete: node h has the children 2 h and 2 h + 1, the root is 1, and the leaves are
2^depth to 2^(depth + 1) - 1. The depth is even: a search goes down two levels at a time, and the boxes of the
nodes 4 g to 4 g + 3 lie side by side, each of their bounds in a vector. Of n points in the order of the tree,
node j of a level of 2^l holds those from n j / 2^l to n (j + 1) / 2^l, so that nothing but the box about them
is stored. Boxes are tight: where a scan leaves space empty, no box reaches, and a query far from the surface
looks into four leaves, not into the 170 that the half-spaces of a k-d tree leave it (two fragments of a
kitchen, 50 degrees apart).
"""

import math
from typing import Any

import torch

LEAF = 28  # points at most, and a quarter of them at least: 16 took 10 % longer

KERNELS = {
    "plant": ("pointer", "pointer", "pointer", "intp", "intp"),
    "search": (
        *("pointer", "pointer", "pointer", "intp", "intp", "pointer", "intp", "double"),
        *("pointer", "pointer", "pointer", "intp", "intp"),
    ),
    "follow": (
        *("pointer", "pointer", "pointer", "intp", "intp", "pointer", "pointer", "pointer", "pointer"),
        *("double", "pointer", "pointer", "pointer", "pointer", "pointer", "pointer"),
        *("pointer", "intp", "intp"),
    ),
}
LEVELS = 64  # of the tree at most
SCRATCH = 2 * LEVELS + 2  # numbers that a search needs


def plant(points, order, boxes, n, depth):
    """Bring points (n, 3) into the order of the tree, `order` with them, and set boxes (2^(depth + 1), 6)."""
    x, rank, box = carray(points, (n, 3)), carray(integers(order), (n,)), groups(boxes, depth)
    for level in range(depth):
        for j in range(1 << level):
            start, stop = n * j >> level, n * (j + 1) >> level
            k = n * (2 * j + 1) >> (level + 1)
            part(x, rank, start, stop, k, widest(x, start, stop))
    leaves = 1 << depth
    for j in range(leaves):
        start, stop = n * j >> depth, n * (j + 1) >> depth
        h = leaves + j
        for a in range(3):
            box[h >> 2, a, h & 3], box[h >> 2, a + 3, h & 3] = extent(x, start, stop, a)
    for h in range(leaves - 1, 0, -1):
        g, l = 2 * h >> 2, 2 * h & 3
        for a in range(3):
            box[h >> 2, a, h & 3] = min(box[g, a, l], box[g, a, l + 1])
            box[h >> 2, a + 3, h & 3] = max(box[g, a + 3, l], box[g, a + 3, l + 1])


def groups(boxes, depth):
    """Boxes, 6 bounds, four of them; a tree of one node has a group, too."""
    return carray(boxes, (max(1, (2 << depth) >> 2), 6, 4))


def extent(x, start, stop, a):
    least = most = x[start, a]
    for i in range(start, stop):
        least, most = min(least, x[i, a]), max(most, x[i, a])
    return least, most


def widest(x, start, stop):
    """The coordinate in which points reach farthest."""
    best, width = 0, -ONE
    for a in range(3):
        least, most = extent(x, start, stop, a)
        if most - least > width:
            best, width = a, most - least
    return best


def part(x, rank, start, stop, k, a):
    """Quickselect: no point before row k has a larger coordinate `a` than any from there on."""
    first, last = start, stop - 1
    while first < last:
        p, q, r = x[first, a], x[(first + last) >> 1, a], x[last, a]
        pivot = max(min(p, q), min(max(p, q), r))
        i, j = first, last
        while i <= j:
            while x[i, a] < pivot:
                i += 1
            while x[j, a] > pivot:
                j -= 1
            if i <= j:
                for b in range(3):
                    x[i, b], x[j, b] = x[j, b], x[i, b]
                rank[i], rank[j] = rank[j], rank[i]
                i += 1
                j -= 1
        if k <= j:
            last = j
        elif k >= i:
            first = i
        else:
            break


def search(points, boxes, order, n, depth, queries, k, limit, distances, indices, scratch, start, stop):
    """For each query the k points nearest to it by less than the root of `limit`, in order: distances,
    infinite where there is none, and what `order` holds at their places in the tree, at n if there is none.

    A query that is not finite finds nothing.
    """
    x, box, q = carray(points, (n, 3)), groups(boxes, depth), carray(queries, (stop, 3))
    rank, stack = carray(integers(order), (n + 1,)), carray(scratch, (2, LEVELS))
    found, at = carray(distances, (stop, k)), carray(integers(indices), (stop, k))
    for i in range(start, stop):
        for slot in range(k):
            found[i, slot], at[i, slot] = INFINITY, n
        find(x, box, n, depth, q[i, 0], q[i, 1], q[i, 2], k, dtype(limit), found[i], at[i], stack)
        for slot in range(k):
            found[i, slot], at[i, slot] = sqrt(found[i, slot]), rank[at[i, slot]]


def follow(
    points, boxes, order, n, depth, queries, turns, rotation, translation, limit,
    anchors, bounds, places, moved, distances, indices, scratch, start, stop,
):  # fmt: skip
    """Where a motion takes the queries and the point nearest to each there, as `search` finds it with k = 1.

    A query was last searched for at its anchor, where all points but the nearest were farther than its bound:
    nearer to its old neighbor than that, less its way since, it keeps it, and near the end of an alignment
    nearly all do. What must be searched for lies no farther than the two nearest of before, at `places`.
    Queries take their `turns`: one near the last finds its way in the caches, and its branches predicted.
    """
    x, box, q = carray(points, (n, 3)), groups(boxes, depth), carray(queries, (stop, 3))
    r, t, rank = carray(rotation, (3, 3)), carray(translation, (3,)), carray(integers(order), (n + 1,))
    anchor, bound = carray(anchors, (stop, 3)), carray(bounds, (stop,))
    at, index = carray(integers(places), (stop, 2)), carray(integers(indices), (stop,))
    now, distance = carray(moved, (stop, 3)), carray(distances, (stop,))
    stack, found = carray(scratch, (2, LEVELS)), carray(scratch, (LEVELS + 1, 2))[LEVELS]
    turn = carray(integers(turns), (stop,))
    for row in range(start, stop):
        i = turn[row]
        for k in range(3):
            now[i, k] = r[k, 0] * q[i, 0] + r[k, 1] * q[i, 1] + r[k, 2] * q[i, 2] + t[k]
        a, b, c = now[i, 0], now[i, 1], now[i, 2]
        worst = dtype(limit)
        if at[i, 0] < n:
            place = at[i, 0]
            near = squared(x[place, 0] - a, x[place, 1] - b, x[place, 2] - c)
            way = squared(anchor[i, 0] - a, anchor[i, 1] - b, anchor[i, 2] - c)
            if near < worst and (sqrt(near) + sqrt(way)) * SURELY < bound[i]:
                distance[i], index[i] = sqrt(near), rank[place]
                continue
            if at[i, 1] < n:
                place = at[i, 1]
                far = squared(x[place, 0] - a, x[place, 1] - b, x[place, 2] - c)
                worst = min(worst, max(near, far) * SURELY)
        found[0] = found[1] = limit
        at[i, 0] = at[i, 1] = n
        find(x, box, n, depth, a, b, c, 2, worst, found, at[i], stack)
        anchor[i, 0], anchor[i, 1], anchor[i, 2] = a, b, c
        bound[i] = sqrt(found[1])
        distance[i] = sqrt(found[0]) if at[i, 0] < n else INFINITY
        index[i] = rank[at[i, 0]]


def find(x, box, n, depth, a, b, c, k, worst, found, at, stack):
    """Squared distances and places of the k points nearest to (a, b, c)."""
    leaves, p = 1 << depth, (a, b, c)
    zero = ONE - ONE
    stack[0, 0], stack[1, 0] = ONE, zero
    top = 1 if a * zero + b * zero + c * zero == zero else 0
    while top > 0:
        top -= 1
        if stack[1, top] >= worst:
            continue
        h = int(stack[0, top])
        while h < leaves:
            g = box[h]
            away = outside(g, 0, p), outside(g, 1, p), outside(g, 2, p), outside(g, 3, p)
            near, nearest = away[0], 0
            for l in range(1, 4):
                if away[l] < near:
                    near, nearest = away[l], l
            for l in range(4):
                if l != nearest and away[l] < worst:
                    stack[0, top], stack[1, top] = 4 * h + l, away[l]
                    top += 1
            h = 4 * h + nearest
            if near >= worst:
                break
        else:
            for row in range(n * (h - leaves) >> depth, n * (h - leaves + 1) >> depth):
                square = squared(x[row, 0] - a, x[row, 1] - b, x[row, 2] - c)
                if square < worst:
                    slot = k - 1
                    while slot > 0 and square < found[slot - 1]:
                        found[slot], at[slot] = found[slot - 1], at[slot - 1]
                        slot -= 1
                    found[slot], at[slot] = square, row
                    worst = min(worst, found[k - 1])


def squared(u, v, w):
    return u * u + v * v + w * w


def outside(box, l, p):
    """The square of the distance from a point to the box l of a group."""
    zero = ONE - ONE
    u = max(max(box[0, l] - p[0], p[0] - box[3, l]), zero)
    v = max(max(box[1, l] - p[1], p[1] - box[4, l]), zero)
    w = max(max(box[2, l] - p[2], p[2] - box[5, l]), zero)
    return squared(u, v, w)


HELPERS = (groups, extent, widest, part, squared, outside, find)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    from svdrot._kernels.cpu.compiler.simd import integers

    words = {"LEVELS": LEVELS, "INFINITY": math.inf, "SURELY": 1 + 1e-12}  # which covers the rounding
    return words | {"dtype": scalar, "ONE": scalar(1), "integers": integers}
