r"""The projective manifold gradient of raw numbers, by representation; see `svdrot.nn.manifold_gradient`.

x are raw numbers, r their rotation, omega the gradient in rotation vectors of rᵀr', and a lift is
$J^+ \omega$, with J the Jacobian of the map from x to rotation vectors."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from svdrot.engine.maps import Map

from .conversions import matrix_to_quaternion
from .frames import matrix_to_rotation_6d
from .linear import matrix_to_symmetric_10d
from .turns import axial
from .vectors import cross, dot, length, normalized, rescaled_or_first_axis, vector


def _lift_9d(x, r, omega):
    r"""The fiber of R is R P, P symmetric. With $\delta = (\operatorname{tr} P\, I - P)^{-1}
    (R^\top dM - dM^\top R)^\vee$, $J^\top$ multiplies by that inverse and $J J^\top$ is twice its square, so
    $J^+ \omega = \frac12 R\, [(\operatorname{tr} P\, I - P)\, \omega]_\times$: nothing is divided by.
    """
    p = r.T @ x.reshape(3, 3)
    half = 0.5 * (np.trace(p) * omega - p @ omega)
    return vector(*[cross(row, half) for row in r])  # a row times [v]x is its product with v


def _standard_9d(x, r):
    return r


def _lift_6d(x, r, omega):
    """The fiber of (u, v, w) is (a u, b u + c v) with any a, b, c; turned by omega, u moves by omega_3 v -
    omega_2 w, and v in the direction of w by omega_1. What moves the vectors along the fiber is left out."""
    u, v, w = r.T
    one, two, three = omega
    a, b, c = dot(x[:3], u), dot(x[3:], u), dot(x[3:], v)
    return vector(*(a * (three * v - two * w)), *((c * one - b * two) * w))


def _standard_6d(x, r):
    return matrix_to_rotation_6d(r)


def _lift_quaternion(x, r, omega):
    """The fiber is the line through x, perpendicular to half the product of x and (0, omega)."""
    return 0.5 * _times_imaginary(x, omega)


def _times_imaginary(q, v):
    """The quaternion product of q and (0, v)."""
    w, u = q[0], q[1:]
    return vector(-dot(u, v), *(w * v + cross(u, v)))


def _standard_quaternion(x, r):
    return normalized(rescaled_or_first_axis(x))


def _lift_10d(x, r, omega):
    r"""The fiber of q are the symmetric A with A q = $\lambda$ q. To first order A + dA has the eigenvector
    q + d if dA q = $-(A - \lambda) d = -y$ up to multiples of q; least in Frobenius norm is $-(q y^\top + y
    q^\top)$, as y is perpendicular to q. (In the norm of the ten numbers, each off-diagonal entry counted
    once, it would depend on the frame.)
    """
    q = matrix_to_quaternion(r)
    a = x[SYMMETRIC]
    d = 0.5 * _times_imaginary(q, omega)
    y = a @ d - dot(q, a @ q) * d
    return [-(q[i] * y[k] + y[i] * q[k]) for i in range(4) for k in range(i, 4)]


SYMMETRIC = np.array([[0, 1, 2, 3], [1, 4, 5, 6], [2, 5, 7, 8], [3, 6, 8, 9]])  # places in the ten numbers


def _standard_10d(x, r):
    return matrix_to_symmetric_10d(r)


class Fiber(NamedTuple):
    """What is known of the raw numbers with one rotation."""

    lift: Map  # (x, r, omega) -> J⁺ omega, of the shape of x
    standard: Map  # (x, r) -> the raw numbers of r that its own inverse map gives
    gradient: Map  # (x, r, gradient of r; pull) -> that of x


def _fiber(features: int, lift: Callable, standard: Callable) -> Fiber:
    name = lift.__name__.removeprefix("_")
    numbers = {"x": (features,), "r": (3, 3)}

    def gradient(x, r, g, pull):
        # <G, R [w]x> = w . (RᵀG - GᵀR)^v
        omega = axial(r.T @ g)
        strength = pull * length(omega)
        parts = zip(np.ravel(lift(x, r, omega)), x, np.ravel(standard(x, r)), strict=True)
        return [along + strength * (number - goal) for along, number, goal in parts]

    return Fiber(
        Map(lift, {**numbers, "omega": (3,)}, (features,), name=f"{__name__}.{name}"),
        Map(standard, numbers, (features,), name=f"{__name__}.{name}.standard"),
        Map(gradient, {**numbers, "g": (3, 3)}, (features,), scalars=1, name=f"{__name__}.{name}.gradient"),
    )


FIBERS = {
    "svd": _fiber(9, _lift_9d, _standard_9d),
    "6d": _fiber(6, _lift_6d, _standard_6d),
    "quaternion": _fiber(4, _lift_quaternion, _standard_quaternion),
    "10d": _fiber(10, _lift_10d, _standard_10d),
}
