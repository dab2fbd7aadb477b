r"""Two views: essential matrices, their poses, and how far pairs of image points are from a matrix.

With M = U diag(s1, s2, s3) Vᵀ, U and V rotations and s3 signed, let u, v be the singular pair of s3. Nearest
to M is the essential matrix f (R - u vᵀ) of the nearest rotation R = U Vᵀ and f = (s1 + s2) / 2, and of
rank two M - s3 u vᵀ. Neither asks for U and V where s1 = s2: `split` gives (u, v) if s3 is the isolated
singular value; else it gives that of s1, and (u, v) is an eigenvector of a symmetric matrix 2x2.

Derivatives: let (p, q, v) and (e, f, u) = R (p, q, v) be frames, D = (e, f, u)ᵀ T (p, q, v) the tangent T in
them, and A = (e, f)ᵀ M (p, q), symmetric, of eigenvalues s1 and s2. With y and k half of the sum and of the
difference of the borders (D13, D23) and (D31, D32), the derivative has the borders Y + K and Y - K:

    essential    Y = f (A - s3)⁻¹ y,   K = f (A + s3)⁻¹ k,   the block ((D11 + D22) I + (D12 - D21) J) / 2
    rank two     Y = y + s3 (A - s3)⁻¹ y,   K = k - s3 (A + s3)⁻¹ k,   the block of D

with J = (0, 1; -1, 0). Nothing is divided by s1 - s2. Both are symmetric, as of all projections: the product
from the left is that from the right. Differences s2 - |s3| count as pair sums do, by `share`.

The pose: of E = [t] R with |t| = 1 the cofactors are t tᵀ R, and R = cof E - [t] E, once for t and once for
-t (Horn, "Recovering baseline and orientation from essential matrix", 1990).
"""

import numpy as np

from svdrot._formulas import projection
from svdrot._formulas.projection import HALF, ONE, ZERO, columns, combine, outer_sum, rows, scaled, split
from svdrot._formulas.vectors import EPS, TINY, choose, cross, dot, largest, normalized, vector
from svdrot.engine.graph import Operation
from svdrot.engine.maps import formula
from svdrot.engine.words import absolute, detached, maximum, minimum, nothing_up_to, root, sqrt, where

NAN = float("nan")

# Projections ------------------------------------------------------------------------------------------------


def _least(m):
    """What both projections are made of, for M over its largest entry.

    Its columns; the bases of `split`; the isolated singular value; sum and difference of the other two; x, y,
    of which (1/2 + x, y; y, 1/2 - x) is the projector on the greater one; whether s1 is the isolated one.
    """
    a, b, c = projection.normalized(*columns(m))
    u, v, e, f, p, q, mp, mq, is_largest = split(a, b, c)
    total = projection.dot(e, mp) + projection.dot(f, mq)
    x, y = (
        projection.dot(e, mp) - projection.dot(f, mq),
        projection.dot(e, mq) + projection.dot(f, mp),
    )
    size = maximum(absolute(x), absolute(y))  # of which the square may be 0
    some = size > TINY
    k = ONE / where(some, size, ONE)
    x, y = where(some, k * x, ONE), where(some, k * y, ZERO)
    norm = sqrt(x * x + y * y)
    k = HALF / norm
    own = projection.dot(u, projection.apply(a, b, c, v))
    return (a, b, c), (u, v, e, f, p, q), own, total, where(some, size * norm, ZERO), k * x, k * y, is_largest


def _combined(bases, own, ep, eq, fq):
    """The entries of own u vᵀ + ep e pᵀ + eq (e qᵀ + f pᵀ) + fq f qᵀ."""
    u, v, e, f, p, q = bases
    return rows(*outer_sum(scaled(own, u), v, combine(ep, e, eq, f), p, combine(eq, e, fq, f), q))


def _scale(m):
    size = largest(m)
    return where(size == ZERO, ZERO, maximum(size, TINY))


