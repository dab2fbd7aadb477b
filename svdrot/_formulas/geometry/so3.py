r"""The Lie group SO(3): derivatives of the exponential, and rotations split at an axis.

With x = |v|² and V = [v], a skew matrix, V² = v vᵀ - x I, the left Jacobian is $I + a(x) V + b(x) V^2$ and
its inverse $I - V / 2 + c(x) V^2$, with $\theta = |v|$ and

    a = (1 - cos t) / t² = 2 (sin(t / 2) / t)² = 1/2 - x/24 + x²/720 - ...
    b = (t - sin t) / t³ = 1/6 - x/120 + x²/5040 - ...
    c = (1 - (t / 2) cot(t / 2)) / t² = 1/12 + x/720 + x²/30240 + ..., of Bernoulli numbers, for t < 2 pi.
"""

from math import factorial

from svdrot._formulas.conversions import matrix_to_quaternion
from svdrot._formulas.vectors import EPS, choose, dot, normalized, outer, rescaled
from svdrot.engine.maps import formula
from svdrot.engine.words import cos, detached, sin, sqrt, where

from .skew import about, hat

# Of x below 1 the series are right to rounding, and so are two derivatives; above it no closed form cancels.
A_SERIES = [(-1) ** k / factorial(2 * k + 2) for k in range(10)]
B_SERIES = [(-1) ** k / factorial(2 * k + 3) for k in range(10)]
BERNOULLI = (1 / 6, 1 / 30, 1 / 42, 1 / 30, 5 / 66, 691 / 2730, 7 / 6, 3617 / 510, 43867 / 798)
BERNOULLI = (*BERNOULLI, 174611 / 330, 854513 / 138, 236364091 / 2730)  # absolute values of B2, B4, ..., B24
C_SERIES = [value / factorial(2 * k) for k, value in enumerate(BERNOULLI, 1)]


def horner(coefficients, x):
    found = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        found = found * x + coefficient
    return found


class Angle:
    """The square of an angle, whether it is small, and sine and cosine of its half where it is not."""

    def __init__(self, v):
        squared = dot(v, v)
        self.small = detached(squared) < 1.0
        self.below = where(self.small, squared, 0.0)
        self.above = where(self.small, 1.0, squared)
        self.half = 0.5 * sqrt(self.above)
        self.sine, self.cosine = sin(self.half), cos(self.half)

    def chosen(self, series, closed):
        return where(self.small, horner(series, self.below), closed)


def polynomial(v, first, second):
    """I + first V + second V²."""
    squares = outer(v, v)
    for i in range(3):
        squares[i, i] = -(v[(i + 1) % 3] * v[(i + 1) % 3] + v[(i + 2) % 3] * v[(i + 2) % 3])
    found = first * hat(v) + second * squares
    for i in range(3):
        found[i, i] = 1.0 + found[i, i]
    return found


def first(angle):
    """a = (1 - cos t) / t²."""
    ratio = angle.sine / angle.half
    return angle.chosen(A_SERIES, 0.5 * ratio * ratio)


def second(angle):
    """b = (t - sin t) / t³."""
    return angle.chosen(B_SERIES, (1.0 - angle.sine / angle.half * angle.cosine) / angle.above)


def inverse_second(angle):
    """c = (1 - (t / 2) cot(t / 2)) / t²."""
    return angle.chosen(C_SERIES, (1.0 - angle.half * angle.cosine / angle.sine) / angle.above)


@formula({"axis_angle": (3,)}, (3, 3))
def left_jacobian(v):
    angle = Angle(v)
    return polynomial(v, first(angle), second(angle))


@formula({"axis_angle": (3,)}, (3, 3))
def left_jacobian_inverse(v):
    return polynomial(v, -0.5, inverse_second(Angle(v)))


@formula({"axis_angle": (3,)}, (3, 3))
def right_jacobian(v):
    return left_jacobian(-v)


@formula({"axis_angle": (3,)}, (3, 3))
def right_jacobian_inverse(v):
    return left_jacobian_inverse(-v)


@formula({"rotation": (3, 3), "axis": (3,)}, [(3, 3), (3, 3)])
def swing_twist(rotation, axis):
    """R = S T. With the quaternion (w, u) of R and p = u·a, T has that of (w, p a), over its length.

    By the quaternion, whose length is the cosine of half the angle by which R tilts the axis, and not by the
    entries of R, which have the square of it: near a half turn half of the digits are lost to that.
    """
    scaled, _, missing = rescaled(axis)
    a = normalized(choose(missing, [1.0, 0.0, 0.0], scaled))
    q = matrix_to_quaternion(rotation)
    w, p = q[0], dot(q[1:], a)
    squared = w * w + p * p
    # The quaternion is right to a few eps: what is shorter is nothing.
    locked = (detached(squared) < (4.0 * EPS) * (4.0 * EPS)) | missing
    w, p, squared = where(locked, 1.0, w), where(locked, 0.0, p), where(locked, 1.0, squared)
    twist = about(a, (w * w - p * p) / squared, (2.0 * w * p) / squared)
    return rotation @ twist.T, twist
