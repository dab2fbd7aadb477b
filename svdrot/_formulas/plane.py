"""2x2 matrices in closed form.

The inner product of M with the rotation (c, -s; s, c) is c x + s y, with x = m00 + m11 and y = m10 - m01; so
the nearest rotation is (x, y) / |(x, y)|, and |(x, y)| = s1 + s2 (s2 signed) is both tr(RᵀM) and the gap. Of
reflections (c, s; s, -c) it is the same with x = m00 - m11 and y = m10 + m01."""

from svdrot.engine.graph import Operation
from svdrot.engine.maps import formula
from svdrot.engine.words import maximum, once, root, sqrt, where

from .projection import share
from .vectors import TINY, dot, largest


def _scaled(m):
    scale = maximum(largest(m), TINY)
    k = 1.0 / scale
    return [k * x for x in m], scale, k


def _direction(x, y):
    """Cosine and sine; 1 and 0 where there are none, and every rotation is nearest."""
    square = x * x + y * y
    somewhere = square != 0.0
    k = 1.0 / sqrt(where(somewhere, square, 1.0))
    return where(somewhere, x, 1.0) * k, where(somewhere, y, 0.0) * k


def _nearest(a, b, c, d, damping=None):
    (a, b, c, d), _, _ = _scaled((a, b, c, d))
    x, y = _direction(a + d, c - b)
    return x, -y, y, x


def _nearest_either(a, b, c, d):
    (a, b, c, d), _, _ = _scaled((a, b, c, d))
    mirror = where(a * d < b * c, -1.0, 1.0)
    x, y = _direction(a + mirror * d, c - mirror * b)
    return x, -mirror * y, y, mirror * x


def _differential(arguments, results, along):
    """R [w]x with (s1 + s2) w = (RᵀT - TᵀR)_10, where `share` says that s1 + s2 counts.

    With `damping` as g / (g² + (damping |M|)²).
    """
    m, damping = arguments[:4], arguments[4:]
    m, _, k = _scaled(m)
    gap = dot(results, m)
    r00, r01, r10, r11 = results
    t00, t01, t10, t11 = along[:4]
    turn = (r01 * t00 + r11 * t10) - (r00 * t01 + r10 * t11)
    if damping:
        w = k * (gap * turn / (gap * gap + damping[0] * damping[0] * dot(m, m) + TINY))
    else:
        w = k * (share(gap) * turn / maximum(gap, TINY))
    return [r01 * w, -r00 * w, r11 * w, -r10 * w, *[0.0] * len(damping)]


def _operation(name, body, damped=False):
    def jvp(arguments, results, tangents):
        return _differential(arguments, results, tangents)[:4]

    return Operation(name, 4 + damped, 4, body, _differential, jvp)


_NEAREST = _operation("nearest_in_plane", _nearest)
_NEAREST_EITHER = _operation("nearest_either_in_plane", _nearest_either)
_DAMPED = _operation("nearest_in_plane_damped", _nearest, damped=True)


@formula({"matrix": (2, 2)}, (2, 2))
def project(matrix):
    return _NEAREST(*matrix.ravel())


@formula({"matrix": (2, 2)}, (2, 2), scalars=1)
def project_damped(matrix, damping):
    return _DAMPED(*matrix.ravel(), damping)


@formula({"matrix": (2, 2)}, (2, 2))
def project_either(matrix):
    """Reflections allowed."""
    return _NEAREST_EITHER(*matrix.ravel())


@formula({"matrix": (2, 2)}, ())
def gap(matrix):
    return _GAP(*matrix.ravel())[0]


def _gap(a, b, c, d):
    (a, b, c, d), scale, _ = _scaled((a, b, c, d))
    x, y = a + d, c - b
    return [scale * root(x * x + y * y)]


def _gap_slopes(m):
    return [once(x, "projection_gap is differentiable once") for x in _nearest(*m)]


_GAP = Operation(
    "gap_in_plane",
    4,
    1,
    _gap,
    lambda m, _, g: [g[0] * d for d in _gap_slopes(m)],
    lambda m, _, t: [dot(_gap_slopes(m), t)],
)
