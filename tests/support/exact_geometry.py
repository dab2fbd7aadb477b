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


# Directions and angles --------------------------------------------------------------------------------------


def hat(v: Vector) -> mpmath.matrix:
    x, y, z = v
    return mpmath.matrix([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def flat(m: mpmath.matrix) -> Vector:
    return [m[i, k] for i in range(m.rows) for k in range(m.cols)]


def matrix(rows: Vector) -> mpmath.matrix:
    return mpmath.matrix([rows[3 * i : 3 * i + 3] for i in range(3)])


def rotation(axis: Vector, angle: mpf) -> mpmath.matrix:
    """About an axis of any length, by Rodrigues' formula."""
    k = hat(unit(axis))
    return mpmath.eye(3) + mpmath.sin(angle) * k + (1 - mpmath.cos(angle)) * k * k


def angle_between(a: Vector, b: Vector) -> Vector:
    return [mpmath.atan2(length(cross(a, b)), dot(a, b))]


def rotation_between(a: Vector, b: Vector) -> Vector:
    axis = cross(a, b)
    return flat(rotation(axis, angle_between(a, b)[0]) if length(axis) else mpmath.eye(3))


def look_at(eye: Vector, target: Vector, up: Vector) -> Vector:
    forward = unit([b - a for a, b in zip(eye, target, strict=True)])
    right = unit(cross(forward, up))
    return [*right, *cross(forward, right), *forward]


def rotation_angle(m: Vector) -> Vector:
    """That of the nearest rotation: entries are right to rounding."""
    u, _, vh = mpmath.svd_r(matrix(m))
    r = u * vh
    return angle_of(r)


def angle_of(r: mpmath.matrix) -> Vector:
    axial = [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]
    return [mpmath.atan2(length(axial), r[0, 0] + r[1, 1] + r[2, 2] - 1)]


def wrap(angle: Vector) -> Vector:
    turn = 2 * mpmath.pi
    return [angle[0] - turn * mpmath.nint(angle[0] / turn)]


# The group --------------------------------------------------------------------------------------------------


def left_jacobian(v: Vector) -> Vector:
    t = length(v)
    if not t:
        return flat(mpmath.eye(3))
    k = hat(v)
    a, b = (1 - mpmath.cos(t)) / t**2, (t - mpmath.sin(t)) / t**3
    return flat(mpmath.eye(3) + a * k + b * k * k)


def left_jacobian_inverse(v: Vector) -> Vector:
    return flat(matrix(left_jacobian(v)) ** -1)


def swing_twist(r: Vector, axis: Vector) -> Vector:
    """By the rotation about the axis of largest trace of TᵀR."""
    m, a = matrix(r), unit(axis)
    axial = [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]]
    along = dot(a, list(m * mpmath.matrix(a)))
    angle = mpmath.atan2(dot(a, axial), m[0, 0] + m[1, 1] + m[2, 2] - along)
    twist = rotation(a, angle)
    return [*flat(m * twist.T), *flat(twist)]


def _series(m: mpmath.matrix, first: int) -> mpmath.matrix:
    """The sum of m^n / (n + first)!: the exponential for 0, its Jacobian for 1."""
    term, total, n = mpmath.eye(m.rows) / mpmath.factorial(first), mpmath.zeros(m.rows), 0
    while mpmath.mnorm(term) > mpf(10) ** -45 or n < 4:
        total, n = total + term, n + 1
        term = term * m / (n + first)
    return total


def twist_exponential(twist: Vector) -> Vector:
    """Rotation, translation and scale, of a twist of 6 or 7 numbers, by the series of its matrix."""
    growth = twist[6] if len(twist) == 7 else mpf(0)
    m = mpmath.zeros(4)
    m[:3, :3] = hat(twist[:3]) + growth * mpmath.eye(3)
    m[:3, 3] = mpmath.matrix(twist[3:6])
    found, scale = _series(m, 0), mpmath.exp(growth)
    return [*flat(found[:3, :3] / scale), *found[:3, 3], scale]


def twist_left_jacobian(twist: Vector) -> Vector:
    """The sum of ad^n / (n + 1)!."""
    small = mpmath.zeros(6)
    small[:3, :3] = small[3:, 3:] = hat(twist[:3])
    small[3:, :3] = hat(twist[3:])
    return flat(_series(small, 1))


def twist_left_jacobian_inverse(twist: Vector) -> Vector:
    j = twist_left_jacobian(twist)
    return flat(mpmath.matrix([j[6 * i : 6 * i + 6] for i in range(6)]) ** -1)


def adjoint(twist: Vector) -> Vector:
    """Of the exponential of a twist: the exponential of ad."""
    size, growth = len(twist), twist[6] if len(twist) == 7 else mpf(0)
    small = mpmath.zeros(size)
    small[:3, :3] = hat(twist[:3])
    small[3:6, 3:6] = hat(twist[:3]) + growth * mpmath.eye(3)
    small[3:6, :3] = hat(twist[3:6])
    if size == 7:
        small[3:6, 6] = -mpmath.matrix(twist[3:6])
    return flat(_series(small, 0))


def slope(f, step=1e-3):
    """The derivative of a function of a number at 0, by differences of fourth order: exact to some 1e-12."""
    return (f(-2 * step) - 8 * f(-step) + 8 * f(step) - f(2 * step)) / (12 * step)
