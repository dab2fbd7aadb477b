# pyright: reportUndefinedVariable=false
"""Newton-Schulz for batches of small matrices on a CPU, for numba: a matrix in every lane of a SIMD register.

The batched products of BLAS treat one small matrix after the other, each too small to fill a register. Here a
tile holds as many matrices as a register has lanes, entry by entry, and a product multiplies them all at once
in blocks of 4 x 4 entries, 16 registers. Sides are padded to multiples of 4 with zeros, which stay zeros.
"""

import math
from typing import Any

import numpy as np
import torch

BLOCK = 4  # rows and columns that a product keeps in registers

# What the kernels take; see `loops`.
KERNELS = {
    # matrices, factors, residuals, steps, their number, rows and columns of a matrix, scratch, from, to
    "polar": ("pointer", "pointer", "pointer", "pointer", "intp", "intp", "intp", "pointer", "intp", "intp"),
    # matrices, factors, residuals, places (as many, for its own use), squarings, side, scratch, from, to
    "turn": ("pointer", "pointer", "pointer", "pointer", "intp", "intp", "pointer", "intp", "intp"),
}


def scratch(rows: int, columns: int, lanes: int) -> int:
    """Numbers that the kernels need: five matrices of the padded size, and a line for each lane's scalars."""
    side = max(padded(rows), padded(columns))
    return (5 * side * side + 4) * lanes


def padded(side: int) -> int:
    return (side + BLOCK - 1) // BLOCK * BLOCK


def polar(m, q, residual, steps, count, rows, columns, scratch, start, stop):
    """Factors of (rows, columns) matrices, rows >= columns, and |I - QᵀQ| before the last step.

    A step (a, b, c) is X <- a X + X (b E + c E²), E = I - XᵀX.
    """
    use_widest_vectors()
    height, width = pad(rows), pad(columns)
    area = height * height
    tiles = carray(scratch, (5, area, LANES))
    lines = carray(scratch, (5 * area + 4, LANES))[5 * area :]
    steps_ = carray(steps, (count, 3))
    residuals = carray(residual, (stop,))
    eye = tiles[0]
    clear(eye, width * width)
    for i in range(columns):
        for l in range(LANES):
            eye[i * width + i, l] = 1
    for row in range(start, stop, LANES):
        x, y = 1, 2  # places of the tiles: 0 the identity, 3 and 4 E and b E + c E²
        clear(tiles[x], height * width)
        load(m, row, stop, rows, columns, width, tiles[x])
        normalize(tiles[x], height * width, lines)
        for s in range(count):
            a, b, c = steps_[s, 0], steps_[s, 1], steps_[s, 2]
            symmetric_product(scratch, x * area, height, width, -one, one, 0, 3 * area)
            if s == count - 1:
                measure(tiles[3], width * width, lines)
            symmetric_product(scratch, 3 * area, width, width, c, b, 3 * area, 4 * area)
            product(scratch, x * area, 4 * area, height, width, one, a, x * area, y * area)
            x, y = y, x
        store(tiles[x], row, stop, rows, columns, width, q)
        for l in range(min(LANES, stop - row)):
            residuals[row + l] = lines[0, l]


