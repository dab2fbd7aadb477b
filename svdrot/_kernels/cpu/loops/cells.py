# pyright: reportUndefinedVariable=false
"""Points of a cloud in cubic cells, for numba. Float64.

A cell is floor(x / edge). Its key is one integer, (i w1 + j) w2 + k, with i, j, k counted from the first
cell of a grid (first i, j, k, widths w0, w1, w2). Cells are found by a table with open addressing, of
2^bits slots, that holds -1 or the number of a cell: one pass over the points, and memory for cells, not for
points.
"""

from typing import Any

import torch

# Points, their number, grid, edge, table, bits, keys, most cells.
TABLE = ("pointer", "intp", "pointer", "double", "pointer", "intp", "pointer", "intp")
KERNELS = {
    # ..., how many cells there are
    "count_cells": (*TABLE, "pointer", "pointer", "intp", "intp"),
    # ..., sums of the coordinates and number of the points of each cell, next point and cells so far
    "fill_cells": (*TABLE, "pointer", "pointer", "pointer", "intp", "intp"),
}
EMPTY = -1
GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 over the golden ratio, as a signed number


def count_cells(points, n, grid, edge, table, bits, keys, most, state, scratch, start, stop):
    """Set how many cells the points fill; no more are counted than `most`."""
    x, g, slots = carray(points, (n, 3)), carray(integers(grid), (6,)), carray(integers(table), (1 << bits,))
    key, filled = carray(integers(keys), (most,)), 0
    before = EMPTY
    for i in range(n):
        wanted = key_of(x[i, 0], x[i, 1], x[i, 2], g, edge)
        if wanted != before and filled < most:
            before = wanted
            slot = slot_of(wanted, slots, key, bits)
            if slots[slot] == EMPTY:
                slots[slot], key[filled] = filled, wanted
                filled += 1
    carray(integers(state), (1,))[0] = filled


def fill_cells(points, n, grid, edge, table, bits, keys, most, sums, state, scratch, start, stop):
    """Add points to the sums of their cells, until `most` cells are full or no point is left: see `state`."""
    x, g, slots = carray(points, (n, 3)), carray(integers(grid), (6,)), carray(integers(table), (1 << bits,))
    key, total, at = carray(integers(keys), (most,)), carray(sums, (most, 4)), carray(integers(state), (2,))
    i, filled = at[0], at[1]
    while i < n:
        wanted = key_of(x[i, 0], x[i, 1], x[i, 2], g, edge)
        slot = slot_of(wanted, slots, key, bits)
        cell = slots[slot]
        if cell == EMPTY:
            if filled == most:
                break
            cell = filled
            slots[slot], key[cell] = cell, wanted
            for a in range(4):
                total[cell, a] = ZERO
            filled += 1
        for a in range(3):
            total[cell, a] += x[i, a]
        total[cell, 3] += ONE
        i += 1
    at[0], at[1] = i, filled


def key_of(x, y, z, g, edge):
    i, j, k = int(floor(x / edge)) - g[0], int(floor(y / edge)) - g[1], int(floor(z / edge)) - g[2]
    return (i * g[4] + j) * g[5] + k


def slot_of(wanted, slots, key, bits):
    """Where a key is, or would be."""
    mask = (1 << bits) - 1
    slot = ((wanted * GOLDEN) >> (64 - bits)) & mask
    while slots[slot] != EMPTY and key[slots[slot]] != wanted:
        slot = (slot + 1) & mask
    return slot


HELPERS = (key_of, slot_of)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    import math

    from svdrot._kernels.cpu.compiler.simd import integers

    words = {"integers": integers, "floor": math.floor, "GOLDEN": GOLDEN, "EMPTY": EMPTY}
    return words | {"ZERO": scalar(0), "ONE": scalar(1)}
