"""The algebra of quaternions w x y z: products, powers, arcs, and what a mean is made of."""

from svdrot._formulas.conversions import (
    SMALL,
    axis_angle_to_quaternion,
    matrix_to_quaternion,
    upper_quaternion_to_axis_angle,
)
from svdrot._formulas.linear import symmetric_10d_to_matrix
from svdrot._formulas.vectors import (
    choose,
    cross,
    dot,
    largest,
    multiplied,
    normalized,
    rescaled,
    rescaled_or_first_axis,
    vector,
)
from svdrot.engine.graph import by_dtype
from svdrot.engine.maps import Map, formula
from svdrot.engine.words import atan2, detached, exp, log, sqrt, where

NAN = float("nan")
ONE, ZERO = vector(1.0, 0.0, 0.0, 0.0), vector(0.0, 0.0, 0.0, 0.0)


@formula({"a": (4,), "b": (4,)}, (4,))
def multiply(a, b):
    return multiplied(a, b)


@formula({"quaternion": (4,)}, (4,))
def conjugate(q):
    return conjugated(q)


def conjugated(q):
    return vector(q[0], *(-q[1:]))


@formula({"quaternion": (4,)}, (4,))
def normalize(q):
    """q / |q|; 1 for the zero quaternion."""
    return normalized(rescaled_or_first_axis(q))


@formula({"quaternion": (4,)}, (4,))
def invert(q):
    """The conjugate over the square of the length; 0 for the zero quaternion."""
    u, k, missing = rescaled(q)
    squared = where(missing, 1.0, dot(u, u))
    return choose(missing, ZERO, conjugated(u) * (k / squared))


@formula({"quaternion": (4,), "point": (3,)}, (3,))
def apply(q, point):
    """v + w t + u x t with t = 2 u x v / |q|², of q = (w, u)."""
    q = rescaled_or_first_axis(q)
    w, u = q[0], q[1:]
    t = (2.0 / dot(q, q)) * cross(u, point)
    return point + (w * t + cross(u, t))


@formula({"quaternion": (4,)}, (4,))
def exponential(q):
    """e^w times the unit quaternion of the rotation vector 2 u."""
    return exp(q[0]) * axis_angle_to_quaternion(2.0 * q[1:])


# On the negative real axis every direction is as good; so close to it, relative to w, the first axis is
# taken, or else the second derivative, 1 / |u|², would not be finite.
ON_AXIS = by_dtype(2.0**-56, 2.0**-500)


@formula({"quaternion": (4,)}, (4,))
def logarithm(q):
    """(log |q|, atan2(|u|, w) u / |u|)."""
    scaled, k, missing = rescaled(q)
    p = choose(missing, ONE, scaled)
    real = 0.5 * log(dot(p, p)) - log(k)
    return choose(missing, [NAN] * 4, vector(real, *_turn(p)))


def _turn(q):
    """atan2(|u|, w) u / |u|, of a quaternion whose largest entry is 1."""
    w, u = q[0], q[1:]
    squared = dot(u, u)
    small = (detached(squared) < SMALL) & (detached(w) > 0.0)
    inverse = 1.0 / where(small, w, 1.0)
    tangent = where(small, squared, 0.0) * inverse * inverse
    series = (1.0 - tangent * (1 / 3 - tangent * 0.2)) * inverse
    size = largest(u)
    straight = small | (size < ON_AXIS)
    e = choose(straight, [1.0, 0.0, 0.0], u * (1.0 / where(straight, 1.0, size)))
    n = sqrt(dot(e, e))
    angle = atan2(where(straight, 0.0, size * n), w)
    return choose(small, series * u, (angle / n) * e)


def _power(q, exponent):
    """exp(t log q); 0 for the zero quaternion."""
    missing = rescaled(q)[2]
    return choose(missing, ZERO, exponential(exponent * logarithm(choose(missing, ONE, q))))


def _slerp(start, end, share):
    """a (a⁻¹ b)^t, with the sign of b for which the real part of a⁻¹ b is not negative."""
    a = normalize(start)
    between = multiplied(conjugated(a), rescaled_or_first_axis(end))  # of which only the direction counts
    between = where(between[0] < 0.0, -1.0, 1.0) * between
    known = share - share == 0.0
    turn = where(known, share, 0.0) * upper_quaternion_to_axis_angle(between)
    return [where(known, x, NAN) for x in multiplied(a, axis_angle_to_quaternion(turn))]


# With a number for each element, or one for all, which is neither read nor checked again and again.
ARC = {"start": (4,), "end": (4,)}
power = Map(_power, {"quaternion": (4,), "exponent": ()}, (4,), name=f"{__name__}.power")
power_of_all = Map(_power, {"quaternion": (4,)}, (4,), scalars=1, name=f"{__name__}.power_of_all")
slerp = Map(_slerp, ARC | {"share": ()}, (4,), guarded=("start", "end"), name=f"{__name__}.slerp")
slerp_of_all = Map(_slerp, ARC, (4,), scalars=1, name=f"{__name__}.slerp_of_all")


@formula({"quaternion": (4,), "weight": ()}, (10,), guarded=("weight",))
def weighted_outer(q, weight):
    """The upper triangle of w q qᵀ of the unit quaternion; 0 for weight 0, whatever q is."""
    ignored = weight == 0.0
    q = normalize(choose(ignored, ONE, q))
    weight = where(weight < 0.0, NAN, weight)
    return [weight * q[i] * q[k] for i in range(4) for k in range(i, 4)]


@formula({"symmetric": (10,)}, (4,))
def largest_eigenvector(symmetric):
    return matrix_to_quaternion(symmetric_10d_to_matrix(-symmetric))
