# pyright: reportArgumentType=false, reportCallIssue=false
"""What a program does in Triton with square matrices and tall ones that are tiles of its own registers.

A tile is padded with zeros to powers of two, from 16 on; n is the side of the matrix in it. Zeros stay zeros,
as identities end at n. Products are never in TF32. They take DEPTH of their terms at a time: all of them at
once would need more registers than there are from 32 terms on.
"""

import triton
import triton.language as tl

DEPTH = tl.constexpr(16)
NEARLY_ONE = tl.constexpr(1 - 2**-10)  # a trace that tells of rank one; see `dominant_direction`


@triton.jit
def identity(n, x, SIDE: tl.constexpr):
    """In the dtype of x."""
    i, j = tl.arange(0, SIDE)[:, None], tl.arange(0, SIDE)[None, :]
    return ((i == j) & (j < n)).to(x.dtype)


@triton.jit
def product(x, y):
    """X Y."""
    total = tl.zeros((x.shape[0], y.shape[1]), x.dtype)
    for k in range(y.shape[0] // DEPTH):
        total = tl.dot(_columns(x, k), _rows(y, k), total, input_precision="ieee", out_dtype=x.dtype)
    return total


@triton.jit
def transposed_product(x, y):
    """Xᵀ Y."""
    total = tl.zeros((x.shape[1], y.shape[1]), x.dtype)
    for k in range(y.shape[0] // DEPTH):
        a, b = _rows(x, k), _rows(y, k)
        total = tl.dot(tl.trans(a), b, total, input_precision="ieee", out_dtype=x.dtype)
    return total


@triton.jit
def gram(x):
    """Xᵀ X: the square, if X is symmetric."""
    total = tl.zeros((x.shape[1], x.shape[1]), x.dtype)
    for k in range(x.shape[0] // DEPTH):
        a = _rows(x, k)
        total = tl.dot(tl.trans(a), a, total, input_precision="ieee", out_dtype=x.dtype)
    return total


@triton.jit
def _rows(x, k):
    """Rows 16 k to 16 k + 15. Registers have no addresses: all others are masked, and summed as zeros."""
    PARTS: tl.constexpr = x.shape[0] // DEPTH
    if PARTS == 1:
        return x
    else:
        parts = tl.reshape(x, (PARTS, DEPTH, x.shape[1]))
        return tl.sum(tl.where(tl.arange(0, PARTS)[:, None, None] == k, parts, 0.0), 0)


@triton.jit
def _columns(x, k):
    PARTS: tl.constexpr = x.shape[1] // DEPTH
    if PARTS == 1:
        return x
    else:
        parts = tl.reshape(x, (x.shape[0], PARTS, DEPTH))
        return tl.sum(tl.where(tl.arange(0, PARTS)[None, :, None] == k, parts, 0.0), 1)


@triton.jit
def over_frobenius(x, TINY: tl.constexpr):
    """X over its Frobenius norm, and what it was multiplied by.

    By the largest entry first, whose square may be no number. What is not finite makes all of X NaN: zero
    times infinity is, and then the sum.
    """
    largest = tl.max(tl.max(tl.abs(x), 1), 0)
    first = 1.0 / tl.where(largest < TINY, TINY, largest)  # below it the inverse may not be a number
    x = x * first
    square = tl.sum(tl.sum(x * x, 1), 0)
    second = 1.0 / tl.sqrt(tl.where(square == 0.0, 1.0, square))
    return x * second, first * second


@triton.jit
def norm(x):
    return tl.sqrt(tl.sum(tl.sum(x * x, 1), 0))


@triton.jit
def trace(x):
    i, j = tl.arange(0, x.shape[0])[:, None], tl.arange(0, x.shape[1])[None, :]
    return tl.sum(tl.sum(tl.where(i == j, x, 0.0), 1), 0)


@triton.jit
def row(x, k):
    return tl.sum(tl.where(tl.arange(0, x.shape[0])[:, None] == k, x, 0.0), 0)


@triton.jit
def column(x, k):
    return tl.sum(tl.where(tl.arange(0, x.shape[1])[None, :] == k, x, 0.0), 1)


@triton.jit
def image(x, v):
    """X v."""
    return tl.sum(x * v[None, :], 1)


@triton.jit
def has_negative_determinant(x, n):
    """1 or 0, by elimination with pivots. Rows stay where they are: what counts is how many that are still
    free come before that of a pivot."""
    i = tl.arange(0, x.shape[0])
    free, negative = i < n, 0
    for k in range(n):
        below = column(x, k)
        best = tl.argmax(tl.where(free, tl.abs(below), -1.0), 0)
        pivot = tl.sum(tl.where(i == best, below, 0.0), 0)
        passed = tl.sum((free & (i < best)).to(tl.int32), 0)
        negative = (negative + passed + (pivot < 0.0).to(tl.int32)) % 2
        free = free & (i != best)
        x -= tl.where(free, below / pivot, 0.0)[:, None] * row(x, best)[None, :]
    return negative


@triton.jit
def inverse(x, n, LEAST: tl.constexpr):
    """The inverse of a positive matrix, by Gauss and Jordan, and 1 if all pivots were above LEAST, or 0."""
    i, j = tl.arange(0, x.shape[0]), tl.arange(0, x.shape[1])
    positive = 1
    for k in range(n):
        across, down = row(x, k), column(x, k)
        pivot = tl.sum(tl.where(i == k, down, 0.0), 0)
        positive = positive * (pivot > LEAST).to(tl.int32)
        across = tl.where(j == k, 1.0, across) / pivot
        x = tl.where(j[None, :] == k, 0.0, x) - down[:, None] * across[None, :]
        x = tl.where(i[:, None] == k, across[None, :], x)
    return x, positive


@triton.jit
def dominant_direction(p, squarings):
    """A multiple of the direction of the largest eigenvalue of symmetric P, and 1 if it was told apart, or 0.

    The trace of the square of numbers of sum 1, all of them positive after the first squaring, is 1 if there
    is but one.
    """
    size, apart, s = trace(p), 0, 0
    while (s < squarings) & (apart == 0):
        p = gram(p * (1.0 / size))
        size = trace(p)
        apart = ((s > 0) & (size > NEARLY_ONE)).to(tl.int32)
        s += 1
    i, j = tl.arange(0, p.shape[0])[:, None], tl.arange(0, p.shape[1])[None, :]
    best = tl.argmax(tl.sum(tl.where(i == j, p, 0.0), 1), 0)
    return image(p, image(p, row(p, best))), apart