def _essential(*m):
    _, bases, own, total, spread, x, y, is_largest = _least(m)
    f = HALF * where(is_largest, own + HALF * (total + spread), total)
    ep, fq = where(is_largest, HALF + x, ONE), where(is_largest, HALF - x, ONE)
    found = _combined(bases, where(is_largest, ONE, ZERO), ep, where(is_largest, y, ZERO), fq)
    scale = _scale(m)
    return [scale * (f * x) for x in found]


def _rank_two(*m):
    abc, bases, own, total, spread, x, y, is_largest = _least(m)
    s3 = where(is_largest, HALF * (total - spread), own)
    ep, fq = where(is_largest, HALF - x, ZERO), where(is_largest, HALF + x, ZERO)
    least = _combined(bases, where(is_largest, ZERO, ONE), ep, where(is_largest, -y, ZERO), fq)
    scale = _scale(m)
    return [scale * (x - s3 * y) for x, y in zip(rows(*abc), least, strict=True)]


def _matrix(entries):
    return vector(*entries).reshape(3, 3)


def _cofactors(m):
    a, b, c = m
    return vector(cross(b, c), cross(c, a), cross(a, b))


def _direction(a, b, c):
    """The unit vector of the longest of three; that of z if all are 0."""
    aa, bb, cc = dot(a, a), dot(b, b), dot(c, c)
    a = choose(cc > maximum(aa, bb), c, choose(aa >= bb, a, b))
    square = dot(a, a)
    none = detached(square) < TINY
    return choose(none, [ZERO, ZERO, ONE], a * (ONE / sqrt(where(none, ONE, square))))


def of_unit_length(e):
    """An essential matrix over its two singular values, diag(1, 1, 0) for zero; and these."""
    square = HALF * dot(e, e)
    none = detached(square) < TINY
    f = sqrt(where(none, ONE, square))
    return choose(none, [ONE, ZERO, ZERO, ZERO, ONE, ZERO, ZERO, ZERO, ZERO], e * (ONE / f)), where(
        none, ZERO, f
    )


def _essential_differential(m, e, along):
    m, e = _rescaled(m, e)
    e, f = of_unit_length(e)
    e = _matrix(e)
    n = _cofactors(e)

    def bent(d, even, odd, y, k, s3):
        mean, turn = HALF * (d[0, 0] + d[1, 1]), HALF * (d[0, 1] - d[1, 0])
        return [[mean, turn], [-turn, mean]], f * even, f * odd

    return _differential(_matrix(m), e + n, _direction(*n.T), along, bent)


def _rank_two_differential(m, x, along):
    m, x = _rescaled(m, x)

    def bent(d, even, odd, y, k, s3):
        return d[:2, :2], y + s3 * even, k - s3 * odd

    u = _direction(*_cofactors(_matrix(x)).T)
    return _differential(_matrix(m), projection.project(_matrix(m)), u, along, bent)


def _rescaled(m, x):
    """Both over the largest entry of M, which does not change the derivative."""
    k = ONE / maximum(largest(m), TINY)
    return k * vector(*m), k * vector(*x)


def _differential(m, r, u, along, bent):
    v = u @ r
    p, q = (vector(*x) for x in projection.frame(v))
    e, f = r @ p, r @ q
    left, right = np.stack((e, f, u), 1), np.stack((p, q, v), 1)
    d = left.T @ _matrix(along) @ right
    mp, mq = m @ p, m @ q
    s3 = dot(u, m @ v)
    xx, yy, xy = dot(e, mp), dot(f, mq), HALF * (dot(e, mq) + dot(f, mp))
    y, k = HALF * (d[:2, 2] + d[2, :2]), HALF * (d[:2, 2] - d[2, :2])
    even = vector(*SOLVE(xx - s3, yy - s3, xy, *y))
    odd = vector(*SOLVE(xx + s3, yy + s3, xy, *k))
    block, even, odd = bent(d, even, odd, y, k, s3)
    inner = vector([*block[0], even[0] + odd[0]], [*block[1], even[1] + odd[1]], [*(even - odd), ZERO])
    return [*(left @ inner @ right.T).ravel()]