def turn(m, q, residual, place, squarings, side, scratch, start, stop):
    """Rotations from orthogonal factors Q: where det Q < 0, the smallest direction of QᵀM is reversed.

    Those are packed into tiles of their own first. The direction v is the dominant one of P = 1 - c QᵀM /
    |QᵀM|, found by squaring P again and again; it has converged when P is of rank one. Where it has not, the
    residual becomes infinite. Of n >= 2 numbers with squares of sum 1 the sum of the largest and the smallest
    is at most sqrt(n / (n - 1)), so that c may be 2 over that before the other end dominates.
    """
    use_widest_vectors()
    width = pad(side)
    area = width * width
    tiles = carray(scratch, (5, area, LANES))
    lines = carray(scratch, (5 * area + 4, LANES))[5 * area :]
    residuals, places = carray(residual, (stop,)), carray(place, (stop,))
    sign, largest, trace, unit = lines[0], lines[1], lines[2], lines[3]
    reflected = 0
    for row in range(start, stop, LANES):
        clear(tiles[1], area)
        load(q, row, stop, side, side, width, tiles[1])
        determinant_sign(scratch, area, side, width, sign, 5 * area + 1)
        for l in range(min(LANES, stop - row)):
            if sign[l] < 0:
                places[start + reflected] = row + l - start
                reflected += 1
    unit[0] = two * (one - coarse) * sqrt(one - one / side)
    c = unit[0]  # in the kernel's own precision
    for first in range(start, start + reflected, LANES):
        count = min(LANES, start + reflected - first)
        clear(tiles[0], area)
        clear(tiles[1], area)
        gather(q, place, first, count, start, stop, side, width, tiles[0])
        gather(m, place, first, count, start, stop, side, width, tiles[1])
        normalize(tiles[1], area, lines[1:])
        clear(tiles[2], area)
        transposed_product(scratch, 0, area, width, 2 * area)
        h, p = tiles[2], tiles[3]
        clear(p, area)
        for i in range(side):
            for j in range(side):
                for l in range(LANES):
                    p[i * width + j, l] = -half * c * (h[i * width + j, l] + h[j * width + i, l])
            for l in range(LANES):
                p[i * width + i, l] += one
        x, y = 3, 4
        for s in range(squarings):
            if s % 3 == 1:  # eigenvalues of 1 / side come to its eighth power in the meantime
                over_trace(tiles[x], side, width, trace)
            symmetric_product(scratch, x * area, width, width, one, zero, x * area, y * area)
            x, y = y, x
        p = tiles[x]
        # The column of the largest diagonal entry is v up to a factor: collect it in tile 1.
        v = tiles[1]
        for l in range(LANES):
            largest[l] = -one
        for j in range(side):
            for l in range(LANES):
                better = p[j * width + j, l] > largest[l]
                unit[l] = one if better else zero
                largest[l] = p[j * width + j, l] if better else largest[l]
            for i in range(side):
                for l in range(LANES):
                    v[i, l] = p[i * width + j, l] if unit[l] > 0 else v[i, l]
        for l in range(LANES):
            unit[l] = tiny
            trace[l] = zero
        for i in range(side):
            for l in range(LANES):
                unit[l] += v[i, l] * v[i, l]
                trace[l] += p[i * width + i, l]
        # P = v vᵀ tr P if of rank one: |column|² = P_jj tr P.
        for l in range(LANES):
            rank_one = absolute(unit[l] - largest[l] * trace[l]) <= coarse * unit[l]
            if l < count and not rank_one:
                residuals[start + int(places[first + l])] = infinity
            unit[l] = two / unit[l]
        z = tiles[2]
        for i in range(side):
            for l in range(LANES):
                largest[l] = zero
            for k in range(side):
                for l in range(LANES):
                    largest[l] += tiles[0][i * width + k, l] * v[k, l]
            for l in range(LANES):
                largest[l] *= unit[l]
            for j in range(side):
                for l in range(LANES):
                    z[i * width + j, l] = tiles[0][i * width + j, l] - largest[l] * v[j, l]
        scatter(z, place, first, count, start, stop, side, width, q)


# Parts of them.


def pad(side):
    return (side + BLOCK - 1) // BLOCK * BLOCK


def clear(tile, entries):
    for i in range(entries):
        for l in range(LANES):
            tile[i, l] = 0


def load(m, row, stop, rows, columns, width, tile):
    entries = carray(m, (stop, rows * columns))
    for l in range(min(LANES, stop - row)):
        for i in range(rows):
            for j in range(columns):
                tile[i * width + j, l] = entries[row + l, i * columns + j]


def store(tile, row, stop, rows, columns, width, m):
    entries = carray(m, (stop, rows * columns))
    for l in range(min(LANES, stop - row)):
        for i in range(rows):
            for j in range(columns):
                entries[row + l, i * columns + j] = tile[i * width + j, l]


def gather(m, place, first, count, start, stop, side, width, tile):
    entries, places = carray(m, (stop, side * side)), carray(place, (stop,))
    for l in range(count):
        row = start + int(places[first + l])
        for i in range(side):
            for j in range(side):
                tile[i * width + j, l] = entries[row, i * side + j]


def scatter(tile, place, first, count, start, stop, side, width, m):
    entries, places = carray(m, (stop, side * side)), carray(place, (stop,))
    for l in range(count):
        row = start + int(places[first + l])
        for i in range(side):
            for j in range(side):
                entries[row, i * side + j] = tile[i * width + j, l]


