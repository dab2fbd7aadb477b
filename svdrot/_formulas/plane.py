"""2x2 matrices in closed form.

The inner product of M with the rotation (c, -s; s, c) is c x + s y, with x = m00 + m11 and y = m10 - m01; so
the nearest rotation is (x, y) / |(x, y)|, and |(x, y)| = s1 + s2 (s2 signed) is both tr(RᵀM) and the gap. Of
reflections (c, s; s, -c) it is the same with x = m00 - m11 and y = m10 + m01."""

from svdrot.engine.graph import Operation
from svdrot.engine.maps import formula
from svdrot.engine.words import detached, maximum, nothing_up_to, once, root, sqrt, where

from .projection import share
from .vectors import TINY, dot, largest


def _scaled(m):
    scale = maximum(largest(m), TINY)
    k = 1.0 / scale
    return [k * x for x in m], scale, k


def _sums(a, b, c, d):
    """Half of x and y, to a common factor, and that factor.

    Numbers of opposite sign must meet before they are scaled: of k a + k d one product may be rounded and the
    other not, and what is left has a direction of its own. Halves are exact, and do not overflow.
    """
    x, y = 0.5 * a + 0.5 * d, 0.5 * c - 0.5 * b
    scale = maximum(largest((x, y)), TINY)
    k = 1.0 / scale
    return k * x, k * y, scale


def _direction(x, y):
    """Cosine and sine; 1 and 0 where there are none, and every rotation is nearest."""
    square = x * x + y * y
    somewhere = square != 0.0
    k = 1.0 / sqrt(where(somewhere, square, 1.0))
    return where(somewhere, x, 1.0) * k, where(somewhere, y, 0.0) * k


def _nearest(a, b, c, d, damping=None):
    x, y, _ = _sums(a, b, c, d)
    x, y = _direction(x, y)
    return x, -y, y, x


def _nearest_either(a, b, c, d):
    (p, q, r, s), _, _ = _scaled((a, b, c, d))
    mirror = where(p * s < q * r, -1.0, 1.0)
    x, y, _ = _sums(a, mirror * b, c, mirror * d)
    x, y = _direction(x, y)
    return x, -mirror * y, y, mirror * x


def _differential(arguments, results, along):
    """R [w]x with (s1 + s2) w = (RᵀT - TᵀR)_10, where `share` says that s1 + s2 counts.

    With `damping` as g / (g² + (damping |M|)²).
    """
    m, damping = arguments[:4], arguments[4:]
    m, _, k = _scaled(m)
    r00, r01, r10, r11 = results
    w = k * (_inverse(m, results, damping) * _turn(results, along[:4]))
    return [r01 * w, -r00 * w, r11 * w, -r10 * w, *[0.0] * len(damping)]


def _turn(r, t):
    return (r[1] * t[0] + r[3] * t[2]) - (r[0] * t[1] + r[2] * t[3])


def _inverse(m, results, damping):
    gap = dot(results, m)
    if damping:
        return gap / (gap * gap + damping[0] * damping[0] * dot(m, m) + TINY)
    return share(gap) / maximum(gap, TINY)


def _recorded(body, *arguments):
    """The results R0 of `body`, with derivatives of the first three orders through each operation.

    R = R0 E, with E a turn by the angle of R0ᵀM, w = 0: that is atan2(y, g) for the gap g, whose inverse is
    here a constant. See `_recorded` of 3x3.
    """
    m, damping = arguments[:4], arguments[4:]
    fixed = [detached(x) for x in m]
    results = [detached(x) for x in body(*fixed, *damping)]
    scaled, _, k = _scaled(fixed)
    inverse = _inverse(scaled, results, damping)
    moved = [k * (x - y) for x, y in zip(m, fixed, strict=True)]
    y, g = inverse * _turn(results, moved), inverse * dot(results, moved)
    w = y * (1.0 - g + g * g) - y * y * y / 3.0
    sine, cosine = w * (1.0 - w * w / 6.0), -0.5 * w * w
    beyond = sum((nothing_up_to(3, x - y) for x, y in zip(m, fixed, strict=True)), 0.0)
    r00, r01, r10, r11 = results
    turned = (
        r00 * cosine + r01 * sine,
        r01 * cosine - r00 * sine,
        r10 * cosine + r11 * sine,
        r11 * cosine - r10 * sine,
    )
    return [r + (d + beyond) for r, d in zip(results, turned, strict=True)]


def _operation(name, body, damped=False):
    def jvp(arguments, results, tangents):
        return _differential(arguments, results, tangents)[:4]

    def recorded(*arguments):
        return _recorded(body, *arguments)

    return Operation(name, 4 + damped, 4, body, _differential, jvp, recorded)


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
    x, y, scale = _sums(a, b, c, d)
    return [scale * (2.0 * root(x * x + y * y))]


def _gap_slopes(m):
    return [once(x, "projection_gap is differentiable once") for x in _nearest(*m)]


def _recorded_gap(*m):
    """The gap, and its slopes times nothing; a second derivative is not finite."""
    fixed = [detached(x) for x in m]
    moved = [x - y for x, y in zip(m, fixed, strict=True)]
    beyond = sum((nothing_up_to(1, x) for x in moved), 0.0)
    return [_gap(*fixed)[0] + (dot(_nearest(*fixed), moved) + beyond)]


_GAP = Operation(
    "gap_in_plane",
    4,
    1,
    _gap,
    lambda m, _, g: [g[0] * d for d in _gap_slopes(m)],
    lambda m, _, t: [dot(_gap_slopes(m), t)],
    _recorded_gap,
)
