"""Everyday geometry in 50 digits, by the definitions: lists of mpmath's numbers, one element at a time.

What a function gives is compared with what its definition gives of the same numbers, taken as exact.
"""

from collections.abc import Callable, Sequence

import mpmath
import torch
from mpmath import mpf
from torch import Tensor

mpmath.mp.dps = 50
Vector = list[mpf]
UNITS = 8  # of eps, times the conditioning


def numbers(x: Tensor) -> Vector:
    return [mpf(v) for v in x.double().flatten().tolist()]


def worst(found: Tensor, exact: Sequence[Vector], condition: Sequence[float] | float = 1.0) -> float:
    """The largest error of a batch of results (B, ...), in units of eps times the conditioning of each."""
    eps = torch.finfo(found.dtype).eps
    conditions = [condition] * len(exact) if isinstance(condition, float) else condition
    errors = [
        max(abs(a - b) for a, b in zip(numbers(row), wanted, strict=True)) / (eps * c)
        for row, wanted, c in zip(found, exact, conditions, strict=True)
    ]
    return float(max(errors))


def each(function: Callable[..., Vector], *x: Tensor) -> list[Vector]:
    """A definition of every element of tensors (B, ...)."""
    return [function(*(numbers(row) for row in rows)) for rows in zip(*x, strict=True)]


def dot(a: Vector, b: Vector) -> mpf:
    return sum((x * y for x, y in zip(a, b, strict=True)), mpf(0))


def length(a: Vector) -> mpf:
    return mpmath.sqrt(dot(a, a))


def scaled(a: Vector, k: mpf) -> Vector:
    return [x * k for x in a]


def unit(a: Vector) -> Vector:
    return scaled(a, 1 / length(a))


def cross(a: Vector, b: Vector) -> Vector:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


# Quaternions ------------------------------------------------------------------------------------------------


def multiply(p: Vector, q: Vector) -> Vector:
    (a, *u), (b, *v) = p, q
    third = cross(u, v)
    return [a * b - dot(u, v), *(a * y + b * x + z for x, y, z in zip(u, v, third, strict=True))]


def conjugate(q: Vector) -> Vector:
    return [q[0], *(-x for x in q[1:])]


def inverse(q: Vector) -> Vector:
    return scaled(conjugate(q), 1 / dot(q, q))


def apply(q: Vector, v: Vector) -> Vector:
    return multiply(multiply(q, [mpf(0), *v]), inverse(q))[1:]


def exponential(q: Vector) -> Vector:
    w, u = q[0], q[1:]
    n = length(u)
    k = mpmath.sin(n) / n if n else mpf(1)
    return scaled([mpmath.cos(n), *scaled(u, k)], mpmath.exp(w))


def logarithm(q: Vector) -> Vector:
    w, u = q[0], q[1:]
    n = length(u)
    if not n:
        return [mpmath.log(abs(w)), mpmath.pi if w < 0 else mpf(0), mpf(0), mpf(0)]
    return [mpmath.log(length(q)), *scaled(u, mpmath.atan2(n, w) / n)]


def power(q: Vector, t: Vector) -> Vector:
    return exponential(scaled(logarithm(q), t[0]))


def slerp(a: Vector, b: Vector, t: Vector) -> Vector:
    between = multiply(inverse(unit(a)), unit(b))
    if between[0] < 0:
        between = scaled(between, mpf(-1))
    return multiply(unit(a), power(between, t))


def to_matrix(q: Vector) -> mpmath.matrix:
    images = [apply(q, [mpf(i == k) for i in range(3)]) for k in range(3)]
    return mpmath.matrix([[images[k][i] for k in range(3)] for i in range(3)])
