r"""The Lie groups SE(3) and Sim(3): exponential, logarithm, adjoint, and derivatives of the exponential.

A twist is (w, v) or (w, v, g): a rotation vector, a translation part and the logarithm of a scale. It stands
for the matrix [[W + g I, v], [0, 0]] with W = [w]. Its exponential has the rotation exp(W), the scale exp(g)
and the translation P v, where P is the integral of exp(s (W + g I)) over s from 0 to 1: for g = 0 the left
Jacobian J(w) of SO(3).

The left Jacobian of SE(3) is [[J, 0], [D, J]], where D is the derivative of J(w) along v, and the inverse of
it [[J⁻¹, 0], [E, J⁻¹]], where E is that of J⁻¹. With x = |w|², t = |w|, and a, b, c of `so3`,

    D = a V + b (W V + V W) + 2 a' (w·v) W + 2 b' (w·v) W²
    E = - V / 2 + c (W V + V W) + 2 c' (w·v) W²

    2 a' = (1 - 2 a) / x - b,   2 b' = (a - 3 b) / x,   2 c' = (1 / (4 sin² (t / 2)) - 1 / x - c) / x

and W V + V W = w vᵀ + v wᵀ - 2 (w·v) I. That D is the Q of Barfoot, "State Estimation for Robotics", section
7.1.5, in which products of three and four skew matrices are what they come to: W V W = -(w·v) W.
"""

from math import factorial

from svdrot._formulas.conversions import axis_angle_to_matrix, matrix_to_axis_angle
from svdrot._formulas.turns import geodesic_distance, slerp
from svdrot._formulas.vectors import choose, cross, dot, length, outer, vector
from svdrot.engine.maps import formula
from svdrot.engine.words import absolute, detached, exp, expm1, log, where

from . import so3
from .skew import hat
from .so3 import Angle, horner, polynomial

NAN = float("nan")
POSE = {"rotation": (3, 3), "translation": (3,), "scale": ()}
POSED = [(3, 3), (3,), ()]

# Derivatives by x of the series of `so3`, times 2.
A_SLOPE = [2 * k * value for k, value in enumerate(so3.A_SERIES)][1:]
B_SLOPE = [2 * k * value for k, value in enumerate(so3.B_SERIES)][1:]
C_SLOPE = [2 * k * value for k, value in enumerate(so3.C_SERIES)][1:]


@formula({"twist": (6,)}, POSED)
def exponential(twist):
    w, v = twist[:3], twist[3:]
    return axis_angle_to_matrix(w), so3.left_jacobian(w) @ v, 1.0


@formula(POSE, (6,), scalars=1)
def logarithm(rotation, translation, scale, tolerance):
    """NaN where the scale is not 1 up to the tolerance: that has no logarithm here."""
    w = matrix_to_axis_angle(rotation)
    v = so3.left_jacobian_inverse(w) @ translation
    rigid = absolute(detached(scale) - 1.0) <= tolerance
    return [where(rigid, x, NAN) for x in (*w, *v)]


@formula(POSE, (6, 6))
def adjoint(rotation, translation, scale):
    return _blocks(rotation, _crossed(translation, rotation), scale * rotation)


@formula(POSE, (7, 7))
def similar_adjoint(rotation, translation, scale):
    rows = _blocks(rotation, _crossed(translation, rotation), scale * rotation)
    ends = [0.0, 0.0, 0.0, *(-translation)]
    return vector(*([*row, end] for row, end in zip(rows, ends, strict=True)), [0.0] * 6 + [1.0])


def _crossed(v, matrix):
    """[v] M, by columns."""
    return vector(*(cross(v, column) for column in matrix.T)).T


def _blocks(upper, below, lower):
    """[[upper, 0], [below, lower]]."""
    zeros = [0.0, 0.0, 0.0]
    return vector(*([*row, *zeros] for row in upper), *([*a, *b] for a, b in zip(below, lower, strict=True)))


