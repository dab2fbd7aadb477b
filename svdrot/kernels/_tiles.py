# pyright: reportUndefinedVariable=false, reportPrivateImportUsage=false
"""The loops of the CPU backend, for numba: transpose a tile, one SIMD loop over its lanes, transpose back."""

from typing import Any

import numpy as np
import torch

from . import so3

LANES = 64  # matrices in a tile, always computed whole: a result does not depend on its place in the batch
SCRATCH = 28 * LANES  # numbers that a kernel needs for its tiles

# What each kernel takes: matrices by address, the damping, the scratch by address, and the rows from, to.
KERNELS = {
    "project": ("pointer", "pointer", "pointer", "intp", "intp"),
    "project_either": ("pointer", "pointer", "pointer", "intp", "intp"),
    "project_plane": ("pointer", "pointer", "intp", "pointer", "intp", "intp"),
    "differentiate": ("pointer", "pointer", "pointer", "pointer", "double", "pointer", "intp", "intp"),
    "measure_gap": ("pointer", "pointer", "pointer", "pointer", "intp", "intp"),
}

# Vectors that a loop takes at a time: one computes while the other waits. 4,096 projections take 45 us, not
# 68, in float32, and 107, not 148, in float64; the differential gains nothing.
INTERLEAVE = {"project": 2, "project_either": 2}


def project(m, r, scratch, start, stop):
    use_widest_vectors()
    x = carray(scratch, (9, LANES))
    for row in range(start, stop, LANES):
        read(m, row, stop, scratch, 0)
        for i in range(LANES):
            a, b, c = columns(x, i)
            a, b, c = nearest_rotation(a, b, c)
            put(a, b, c, x, i)
        write(scratch, 0, row, stop, r)


def project_either(m, q, scratch, start, stop):
    """Reflections allowed."""
    use_widest_vectors()
    x = carray(scratch, (9, LANES))
    for row in range(start, stop, LANES):
        read(m, row, stop, scratch, 0)
        for i in range(LANES):
            a, b, c = columns(x, i)
            a, b, c = nearest_orthonormal(a, b, c)
            put(a, b, c, x, i)
        write(scratch, 0, row, stop, q)


def project_plane(m, r, either, scratch, start, stop):
    """2x2, as in `so2`; `either` allows reflections, (x, y; y, -x) with x = m00 - m11 and y = m10 + m01."""
    entries, result = carray(m, (stop, 4)), carray(r, (stop, 4))
    for i in range(start, stop):
        a, b, c, d = entries[i, 0], entries[i, 1], entries[i, 2], entries[i, 3]
        size = maximum(maximum(absolute(a), absolute(b)), maximum(absolute(c), absolute(d)))
        k = ONE / where(size > TINY, size, TINY)
        a, b, c, d = k * a, k * b, k * c, k * d
        mirror = where((either != 0) & (a * d < b * c), -ONE, ONE)
        x, y = a + mirror * d, c - mirror * b
        square = x * x + y * y
        somewhere = square != ZERO
        norm = sqrt(where(somewhere, square, ONE))
        x, y = where(somewhere, x, ONE) / norm, y / norm
        result[i, 0], result[i, 1], result[i, 2], result[i, 3] = x, -mirror * y, y, mirror * x


def differentiate(m, r, t, d, damping, scratch, start, stop):
    use_widest_vectors()
    tiles = carray(scratch, (3, 9, LANES))
    x, y, z = tiles[0], tiles[1], tiles[2]
    damping_ = dtype(damping)
    for row in range(start, stop, LANES):
        read(m, row, stop, scratch, 0)
        read(r, row, stop, scratch, 1)
        read(t, row, stop, scratch, 2)
        for i in range(LANES):
            a, b, c = columns(x, i)
            e, f, g = columns(y, i)
            da, db, dc = columns(z, i)
            da, db, dc = nearest_rotation_differential(a, b, c, e, f, g, da, db, dc, damping_)
            put(da, db, dc, z, i)
        write(scratch, 2, row, stop, d)


def measure_gap(m, gap, g, scratch, start, stop):
    use_widest_vectors()
    tiles = carray(scratch, (10, LANES))
    x, s = tiles[:9], tiles[9]
    gaps = carray(gap, (stop,))
    for row in range(start, stop, LANES):
        read(m, row, stop, scratch, 0)
        for i in range(LANES):
            a, b, c = columns(x, i)
            s[i], a, b, c = gap_and_derivative(a, b, c)
            put(a, b, c, x, i)
        write(scratch, 0, row, stop, g)
        for i in range(min(LANES, stop - row)):
            gaps[row + i] = s[i]


def read(m, row, stop, scratch, tile):
    """Entries of the matrices from `row` on into the lanes of a tile, zeros into those past the last.

    (Not whatever is there: denormal numbers would make a batch of one take longer than one of 64.)
    """
    live = min(LANES, stop - row)
    if live == LANES:
        for i in range(0, LANES, WIDTH):
            gather(m, 9 * (row + i), scratch, 9 * LANES * tile + i)
    else:
        entries, x = carray(m, (stop, 9)), carray(scratch, (tile + 1, 9, LANES))[tile]
        for i in range(live):
            for k in range(9):
                x[k, i] = entries[row + i, k]
        for k in range(9):
            for i in range(live, LANES):
                x[k, i] = 0


def write(scratch, tile, row, stop, m):
    live = min(LANES, stop - row)
    if live == LANES:
        for i in range(0, LANES, WIDTH):
            scatter(scratch, 9 * LANES * tile + i, m, 9 * (row + i))
    else:
        entries, x = carray(m, (stop, 9)), carray(scratch, (tile + 1, 9, LANES))[tile]
        for i in range(live):
            for k in range(9):
                entries[row + i, k] = x[k, i]


def columns(x, i):
    return (x[0, i], x[3, i], x[6, i]), (x[1, i], x[4, i], x[7, i]), (x[2, i], x[5, i], x[8, i])


def put(a, b, c, x, i):
    x[0, i], x[3, i], x[6, i] = a
    x[1, i], x[4, i], x[7, i] = b
    x[2, i], x[5, i], x[8, i] = c


HELPERS = (read, write, columns, put)
FORMULAS = so3.FORMULAS


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    """What the kernels' names mean for a dtype."""
    from . import _simd

    number = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    words: dict[str, Any] = {"LANES": LANES, "dtype": scalar, **_simd.transpositions(scalar, LANES)}
    return words | {name: number(value) for name, value in so3.constants(dtype).items()}