# Symmetric systems 2x2 --------------------------------------------------------------------------------------


def _solve(xx, yy, xy, bx, by):
    """A⁺ b for symmetric A without negative eigenvalues: `share` says from where on they count."""
    mean, half = HALF * (xx + yy), HALF * (xx - yy)
    even, odd = projection.shared_inverse(mean, sqrt(maximum(half * half + xy * xy, TINY)))
    return even * bx + odd * (half * bx + xy * by), even * by + odd * (xy * bx - half * by)


def _solve_vjp(arguments, w, cotangents):
    x, y = SOLVE(*arguments[:3], *cotangents)
    return [-x * w[0], -y * w[1], -(x * w[1] + y * w[0]), x, y]


def _solve_jvp(arguments, w, tangents):
    xx, yy, xy, bx, by = tangents
    return SOLVE(*arguments[:3], bx - xx * w[0] - xy * w[1], by - xy * w[0] - yy * w[1])


def _recorded_solve(xx, yy, xy, bx, by):
    """With derivatives of the first three orders: A is a constant, and steps count its deviation."""
    a, b, c = detached(xx), detached(yy), detached(xy)
    dxx, dyy, dxy = xx - a, yy - b, xy - c
    w = _solve(a, b, c, bx, by)
    for _ in range(3):
        w = _solve(a, b, c, bx - dxx * w[0] - dxy * w[1], by - dxy * w[0] - dyy * w[1])
    beyond = sum((nothing_up_to(3, x) for x in (dyy, dxy)), nothing_up_to(3, dxx))
    return [x + beyond for x in w]


SOLVE = Operation("solve_in_plane", 5, 2, _solve, _solve_vjp, _solve_jvp, _recorded_solve)


# The maps ---------------------------------------------------------------------------------------------------


def _operation(name, body, differential):
    def recorded(*m):
        """The results E0 of `body`, with derivatives of the first three orders through each operation.

        With J(M, E) the derivative, E(M0 + d) is E0 + J(M0, E0) d up to the first order, by the middle of the
        way E0 + J(M0 + d / 2, E) d up to the second, and by Radau's quadrature E0 + (J(M0, E0) + 3 J(M0 + 2 d
        / 3, E)) d / 4 up to the third, each with E of one order less. Here d is always 0.
        """
        fixed = [detached(x) for x in m]
        start = vector(*[detached(x) for x in body(*fixed)])
        fixed, step = vector(*fixed), vector(*[x - y for x, y in zip(m, fixed, strict=True)])

        def moved(share, e):
            return vector(*differential(fixed + share * step, e, step))

        first = moved(ZERO, start)
        third = start + (2.0 / 3.0) * moved(1.0 / 3.0, start + (1.0 / 3.0) * first)
        found = start + 0.25 * first + 0.75 * moved(2.0 / 3.0, third)
        return [*(found + sum((nothing_up_to(3, x) for x in step[1:]), nothing_up_to(3, step[0])))]

    return Operation(name, 9, 9, body, differential, differential, recorded)


_NEAREST_ESSENTIAL = _operation("nearest_essential", _essential, _essential_differential)
_NEAREST_RANK_TWO = _operation("nearest_rank_two", _rank_two, _rank_two_differential)


@formula({"matrix": (3, 3)}, (3, 3))
def project(matrix):
    return _NEAREST_ESSENTIAL(*matrix.ravel())


@formula({"matrix": (3, 3)}, (3, 3))
def project_to_rank_two(matrix):
    return _NEAREST_RANK_TWO(*matrix.ravel())


POSE = {"rotation": (3, 3), "translation": (3,)}
PAIR = {"a": (2,), "b": (2,)}