def _slope(v, w, first, second, first_slope, second_slope):
    """The derivative of first W + second W² along v, of functions of |w|² and twice their derivatives."""
    along = dot(w, v)
    turns = outer(w, v) + outer(v, w)
    squares = outer(w, w)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        turns[i, i] = -2.0 * (w[j] * v[j] + w[k] * v[k])
        squares[i, i] = -(w[j] * w[j] + w[k] * w[k])
    skew = hat(first * v + (first_slope * along) * w)
    return skew + second * turns + (second_slope * along) * squares


@formula({"twist": (6,)}, (6, 6))
def left_jacobian(twist):
    w, v = twist[:3], twist[3:]
    angle = Angle(w)
    a, b = so3.first(angle), so3.second(angle)
    x = angle.above
    a_slope = angle.chosen(A_SLOPE, (1.0 - 2.0 * a) / x - b)
    b_slope = angle.chosen(B_SLOPE, (a - 3.0 * b) / x)
    j = polynomial(w, a, b)
    return _blocks(j, _slope(v, w, a, b, a_slope, b_slope), j)


@formula({"twist": (6,)}, (6, 6))
def left_jacobian_inverse(twist):
    w, v = twist[:3], twist[3:]
    angle = Angle(w)
    c = so3.inverse_second(angle)
    x = angle.above
    c_slope = angle.chosen(C_SLOPE, (0.25 / (angle.sine * angle.sine) - 1.0 / x - c) / x)
    j = polynomial(w, -0.5, c)
    return _blocks(j, _slope(v, w, -0.5, c, 0.0, c_slope), j)


@formula({"twist": (6,)}, (6, 6))
def right_jacobian(twist):
    return left_jacobian(-twist)


@formula({"twist": (6,)}, (6, 6))
def right_jacobian_inverse(twist):
    return left_jacobian_inverse(-twist)


# Sim(3) -----------------------------------------------------------------------------------------------------

TERMS = 22  # of the exponential series: 1 / 22! is 1e-21, and two derivatives are right to rounding, too


REAL_SERIES = [1 / factorial(n + 1) for n in range(TERMS)]
SINC_SERIES = [(-1) ** k / factorial(2 * k + 1) for k in range(10)]


def _coefficients(w, growth):
    """A, B, C of P = A I + B W + C W², and x.

    With z = g + i t and f(z) = (e^z - 1) / z it is A = f(g), B = Im f(z) / t, C = (A - Re f(z)) / x: by power
    series where |z| < 1, in which zⁿ = p + i t q and gⁿ - p = x r, and elsewhere, dividing by nothing small,

        B = (1 - e^g (cos t - g sin(t) / t)) / |z|²,   C = (A + e^g (g (1 - cos t) / x - sin(t) / t)) / |z|²
    """
    g = growth
    angle = Angle(w)
    x = dot(w, w)
    size = x + g * g
    small = detached(size) < 1.0
    power, p, q, r = 1.0, 1.0, 0.0, 0.0
    g_in, x_in = where(small, g, 0.0), where(small, x, 0.0)
    series = [1.0, 0.0, 0.0]
    for n in range(1, TERMS):
        power, p, q, r = power * g_in, g_in * p - x_in * q, p + g_in * q, q + g_in * r
        series = [s + (1.0 / factorial(n + 1)) * y for s, y in zip(series, (power, q, r), strict=True)]

    few = absolute(detached(g)) < 1.0
    some = where(few, 1.0, g)
    f = where(few, horner(REAL_SERIES, where(few, g, 0.0)), expm1(some) / some)
    a = so3.first(angle)
    ratio = angle.sine / angle.half
    sinc = angle.chosen(SINC_SERIES, ratio * angle.cosine)
    grown = exp(g)
    divisor = 1.0 / where(small, 1.0, size)
    first = (1.0 - grown * (1.0 - x * a - g * sinc)) * divisor
    second = (f + grown * (g * a - sinc)) * divisor
    return f, where(small, series[1], first), where(small, series[2], second), x


@formula({"twist": (7,)}, POSED)
def similar_exponential(twist):
    w, v, growth = twist[:3], twist[3:6], twist[6]
    first, second, third, _ = _coefficients(w, growth)
    turned = cross(w, v)
    return axis_angle_to_matrix(w), first * v + second * turned + third * cross(w, turned), exp(growth)


@formula(POSE, (7,))
def similar_logarithm(rotation, translation, scale):
    return vector(*similar_twist(rotation, translation, scale))


