"""Between representations of one rotation. Quaternions are w x y z, matrices arrays (3, 3), angles
radians."""

from svdrot.engine.graph import by_dtype
from svdrot.engine.maps import formula
from svdrot.engine.words import atan2, cos, detached, maximum, sin, sqrt, where

from .vectors import choose, dot, largest, normalized, rescaled_or_first_axis, vector


@formula({"quaternion": (4,)}, (3, 3))
def quaternion_to_matrix(q):
    return _unscaled_to_matrix(rescaled_or_first_axis(q))


def _unscaled_to_matrix(q):
    """The matrix of a quaternion of any length whose square is a number."""
    w, x, y, z = q
    s = 2.0 / dot(q, q)
    xs, ys, zs = s * x, s * y, s * z
    wx, wy, wz = xs * w, ys * w, zs * w
    xx, xy, xz, yy, yz, zz = xs * x, xs * y, xs * z, ys * y, ys * z, zs * z
    return vector(
        [1.0 - (yy + zz), xy - wz, xz + wy],
        [xy + wz, 1.0 - (xx + zz), yz - wx],
        [xz - wy, yz + wx, 1.0 - (xx + yy)],
    )


@formula({"matrix": (3, 3)}, (4,))
def matrix_to_quaternion(m):
    """The column of 4 q qᵀ with the largest diagonal entry, at least 1, normalized; w >= 0."""
    columns = four_outer_product(m)
    (ww, xx, yy, zz) = (columns[k][k] for k in range(4))
    first, third = detached(ww) >= detached(xx), detached(yy) >= detached(zz)
    upper, lower = where(first, ww, xx), where(third, yy, zz)
    q = choose(
        detached(upper) >= detached(lower),
        choose(first, columns[0], columns[1]),
        choose(third, columns[2], columns[3]),
    )
    k = 1.0 / sqrt(dot(q, q))
    return where(q[0] < 0.0, -k, k) * q


def four_outer_product(m):
    r"""$4 q q^\top$ of the unit quaternion $q$ of a rotation, linear in its entries."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = m
    return vector(
        [1.0 + xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, 1.0 + xx - yy - zz, xy + yx, xz + zx],
        [xz - zx, xy + yx, 1.0 - xx + yy - zz, yz + zy],
        [yx - xy, xz + zx, yz + zy, 1.0 - xx - yy + zz],
    )


# Below it the series are exact to rounding, their derivatives too; above it the closed forms, whose second
# derivative loses eps / x to cancellation, lose no more than eps^(5/6): x^2 < eps^(1/3).
SMALL = by_dtype((2.0**-23) ** (1 / 3), (2.0**-52) ** (1 / 3))


@formula({"axis_angle": (3,)}, (4,))
def axis_angle_to_quaternion(v):
    half = v * 0.5
    squared = dot(half, half)
    small = detached(squared) < SMALL
    angle = sqrt(where(small, 1.0, squared))
    series = where(small, squared, 0.0)
    cosine = where(small, 1.0 - series * (0.5 - series / 24.0), cos(angle))
    sinc = where(small, 1.0 - series * (1 / 6 - series / 120.0), sin(angle) / angle)
    return vector(cosine, *(sinc * half))


@formula({"axis_angle": (3,)}, (3, 3))
def axis_angle_to_matrix(v):
    return _unscaled_to_matrix(axis_angle_to_quaternion(v))


@formula({"matrix": (3, 3)}, (3,))
def matrix_to_axis_angle(m):
    return upper_quaternion_to_axis_angle(matrix_to_quaternion(m))


@formula({"quaternion": (4,)}, (3,))
def quaternion_to_axis_angle(q):
    return upper_quaternion_to_axis_angle(upper_quaternion(q))


def upper_quaternion(q):
    """The unit quaternion of the same rotation with w >= 0."""
    q = normalized(rescaled_or_first_axis(q))
    return where(q[0] < 0.0, -1.0, 1.0) * q


def upper_quaternion_to_axis_angle(q):
    r"""$2 \operatorname{atan2}(|u|, w)\, u / |u|$ of a unit quaternion $(w, u)$ with w >= 0."""
    w, u = q[0], q[1:]
    squared = dot(u, u)
    small = detached(squared) < SMALL
    sine = sqrt(where(small, 1.0, squared))
    inverse = 1.0 / where(small, w, 1.0)
    tangent = where(small, squared, 0.0) * inverse * inverse
    series = (1.0 - tangent * (1 / 3 - tangent * 0.2)) * inverse
    return where(small, 2.0 * series, 2.0 * atan2(sine, w) / sine) * u


@formula({"mrp": (3,)}, (4,))
def mrp_to_quaternion(p):
    # Every term over scale^2, so that none overflows; `scale` cancels, and derivatives may take it as
    # constant.
    scale = maximum(largest(p), 1.0)
    k = 1.0 / scale
    p, one = p * k, k * k
    squared = dot(p, p)
    return vector(one - squared, *(2.0 * k * p)) * (1.0 / (one + squared))


@formula({"quaternion": (4,)}, (3,))
def quaternion_to_mrp(q):
    return upper_quaternion_to_mrp(upper_quaternion(q))


def upper_quaternion_to_mrp(q):
    return q[1:] * (1.0 / (1.0 + q[0]))


@formula({"mrp": (3,)}, (3, 3))
def mrp_to_matrix(p):
    return _unscaled_to_matrix(mrp_to_quaternion(p))


@formula({"matrix": (3, 3)}, (3,))
def matrix_to_mrp(m):
    return upper_quaternion_to_mrp(matrix_to_quaternion(m))
