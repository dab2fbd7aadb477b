# pyright: reportUndefinedVariable=false
"""Newton-Schulz on a CPU, one matrix after the other, for numba: rows in SIMD registers, all in the cache.

BLAS spends more time around the product of two small matrices than in it, and LAPACK takes most steps of a
decomposition a vector at a time. Here a matrix stays where it is from the first step to the last, and
products go by blocks of 8 rows and two vectors, 16 registers. Rows are padded to whole vectors and their
number to multiples of 8, with zeros, which stay zeros.
"""

import math
from typing import Any

import numpy as np
import torch

PANEL = 8  # rows that a product keeps in registers
TILES = 8  # matrices in the scratch

# What the kernels take; see `loops`.
KERNELS = {
    # matrices, factors, residuals, steps, their number, rows and columns of a matrix, scratch, from, to
    "polar_rows": ("pointer",) * 4 + ("intp",) * 3 + ("pointer", "intp", "intp"),
    # matrices, rotations, residuals, steps, their number, squarings, side, scratch, from, to
    "rotation_rows": ("pointer",) * 4 + ("intp",) * 3 + ("pointer", "intp", "intp"),
    # matrices, factors, tangents, derivatives, residuals, squarings, rows, columns, scratch, from, to
    "differential_rows": ("pointer",) * 5 + ("intp",) * 3 + ("pointer", "intp", "intp"),
}