def similar_twist(rotation, translation, scale):
    w, growth = matrix_to_axis_angle(rotation), log(scale)
    first, second, third = _inverse_coefficients(w, growth)
    turned = cross(w, translation)
    return [*w, *(first * translation + second * turned + third * cross(w, turned)), growth]


def _inverse_coefficients(w, growth):
    """Those of P⁻¹. P has the eigenvalues A along w, and A - x C ± i t B across; P⁻¹ has 1 over them."""
    a, b, c, x = _coefficients(w, growth)
    real = a - x * c
    squared = 1.0 / (real * real + x * b * b)
    return 1.0 / a, -b * squared, (b * b - c * real) * squared / a


# Between two poses ------------------------------------------------------------------------------------------

ENDS = {f"{end}_{name}": shape for end in ("start", "end") for name, shape in POSE.items()}
GUARDED = tuple(ENDS)


@formula(ENDS, POSED, guarded=False)
def composed(r, t, s, first_r, first_t, first_s):
    return r @ first_r, t + s * (r @ first_t), s * first_s


@formula(POSE, POSED, guarded=False)
def inverted(rotation, translation, scale):
    shrunk = 1.0 / scale
    return rotation.T, -shrunk * (rotation.T @ translation), shrunk


@formula(ENDS, (7,))
def relative_twist(r, t, s, end_r, end_t, end_s):
    """log(start⁻¹ end)."""
    shrunk = 1.0 / s
    return vector(*similar_twist(r.T @ end_r, shrunk * (r.T @ (end_t - t)), end_s * shrunk))


@formula(POSE | {"twist": (7,)}, POSED)
def moved(r, t, s, twist):
    """start exp(twist)."""
    turn, move, growth = similar_exponential(twist)
    return r @ turn, t + s * (r @ move), s * growth


@formula(ENDS | {"share": ()}, POSED, guarded=GUARDED)
def screw(r, t, s, end_r, end_t, end_s, share):
    """start exp(share log(start⁻¹ end))."""
    known = share - share == 0.0
    k = where(known, share, 0.0)
    return _known(known, *moved(r, t, s, k * relative_twist(r, t, s, end_r, end_t, end_s)))


@formula(ENDS | {"share": ()}, POSED, guarded=GUARDED)
def split(r, t, s, end_r, end_t, end_s, share):
    """Rotations by a geodesic, translations by a line, and the logarithms of scales by a line."""
    known = share - share == 0.0
    k = where(known, share, 0.0)
    return _known(known, slerp(r, end_r, k), t + k * (end_t - t), s * exp(k * log(end_s / s)))


def _known(known, rotation, translation, scale):
    rows = [choose(known, row, [NAN] * 3) for row in vector(*rotation).reshape(3, 3)]
    return vector(*rows), choose(known, translation, [NAN] * 3), where(known, scale, NAN)


@formula({"rotation": (3, 3), "translation": (3,), "end_rotation": (3, 3), "end_translation": (3,)}, [(), ()])
def distance(r, t, end_r, end_t):
    """The angle between rotations, and the length between translations."""
    return geodesic_distance(r, end_r), length(end_t - t)


# The mean ---------------------------------------------------------------------------------------------------


@formula({"mean": (3, 3), "size": (), "rotation": (3, 3), "scale": ()}, (3, 3))
def pull(mean, size, rotation, scale):
    """P⁻¹ Rᵀ: up to a factor, log(M⁻¹ T) has this of what is between the translations of M and T."""
    w, growth = matrix_to_axis_angle(mean.T @ rotation), log(scale / size)
    first, second, third = _inverse_coefficients(w, growth)
    return vector(*(_pulled(w, column, first, second, third) for column in mean)).T


def _pulled(w, column, first, second, third):
    turned = cross(w, column)
    return first * column + second * turned + third * cross(w, turned)


@formula({"matrix": (3, 3), "vector": (3,)}, (3,))
def solved(m, v):
    """M⁻¹ v by cofactors."""
    x, y, z = m.T
    yz = cross(y, z)
    return vector(dot(v, yz), dot(v, cross(z, x)), dot(v, cross(x, y))) * (1.0 / dot(x, yz))