@formula(POSE, (3, 3))
def from_pose(rotation, translation):
    """[t] R, by columns."""
    return vector(*(cross(translation, column) for column in rotation.T)).T


@formula({"essential": (3, 3)}, [(3, 3), (3, 3), (3,)])
def decompose(essential):
    """The rotations for t and for -t, and t, of the nearest essential matrix."""
    entries = essential.ravel()
    k = ONE / where(largest(entries) == ZERO, ONE, maximum(largest(entries), TINY))
    e, _ = of_unit_length(vector(*_NEAREST_ESSENTIAL(*(k * entries))))
    e = _matrix(e)
    n = _cofactors(e)
    t = _direction(*n.T)
    turned = from_pose.formula(e, t)
    return n - turned, n + turned, t


def _bearings(rotation, a, b):
    """The rays to a point in the frame of b, of depth 1."""
    return rotation @ vector(*a, ONE), vector(*b, ONE)


@formula(POSE | PAIR, (2,), guarded=False)
def in_front(rotation, translation, a, b):
    """1 where the point that two rays meet in has positive depths in both views, for t and for -t; else 0.

    s x + t = r y gives s y × x = -y × t and r x × y = x × t: signs are those of products with x × y.
    """
    x, y = _bearings(rotation, a, b)
    normal = cross(x, y)
    s, r = dot(cross(translation, y), -normal), dot(cross(x, translation), normal)
    both = (s > ZERO) & (r > ZERO)
    neither = (s < ZERO) & (r < ZERO)
    return where(both, ONE, ZERO), where(neither, ONE, ZERO)


@formula(POSE | PAIR, (3,))
def triangulated(rotation, translation, a, b):
    """The middle between two rays where they are nearest, in the frame of a; NaN where they are parallel.

    With x, y of unit length, n = x × y and the distance n · t / |n| between the rays, s and r are as above.
    """
    x, y = (normalized(v) for v in _bearings(rotation, a, b))
    n = cross(x, y)
    square = dot(n, n)
    parallel = detached(square) <= (8.0 * EPS) * (8.0 * EPS)
    k = ONE / where(parallel, ONE, square)
    s, r = k * dot(cross(y, translation), n), k * dot(cross(x, translation), n)
    middle = HALF * (s * x + r * y - translation)
    return choose(parallel, [NAN] * 3, rotation.T @ middle)


def _residual(matrix, a, b):
    """bᵀ M a, and squares of the directions of M a and Mᵀ b, and what points were multiplied by.

    M and the points (x, y, 1) are taken over their largest entries.
    """
    m = matrix * (ONE / maximum(largest(matrix.ravel()), TINY))
    x, y = vector(*a, ONE), vector(*b, ONE)
    k, l = ONE / largest(x), ONE / largest(y)
    x, y = k * x, l * y
    image, back = m @ x, m.T @ y
    return dot(y, image), dot(image[:2], image[:2]), dot(back[:2], back[:2]), k, l


@formula({"matrix": (3, 3)} | PAIR, ())
def algebraic_error(matrix, a, b):
    return dot(vector(*b, ONE), matrix @ vector(*a, ONE))


@formula({"matrix": (3, 3)} | PAIR, ())
def sampson_error(matrix, a, b):
    r, image, back, k, l = _residual(matrix, a, b)
    larger = ONE / maximum(k, l)
    k, l = larger * k, larger * l
    return (larger * r) * _inverse_root(l * l * image + k * k * back)


@formula({"matrix": (3, 3)} | PAIR, ())
def symmetric_epipolar_error(matrix, a, b):
    r, image, back, k, l = _residual(matrix, a, b)
    less = minimum(k, l)
    i, j = (less / l) * _inverse_root(image), (less / k) * _inverse_root(back)
    return (r / less) * root(i * i + j * j)


def _inverse_root(square):
    """0 where a line has no direction: there is no distance to it."""
    none = detached(square) < TINY
    return where(none, ZERO, ONE / sqrt(where(none, ONE, square)))