def scratch(rows: int, columns: int, lanes: int) -> int:
    """Numbers that the kernels need: eight matrices of the padded size, and three rows."""
    height = (rows + PANEL - 1) // PANEL * PANEL
    return (TILES * height + 3) * ((columns + lanes - 1) // lanes + 1) * lanes


def polar_rows(m, q, residual, steps, count, rows, columns, scratch, start, stop):
    """Factors of (rows, columns) matrices, rows >= columns, and |I - QᵀQ| before the last step."""
    use_widest_vectors()
    width, height = row_length(columns), whole(rows, PANEL)
    area = height * width
    residuals = carray(residual, (stop,))
    fill_identity(scratch, 0, columns, width)
    for row in range(start, stop):
        load(m, row, stop, rows, columns, width, scratch, area)
        x, residuals[row] = iterate(scratch, area, steps, count, rows, columns, width)
        store(scratch, x, row, stop, rows, columns, width, q)


def rotation_rows(m, r, residual, steps, count, squarings, side, scratch, start, stop):
    """Rotations nearest to (side, side) matrices, and |I - RᵀR| before the last step, or infinity.

    Where det Q < 0, the smallest direction v of QᵀM is reversed. It is the dominant one of P = 1 - c QᵀM /
    |QᵀM|, found by squaring P until its trace says that it is nearly of rank one; two products with v do the
    rest. Where it does not get there, the residual becomes infinite. As for `turn` in `polar_lanes`, c may
    be nearly 2 sqrt(1 - 1 / n).
    """
    use_widest_vectors()
    width, height = row_length(side), whole(side, PANEL)
    area = height * width
    residuals = carray(residual, (stop,))
    shift, line = two * (one - coarse) * sqrt(one - one / side), TILES * area
    fill_identity(scratch, 0, side, width)
    for row in range(start, stop):
        load(m, row, stop, side, side, width, scratch, area)
        q, residuals[row] = iterate(scratch, area, steps, count, side, side, width)
        x, y = 3 * area, 4 * area
        copy(scratch, q, x, area)
        if has_negative_determinant(scratch, x, side, width, line):
            load(m, row, stop, side, side, width, scratch, y)
            normalize(scratch, y, area, line)
            product(scratch, q, 1, width, y, side, -shift, two, 0, x, side, width)
            symmetrise(scratch, x, side, width)
            if not dominant_direction(scratch, x, y, squarings, side, width, line, line + width):
                residuals[row] = infinity
            reverse(scratch, q, line, side, width)
        store(scratch, q, row, stop, side, side, width, r)


def differential_rows(m, q, t, d, residual, squarings, rows, columns, scratch, start, stop):
    """Derivatives along T of the factors Q, or nearest rotations, and infinity where they do not hold, or 0.

    With H = QᵀM, A = QᵀT and S = A - Aᵀ they are Q X + Y, where H X + X H = S and Y H = T - Q A. For positive
    H and any p > 0, U = (H - p) (H + p)⁻¹ has eigenvalues between -1 and 1, and

        X = C + U C U + U² C U² + ...,    C = 2 p (H + p)⁻¹ S (H + p)⁻¹,

    of which each step X <- X + U X U, U <- U² adds as many terms as there are (Smith, SIAM J. Appl. Math. 16,
    1968). H of a rotation may have one negative eigenvalue l. Its direction v is taken out first, H becoming
    1 there and S zero: X = X' + w vᵀ - v wᵀ with (H + l) w = S v.
    """
    use_widest_vectors()
    width, area = row_length(columns), whole(rows, PANEL) * row_length(columns)
    q_, t_, h, s, x, y, z = area, 2 * area, 3 * area, 4 * area, 5 * area, 6 * area, 7 * area
    v, w, line = TILES * area, TILES * area + width, TILES * area + 2 * width
    shift, p = two * (one - coarse) * sqrt(one - one / columns), one + half
    p = p / columns  # near the middle of the eigenvalues of a Gaussian matrix
    residuals = carray(residual, (stop,))
    fill_identity(scratch, 0, columns, width)
    for row in range(start, stop):
        load(q, row, stop, rows, columns, width, scratch, q_)
        load(t, row, stop, rows, columns, width, scratch, t_)
        load(m, row, stop, rows, columns, width, scratch, x)
        scale = normalize(scratch, x, area, line)
        product(scratch, q_, 1, width, x, rows, one, zero, 0, h, columns, width)
        symmetrise(scratch, h, columns, width)
        product(scratch, q_, 1, width, t_, rows, one, zero, 0, s, columns, width)
        holds = True
        if rows > columns:
            product(scratch, q_, width, 1, s, columns, -one, one, t_, t_, rows, width)
            copy(scratch, h, y, area)
            holds = invert(scratch, y, columns, width, v, w)
            product(scratch, t_, width, 1, y, columns, one, zero, q_, z, rows, width)
            copy(scratch, z, t_, area)
        antisymmetrise(scratch, s, columns, width)
        reflected = False
        if rows == columns:
            copy(scratch, h, x, area)
            reflected = has_negative_determinant(scratch, x, columns, width, line)
        if reflected:
            combine(scratch, h, -shift, one, x, columns, width)
            holds = dominant_direction(scratch, x, y, squarings, columns, width, v, w)
            unit(scratch, v, width)
            apply(scratch, h, v, columns, width, w)
            l = dot(scratch, v, w, width)
            apply(scratch, s, v, columns, width, w)
            add_outer(scratch, h, one - l, v, v, columns, width)
            add_outer(scratch, s, -one, w, v, columns, width)
            add_outer(scratch, s, one, v, w, columns, width)
            combine(scratch, h, one, l, x, columns, width)
            copy(scratch, w, z, width)
            holds = invert(scratch, x, columns, width, line, w) and holds
            apply(scratch, x, z, columns, width, w)
        combine(scratch, h, one, p, y, columns, width)
        invert(scratch, y, columns, width, line, x)
        product(scratch, y, width, 1, s, columns, two * p, zero, 0, z, columns, width)
        product(scratch, z, width, 1, y, columns, one, zero, 0, x, columns, width)
        combine(scratch, y, -two * p, one, h, columns, width)
        u, spare = h, y
        converged = False
        for _ in range(squarings):
            product(scratch, u, width, 1, x, columns, one, zero, 0, z, columns, width)
            product(scratch, z, width, 1, u, columns, one, one, x, x, columns, width)
            product(scratch, u, width, 1, u, columns, one, zero, 0, spare, columns, width)
            u, spare = spare, u
            if sum_of_squares(scratch, u, whole(columns, PANEL) * width, line) < negligible:
                converged = True
                break
        antisymmetrise(scratch, x, columns, width)
        if reflected:
            add_outer(scratch, x, two, w, v, columns, width)
            add_outer(scratch, x, -two, v, w, columns, width)
        if rows > columns:
            product(scratch, q_, width, 1, x, columns, half * scale, scale, t_, z, rows, width)
        else:
            product(scratch, q_, width, 1, x, columns, half * scale, zero, t_, z, rows, width)
        residuals[row] = zero if converged and holds else infinity
        store(scratch, z, row, stop, rows, columns, width, d)


def iterate(scratch, at, steps, count, rows, columns, width):
    """Where the factor is of the matrix at `at`, and the residual. The identity is at 0, in the first of 5.

    A step (a, b, c) is X <- a X + X (b E + c E²), E = I - XᵀX.
    """
    area = whole(rows, PANEL) * width
    x, y, e, p, line = at, 2 * area, 3 * area, 4 * area, TILES * area
    steps_ = carray(steps, (count, 3))
    residual = zero
    normalize(scratch, x, area, line)
    for s in range(count):
        a, b, c = steps_[s, 0], steps_[s, 1], steps_[s, 2]
        product(scratch, x, 1, width, x, rows, -one, one, 0, e, columns, width)
        if s == count - 1:
            residual = sqrt(sum_of_squares(scratch, e, whole(columns, PANEL) * width, line))
        product(scratch, e, width, 1, e, columns, c, b, e, p, columns, width)
        product(scratch, x, width, 1, p, columns, one, a, x, y, rows, width)
        x, y = y, x
    return x, residual


# Parts of them. Matrices are given by their places in the scratch.


def whole(number, unit):
    return (number + unit - 1) // unit * unit


def row_length(columns):
    """Not a power of two, of which a cache keeps only a few at a time."""
    width = whole(columns, LANES)
    return width + LANES if width % (8 * LANES) == 0 else width


def fill_identity(scratch, at, columns, width):
    entries = whole(columns, PANEL) * width
    x = carray(scratch, (at + entries,))[at:]
    for i in range(entries):
        x[i] = 0
    for i in range(columns):
        x[i * width + i] = 1


def load(m, row, stop, rows, columns, width, scratch, at):
    height = whole(rows, PANEL)
    entries, x = carray(m, (stop, rows, columns))[row], carray(scratch, (at + height * width,))[at:]
    for i in range(height * width):
        x[i] = 0
    for i in range(rows):
        for j in range(columns):
            x[i * width + j] = entries[i, j]


def store(scratch, at, row, stop, rows, columns, width, m):
    entries, x = carray(m, (stop, rows, columns))[row], carray(scratch, (at + rows * width,))[at:]
    for i in range(rows):
        for j in range(columns):
            entries[i, j] = x[i * width + j]


def copy(scratch, at, to, entries):
    x, y = carray(scratch, (at + entries,))[at:], carray(scratch, (to + entries,))[to:]
    for i in range(entries):
        y[i] = x[i]


def normalize(scratch, at, entries, line):
    """X over its Frobenius norm, in its place; over its largest entry first, whose square may be no number.

    Returns what it was multiplied by.
    """
    x, sizes = carray(scratch, (at + entries,))[at:], carray(scratch, (line + LANES,))[line:]
    for l in range(LANES):
        sizes[l] = 0
    for i in range(0, entries, LANES):
        for l in range(LANES):
            size = absolute(x[i + l])
            sizes[l] = sizes[l] if sizes[l] >= size else size  # takes NaN, and keeps it
    largest = zero
    for l in range(LANES):
        largest = largest if largest >= sizes[l] else sizes[l]
    first = one / (tiny if largest < tiny else largest)  # below it the inverse may not be a number
    for i in range(entries):
        x[i] *= first
    square = sum_of_squares(scratch, at, entries, line)
    second = one / sqrt(square if square != 0 else one)
    for i in range(entries):
        x[i] *= second
    return first * second


def sum_of_squares(scratch, at, entries, line):
    x, sums = carray(scratch, (at + entries,))[at:], carray(scratch, (line + LANES,))[line:]
    for l in range(LANES):
        sums[l] = 0
    for i in range(0, entries, LANES):
        for l in range(LANES):
            sums[l] += x[i + l] * x[i + l]
    total = zero
    for l in range(LANES):
        total += sums[l]
    return total


def dominant_direction(scratch, x, y, squarings, side, width, v, w):
    """The direction v of the largest eigenvalue of P, at x, and whether it was told apart.

    y and w are for its own use.
    """
    nearly_rank_one = False
    for s in range(squarings):
        factor = one / trace(scratch, x, side, width)
        product(scratch, x, width, 1, x, side, factor * factor, zero, x, y, side, width)
        x, y = y, x
        # The sum of squares of numbers of sum 1, all of them positive after the first squaring.
        if s > 0 and trace(scratch, x, side, width) > nearly_one:
            nearly_rank_one = True
            break
    copy(scratch, largest_row(scratch, x, side, width), w, width)
    apply(scratch, x, w, side, width, v)
    apply(scratch, x, v, side, width, w)
    copy(scratch, w, v, width)
    return nearly_rank_one


def trace(scratch, at, side, width):
    x = carray(scratch, (at + side * width,))[at:]
    total = zero
    for i in range(side):
        total += x[i * width + i]
    return total


def symmetrise(scratch, at, side, width):
    x = carray(scratch, (at + side * width,))[at:]
    for i in range(side):
        for j in range(i):
            mean = half * (x[i * width + j] + x[j * width + i])
            x[i * width + j] = mean
            x[j * width + i] = mean


def antisymmetrise(scratch, at, side, width):
    """A - Aᵀ."""
    x = carray(scratch, (at + side * width,))[at:]
    for i in range(side):
        for j in range(i + 1):
            difference = x[i * width + j] - x[j * width + i]
            x[i * width + j] = difference
            x[j * width + i] = -difference


def combine(scratch, at, factor, shift, to, side, width):
    """factor A + shift I."""
    entries = whole(side, PANEL) * width
    x, y = carray(scratch, (at + entries,))[at:], carray(scratch, (to + entries,))[to:]
    for i in range(entries):
        y[i] = factor * x[i]
    for i in range(side):
        y[i * width + i] += shift


def add_outer(scratch, at, factor, a, b, side, width):
    x, a_ = carray(scratch, (at + side * width,))[at:], carray(scratch, (a + width,))[a:]
    b_ = carray(scratch, (b + width,))[b:]
    for i in range(side):
        along = factor * a_[i]
        for j in range(width):
            x[i * width + j] += along * b_[j]


def unit(scratch, v, width):
    v_ = carray(scratch, (v + width,))[v:]
    scale = one / sqrt(dot(scratch, v, v, width) + tiny)
    for i in range(width):
        v_[i] *= scale


def invert(scratch, at, side, width, row, column):
    """A positive matrix, in its place, by Gauss and Jordan; whether all pivots were well above rounding."""
    x = carray(scratch, (at + side * width,))[at:]
    row_, column_ = carray(scratch, (row + width,))[row:], carray(scratch, (column + width,))[column:]
    for i in range(width):
        column_[i] = 0
    positive = True
    for k in range(side):
        pivot = x[k * width + k]
        positive = positive and pivot > coarse
        inverse = one / pivot
        for j in range(width):
            row_[j] = inverse * x[k * width + j]
        row_[k] = inverse
        for i in range(side):
            column_[i] = x[i * width + k]
            x[i * width + k] = 0
        outer_product(scratch, column, row, -one, at, side, width)
        for j in range(width):
            x[k * width + j] = row_[j]
    return positive


def outer_product(scratch, a, b, alpha, c, rows, width):
    """C <- C + alpha A B for a column and a row."""
    product(scratch, a, 1, 1, b, 1, alpha, one, c, c, rows, width)


def has_negative_determinant(scratch, at, side, width, line):
    """By elimination with exchange of rows. Destroys the matrix."""
    x, pivots = carray(scratch, (at + side * width,))[at:], carray(scratch, (line + width,))[line:]
    negative = False
    for k in range(side):
        best = k
        for i in range(k + 1, side):
            best = i if absolute(x[i * width + k]) > absolute(x[best * width + k]) else best
        for l in range(width):
            pivots[l] = x[best * width + l]
            x[best * width + l] = x[k * width + l]
        negative = negative ^ (pivots[k] < 0) ^ (best != k)
        factor = -one / pivots[k]
        # The column of the multipliers changes last.
        for j in range(width - LANES, k // LANES * LANES - LANES, -LANES):
            for i in range((k + 1) // PANEL * PANEL, side, PANEL):
                row = at + i * width
                panel1(scratch, row + k, width, 1, line + j, 1, factor, one, row + j, row + j, width)
    return negative


def largest_row(scratch, at, side, width):
    """Where the row of the largest diagonal entry is: for v vᵀ a multiple of v."""
    x = carray(scratch, (at + side * width,))[at:]
    best = 0
    for i in range(1, side):
        best = i if x[i * width + i] > x[best * width + best] else best
    return at + best * width


def apply(scratch, at, v, side, width, to):
    """P v."""
    y = carray(scratch, (to + width,))[to:]
    for i in range(width):
        y[i] = 0
    for i in range(side):
        y[i] = dot(scratch, at + i * width, v, width)


def reverse(scratch, at, v, side, width):
    """Q (I - 2 v vᵀ / |v|²)."""
    x, v_ = carray(scratch, (at + side * width,))[at:], carray(scratch, (v + width,))[v:]
    factor = two / (dot(scratch, v, v, width) + tiny)
    for i in range(side):
        along = factor * dot(scratch, at + i * width, v, width)
        for j in range(width):
            x[i * width + j] -= along * v_[j]


def dot(scratch, a, b, count):
    a_, b_ = carray(scratch, (a + count,))[a:], carray(scratch, (b + count,))[b:]
    total = zero
    for i in range(count):
        total += a_[i] * b_[i]
    return total


def product(scratch, a, i, k, b, count, alpha, beta, d, c, rows, width):
    """C <- alpha A B + beta D; entry (r, n) of A is at a + r i + n k, n < count."""
    for j in range(0, width - LANES, 2 * LANES):
        for r in range(0, rows, PANEL):
            at = r * width + j
            panel2(scratch, a + r * i, i, k, b + j, count, alpha, beta, d + at, c + at, width)
    if width % (2 * LANES) != 0:
        j = width - LANES
        for r in range(0, rows, PANEL):
            at = r * width + j
            panel1(scratch, a + r * i, i, k, b + j, count, alpha, beta, d + at, c + at, width)


HELPERS = (
    whole,
    row_length,
    fill_identity,
    load,
    store,
    copy,
    sum_of_squares,
    normalize,
    trace,
    symmetrise,
    antisymmetrise,
    combine,
    add_outer,
    has_negative_determinant,
    largest_row,
    dot,
    unit,
    apply,
    reverse,
    product,
    outer_product,
    invert,
    dominant_direction,
    iterate,
)


def vocabulary(dtype: torch.dtype, scalar: Any) -> dict[str, Any]:
    """What the kernels' names mean for a dtype."""
    from svdrot._kernels.cpu.compiler import panels, simd

    number = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    words: dict[str, Any] = {"LANES": simd.width(scalar), "PANEL": PANEL, "TILES": TILES}
    words |= {f"panel{vectors}": panels.panel_product(scalar, vectors) for vectors in (1, 2)}
    constants = {
        "zero": 0,
        "half": 0.5,
        "one": 1,
        "two": 2,
        "nearly_one": 1 - 2**-10,
        "tiny": tiny,
        "coarse": 64 * eps,
        "negligible": eps / 4,
        "infinity": math.inf,
    }
    return words | {name: number(value) for name, value in constants.items()}