def normalize(x, entries, lines):
    """X over its Frobenius norm; over its largest entry first, whose square may not be a number."""
    scale = lines[0]
    for l in range(LANES):
        scale[l] = 0
    for i in range(entries):
        for l in range(LANES):
            size = absolute(x[i, l])
            scale[l] = scale[l] if scale[l] >= size else size  # takes NaN, and keeps it
    for l in range(LANES):
        scale[l] = one / (tiny if scale[l] < tiny else scale[l])  # below it the inverse may not be a number
    squares = lines[1]
    for l in range(LANES):
        squares[l] = 0
    for i in range(entries):
        for l in range(LANES):
            x[i, l] *= scale[l]
            squares[l] += x[i, l] * x[i, l]
    for l in range(LANES):
        scale[l] = one / sqrt(squares[l] if squares[l] != 0 else one)
    for i in range(entries):
        for l in range(LANES):
            x[i, l] *= scale[l]


def over_trace(p, side, width, trace):
    for l in range(LANES):
        trace[l] = tiny
    for i in range(side):
        for l in range(LANES):
            trace[l] += p[i * width + i, l]
    for l in range(LANES):
        trace[l] = one / trace[l]
    for i in range(width * width):
        for l in range(LANES):
            p[i, l] *= trace[l]


def measure(e, entries, lines):
    """Frobenius norm of E."""
    norm = lines[0]
    for l in range(LANES):
        norm[l] = 0
    for i in range(entries):
        for l in range(LANES):
            norm[l] += e[i, l] * e[i, l]
    for l in range(LANES):
        norm[l] = sqrt(norm[l])


def determinant_sign(scratch, at, side, width, sign, spare):
    """Sign of the determinant of the matrix at a place, by elimination with exchange of rows.

    Destroys the matrix, and two lines.
    """
    a = carray(scratch, (spare + 2, LANES))[at:]
    swaps, ratios = a[spare - at], a[spare - at + 1]
    for l in range(LANES):
        sign[l] = one
    for k in range(side):
        for i in range(k + 1, side):
            for l in range(LANES):
                upper, lower = a[k * width + k, l], a[i * width + k, l]
                swap = absolute(lower) > absolute(upper)
                swaps[l] = one if swap else zero
                sign[l] = -sign[l] if swap else sign[l]
                ratios[l] = (upper if swap else lower) / (lower if swap else upper)
            eliminate(scratch, at + k * width + k, at + i * width + k, side - k, spare, spare + 1)
        for l in range(LANES):
            sign[l] = -sign[l] if a[k * width + k, l] < 0 else sign[l]


# Products, C <- alpha A' B + beta D; places are counted in entries of a tile.


def symmetric_product(scratch, a, height, width, alpha, beta, d, c):
    """Product of A with itself, AᵀA; D is symmetric, too."""
    for i in range(0, width, BLOCK):
        for j in range(0, i + 1, BLOCK):
            at = i * width + j
            mirror = c + j * width + i
            block(scratch, a + i, 1, width, a + j, width, height, alpha, beta, d + at, c + at, width, mirror)


def transposed_product(scratch, a, b, width, c):
    """AᵀB of square matrices."""
    for i in range(0, width, BLOCK):
        for j in range(0, width, BLOCK):
            at = c + i * width + j
            block(scratch, a + i, 1, width, b + j, width, width, one, zero, c, at, width, at)


def product(scratch, a, b, height, width, alpha, beta, d, c):
    """A B."""
    for i in range(0, height, BLOCK):
        for j in range(0, width, BLOCK):
            at = i * width + j
            block(
                scratch,
                a + i * width,
                width,
                1,
                b + j,
                width,
                width,
                alpha,
                beta,
                d + at,
                c + at,
                width,
                c + at,
            )


HELPERS = (
    pad,
    clear,
    load,
    store,
    gather,
    scatter,
    normalize,
    over_trace,
    measure,
    determinant_sign,
    symmetric_product,
    transposed_product,
    product,
)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    """What the kernels' names mean for a dtype."""
    from svdrot._kernels.cpu.compiler import simd

    number = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    words: dict[str, Any] = {
        "LANES": simd.width(scalar),
        **simd.block_product(scalar),
        **simd.elimination(scalar),
    }
    constants = {
        "zero": 0,
        "half": 0.5,
        "one": 1,
        "two": 2,
        "tiny": tiny,
        "coarse": 64 * eps,
        "infinity": math.inf,
    }
    return words | {name: number(value) for name, value in constants.items()}
