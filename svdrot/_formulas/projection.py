"""The nearest rotation of a 3x3 matrix, its derivative and its gap; matrices are three columns, vectors
tuples.

Straight-line code, so that every lane of a vector machine does the same work, and a NaN stays in its own
lane. The engine makes kernels and derivatives of it; loops that numba or Triton compile `bind` it to words of
their own.
"""

import builtins
import types

from svdrot.engine.graph import Operation, by_dtype
from svdrot.engine.maps import formula
from svdrot.engine.words import absolute, detached, nothing_up_to, once, roughly, sqrt, where

ZERO, SIXTH, THIRD, HALF, TWO_THIRDS, ONE, TWO, THREE = 0.0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 1.0, 2.0, 3.0
# The cubic through the Chebyshev points of 2 cos(acos(h) / 3) on [0, 1], within 8.2e-5 of it.
ROOT0, ROOT1, ROOT2, ROOT3 = 1.73213266, 0.3306607, -0.08138239, 0.01863937
SMALL = by_dtype(2.0**-26, 2.0**-55)  # |w|², of which the polishing step may add eps / 8 to RᵀR - I
TINY = by_dtype(2.0**-126, 2.0**-1022)  # the least normal number
NOISE = by_dtype(2.0**-18, 2.0**-47)  # 32 units of rounding
PER_NOISE = by_dtype(2.0**18, 2.0**47)
HUGE = by_dtype(2.0**126, 2.0**1022)  # R [w]x stays finite for |w| <= HUGE in each component


def nearest_rotation(a, b, c):
    """The rotation R that maximizes tr(RᵀM), in closed form.

    One singular pair is split off, M v = s u; what is left between the planes orthogonal to v and to u is a
    2x2 matrix, whose nearest rotation is (x, -y; y, x) / |(x, y)|. No step divides by the gap s2 + s3, so
    the result is orthonormal to rounding whatever the matrix, and where several rotations are nearest it is
    one of them.
    """
    a, b, c = normalized(a, b, c)
    u, v, e, f, p, q, _, _, _ = split(a, b, c)
    r, s, t = outer_sum(u, v, e, p, f, q)
    return polished(a, b, c, r, s, t)


def nearest_orthonormal(a, b, c):
    """-I is a reflection: nearest to M is ± the rotation nearest to ±M, by the sign of the determinant."""
    k = inverse_scale(a, b, c)
    sign = where(dot(scaled(k, a), cross(scaled(k, b), scaled(k, c))) < ZERO, -ONE, ONE)
    a, b, c = nearest_rotation(scaled(sign, a), scaled(sign, b), scaled(sign, c))
    return scaled(sign, a), scaled(sign, b), scaled(sign, c)


def nearest_rotation_differential(a, b, c, r, s, t, da, db, dc, damping=None):
    """Derivative of R(M) along dM, for R = (r, s, t); the VJP too, because the Jacobian is symmetric.

    P = RᵀM is symmetric, and dR = R [w]x must keep it so: K w = vee(RᵀdM - dMᵀR) with K = tr(P) I - P, whose
    eigenvalues are the pair sums s1 + s2, s1 + s3, s2 + s3. `solve` leaves out what rounding makes of those
    that vanish. With `damping` each pair sum g is inverted as g / (g² + d²) instead, with d = damping (s1 +
    s2 + s3): w is the real part of the solution of (K + i d I) w = vee(RᵀdM - dMᵀR).
    """
    inverse = inverse_scale(a, b, c)
    a, b, c = scaled(inverse, a), scaled(inverse, b), scaled(inverse, c)
    pxx, pyy, pzz = dot(r, a), dot(s, b), dot(t, c)
    kxy = -HALF * (dot(r, b) + dot(s, a))
    kxz = -HALF * (dot(r, c) + dot(t, a))
    kyz = -HALF * (dot(s, c) + dot(t, b))
    k = pyy + pzz, pxx + pzz, pxx + pyy, kxy, kxz, kyz
    skew = (dot(t, db) - dot(s, dc), dot(r, dc) - dot(t, da), dot(s, da) - dot(r, db))

    w = SOLVE(*k, *skew) if damping is None else damped_solve(*k, damping * (pxx + pyy + pzz), skew)
    x, y, z = finite(inverse * w[0]), finite(inverse * w[1]), finite(inverse * w[2])
    return combine(z, s, -y, t), combine(x, t, -z, r), combine(y, r, -x, s)


def gap_and_derivative(a, b, c):
    """The gap s2 + s3, with s3 signed, and its derivative: the columns of u2 v2ᵀ + u3 v3ᵀ."""
    scale = largest(a, b, c)
    a, b, c = normalized(a, b, c)
    u, v, e, f, p, q, mp, mq, is_largest = split(a, b, c)
    # Between (e, f) and (p, q) M is symmetric, with eigenvalues (total ± spread) / 2.
    total = dot(e, mp) + dot(f, mq)
    x, y = dot(e, mp) - dot(f, mq), dot(e, mq) + dot(f, mp)
    size = maximum(absolute(x), absolute(y))  # of which the square may be 0
    inverse = ONE / maximum(size, TINY)
    x, y = inverse * x, inverse * y
    norm = sqrt(x * x + y * y)
    gap = where(is_largest, total, HALF * (total - size * norm) + dot(u, apply(a, b, c, v)))

    # Where that block holds s1, only its lesser eigenvector counts: (I - [x, y; y, -x] / spread) / 2.
    inverse = HALF / maximum(norm, TINY)
    x, y = where(is_largest, -HALF, inverse * x), where(is_largest, ZERO, inverse * y)
    ep, fq = where(is_largest, ONE, HALF - x), where(is_largest, ONE, HALF + x)
    g, h, k = outer_sum(
        scaled(where(is_largest, ZERO, ONE), u), v, combine(ep, e, -y, f), p, combine(-y, e, fq, f), q
    )
    return scale * gap, g, h, k


def split(a, b, c):
    """Singular pair (u, v) and right-handed bases (u, e, f), (v, p, q) in which M is s ⊕ (a symmetric block).

    v is the isolated eigenvector of MᵀM, so the split costs no digits. If it belongs to s1, u = Mv / |Mv|. If
    it belongs to s3, then s2 is within a factor √2 of s1, and u = cof(M) v / |cof(M) v| is exact to rounding
    however small s3 is, and carries its sign.
    """
    v, is_largest = isolated_direction(a, b, c)
    p, q = frame(v)
    mp, mq = apply(a, b, c, p), apply(a, b, c, q)
    u = unit(choose(is_largest, apply(a, b, c, v), cross(mp, mq)))
    e, f = frame(u)

    x, y = dot(e, mp) + dot(f, mq), dot(f, mp) - dot(e, mq)
    norm = x * x + y * y
    ambiguous = norm < TINY
    inverse = roughly(ONE / sqrt(where(ambiguous, ONE, norm)))
    x, y = where(ambiguous, ONE, x * inverse), where(ambiguous, ZERO, y * inverse)
    return u, v, combine(x, e, y, f), combine(-y, e, x, f), p, q, mp, mq, is_largest


def isolated_direction(a, b, c):
    """The unit eigenvector of MᵀM whose eigenvalue is farthest from the others; whether it is the largest.

    With B = (MᵀM - mean I) / p, tr B = 0 and |B|² = 6, the eigenvalues are 2 cos of three angles 120° apart,
    the roots of y³ - 3y = 2h, 2h = det B (Smith 1961, CACM 4(4)). For h >= 0 the largest lies in [√3, 2], at
    least √3 above the others; for h < 0 so does the smallest, mirrored. That root is well conditioned, and
    adj(B - y I) is a multiple, 3 to 9, of v vᵀ. (The choice of root is that of Eberly, "A robust eigensolver
    for 3x3 symmetric matrices".)
    """
    aa, bb, cc, ab, ac, bc = dot(a, a), dot(b, b), dot(c, c), dot(a, b), dot(a, c), dot(b, c)
    mean = THIRD * (aa + bb + cc)
    aa, bb, cc = aa - mean, bb - mean, cc - mean
    # Of a rotation these are rounding, of which the trace need not be 0: diag(s, s, 0) has y = s, and no adj.
    mean = THIRD * (aa + bb + cc)
    aa, bb, cc = aa - mean, bb - mean, cc - mean
    p = SIXTH * (aa * aa + bb * bb + cc * cc) + THIRD * (ab * ab + ac * ac + bc * bc)
    p = roughly(ONE / sqrt(maximum(p, TINY)))  # not p + TINY, which exporters to ONNX optimize away
    aa, bb, cc, ab, ac, bc = aa * p, bb * p, cc * p, ab * p, ac * p, bc * p

    h = HALF * (aa * (bb * cc - bc * bc) + ab * (ac * bc - ab * cc) + ac * (ab * bc - ac * bb))
    is_largest = h >= ZERO
    h = minimum(absolute(h), ONE)
    y = ROOT0 + h * (ROOT1 + h * (ROOT2 + h * ROOT3))
    y = roughly(
        TWO_THIRDS * (y * y * y + h) / (y * y - ONE)
    )  # Newton: the error, 8e-5 at the start, is squared
    y = roughly(TWO_THIRDS * (y * y * y + h) / (y * y - ONE))
    y = where(is_largest, y, -y)

    aa, bb, cc = aa - y, bb - y, cc - y
    xx, yy, zz = bb * cc - bc * bc, aa * cc - ac * ac, aa * bb - ab * ab
    xy, xz, yz = ac * bc - ab * cc, ab * bc - ac * bb, ab * ac - aa * bc
    v = choose(xx >= yy, (xx, xy, xz), (xy, yy, yz))
    return unit(choose(zz > maximum(xx, yy), (xz, yz, zz), v)), is_largest


def polished(a, b, c, r, s, t):
    """R (I + [w]x - (RᵀR - I) / 2): one Newton step on what rounding did to the direction and lengths of R.

    K w = vee(MᵀR - RᵀM) with the K of the differential. Where the gap is so small that w is not, it is left
    out: its square would disturb the orthogonality, and the error there is no larger than what rounding M
    itself would cause.
    """
    pxx, pyy, pzz = dot(r, a), dot(s, b), dot(t, c)
    pxy, pyx, pxz, pzx, pyz, pzy = dot(r, b), dot(s, a), dot(r, c), dot(t, a), dot(s, c), dot(t, b)
    kxx, kyy, kzz = pyy + pzz, pxx + pzz, pxx + pyy
    kxy, kxz, kyz = -HALF * (pxy + pyx), -HALF * (pxz + pzx), -HALF * (pyz + pzy)
    x, y, z = pzy - pyz, pxz - pzx, pyx - pxy

    axx, ayy, azz = kyy * kzz - kyz * kyz, kxx * kzz - kxz * kxz, kxx * kyy - kxy * kxy
    axy, axz, ayz = kxz * kyz - kxy * kzz, kxy * kyz - kxz * kyy, kxy * kxz - kxx * kyz
    inverse = roughly(ONE / (kxx * axx + kxy * axy + kxz * axz))
    w = scaled(
        inverse, (axx * x + axy * y + axz * z, axy * x + ayy * y + ayz * z, axz * x + ayz * y + azz * z)
    )
    small = dot(w, w) < SMALL
    x, y, z = where(small, w[0], ZERO), where(small, w[1], ZERO), where(small, w[2], ZERO)

    gxx, gyy, gzz = HALF * (ONE - dot(r, r)), HALF * (ONE - dot(s, s)), HALF * (ONE - dot(t, t))
    gxy, gxz, gyz = -HALF * dot(r, s), -HALF * dot(r, t), -HALF * dot(s, t)
    dr = apply(r, s, t, (gxx, gxy + z, gxz - y))
    ds = apply(r, s, t, (gxy - z, gyy, gyz + x))
    dt = apply(r, s, t, (gxz + y, gyz - x, gzz))
    return add(r, dr), add(s, ds), add(t, dt)


def solve(kxx, kyy, kzz, kxy, kxz, kyz, bx, by, bz):
    """K⁺ b for symmetric K without negative eigenvalues: `share` says from where on they count.

    Every vector that K takes to 0 is orthogonal to its longest column a. One step of elimination along a
    leaves T = K - K a (K a)ᵀ / aᵀK a, of rank 2 and less by what vanishes, whose two eigenvalues are inverted
    each on its own: those that vanish are thus seen as well as rounding lets one see them, however many they
    are, and nothing that is well defined is lost with them. K = 0 gives zero.
    """
    a = choose(kxx >= kyy, (kxx, kxy, kxz), (kxy, kyy, kyz))
    a = choose(kzz > maximum(kxx, kyy), (kxz, kyz, kzz), a)
    ka = apply((kxx, kxy, kxz), (kxy, kyy, kyz), (kxz, kyz, kzz), a)
    inverse = roughly(ONE / maximum(dot(a, ka), TINY))
    e = scaled(inverse, ka)
    txx, tyy, tzz = kxx - e[0] * ka[0], kyy - e[1] * ka[1], kzz - e[2] * ka[2]
    txy, txz, tyz = kxy - e[0] * ka[1], kxz - e[0] * ka[2], kyz - e[1] * ka[2]
    along = bx * a[0] + by * a[1] + bz * a[2]
    b = combine(ONE, (bx, by, bz), -along, e)

    mean = HALF * (txx + tyy + tzz)
    square = HALF * (txx * txx + tyy * tyy + tzz * tzz) + txy * txy + txz * txz + tyz * tyz
    spread = roughly(sqrt(maximum(square - mean * mean, TINY)))
    even, odd = shared_inverse(mean, spread)
    txx, tyy, tzz = txx - mean, tyy - mean, tzz - mean
    y = combine(even, b, odd, apply((txx, txy, txz), (txy, tyy, tyz), (txz, tyz, tzz), b))
    return combine(inverse * along - dot(e, y), a, ONE, y)


def shared_inverse(mean, spread):
    """Coefficients of I and of T - mean in the inverse of T, of eigenvalues mean ± spread, as `share` has
    them count."""
    low, high = maximum(mean - spread, NOISE), mean + spread
    f, g = share(low), share(high)
    product = low * high
    inverses = roughly(ONE / maximum(product * spread, TINY))  # of three in one division
    both = inverses * spread
    even = HALF * both * (g * low + f * high)
    return even, both * (HALF * (g - f) * low * product * inverses - f)


def share(g):
    """How much a pair sum counts: fully from 64 units of rounding on, up to 32 not at all, smoothly between.

    Units of the largest entry of M, which is 1 here, and a third of s1 at least. M = U diag(s) Vᵀ, rounded,
    has pair sums off by up to 3 units of s1, and some 6 come from R and from P = RᵀM: below not one digit of
    1 / g is right.
    """
    x = minimum(maximum(g * PER_NOISE - ONE, ZERO), ONE)
    return x * x * (THREE - TWO * x)


def damped_solve(kxx, kyy, kzz, kxy, kxz, kyz, d, b):
    """Real part of (K + i d I)⁻¹ b, that is K (K² + d²)⁻¹ b, by L D Lᵀ in complex arithmetic (pairs re, im).

    K is positive definite up to rounding and d > 0, so elimination needs no pivoting; unlike the adjugate it
    does not square the condition number when two eigenvalues are small (M near minus a rotation). K = d = 0
    gives zero.
    """
    i1 = inverse_complex(kxx, d)
    l21, l31 = (kxy * i1[0], kxy * i1[1]), (kxz * i1[0], kxz * i1[1])
    f = (kyz - kxy * l31[0], -kxy * l31[1])
    i2 = inverse_complex(kyy - kxy * l21[0], d - kxy * l21[1])
    l32 = product(f, i2)
    g = product(f, l32)
    i3 = inverse_complex(kzz - kxz * l31[0] - g[0], d - kxz * l31[1] - g[1])

    y2 = (b[1] - l21[0] * b[0], -l21[1] * b[0])
    g = product(l32, y2)
    z3 = product((b[2] - l31[0] * b[0] - g[0], -l31[1] * b[0] - g[1]), i3)
    g, h = product(y2, i2), product(l32, z3)
    z2 = (g[0] - h[0], g[1] - h[1])
    g, h = product(l21, z2), product(l31, z3)
    return i1[0] * b[0] - g[0] - h[0], z2[0], z3[0]


def product(a, b):
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def inverse_complex(re, im):
    n = roughly(ONE / maximum(re * re + im * im, TINY))
    return re * n, -im * n


def frame(v):
    """Unit vectors p, q that make (v, p, q) right-handed, for unit v (Duff et al. 2017, JCGT 6(1))."""
    s = where(v[2] >= ZERO, ONE, -ONE)
    f = roughly(ONE / (ONE + absolute(v[2])))
    x, y = f * v[0], f * v[1]
    return (ONE - x * v[0], -x * v[1], -s * v[0]), (-s * x * v[1], s - s * y * v[1], -v[1])


def normalized(a, b, c):
    """The matrix over its largest entry; the zero matrix, nearest to every rotation, becomes the identity."""
    one = where(largest(a, b, c) == ZERO, ONE, ZERO)
    inverse = inverse_scale(a, b, c)
    a, b, c = scaled(inverse, a), scaled(inverse, b), scaled(inverse, c)
    return (a[0] + one, a[1], a[2]), (b[0], b[1] + one, b[2]), (c[0], c[1], c[2] + one)


def inverse_scale(a, b, c):
    return roughly(ONE / maximum(largest(a, b, c), TINY))


def largest(a, b, c):
    x = maximum(maximum(absolute(a[0]), absolute(a[1])), absolute(a[2]))
    y = maximum(maximum(absolute(b[0]), absolute(b[1])), absolute(b[2]))
    z = maximum(maximum(absolute(c[0]), absolute(c[1])), absolute(c[2]))
    return maximum(maximum(x, y), z)


def maximum(x, y):
    return where(x > y, x, y)


def minimum(x, y):
    return where(x < y, x, y)


def finite(x):
    """x, or the largest safe number where a tiny matrix makes the derivative overflow; NaN stays NaN."""
    return minimum(HUGE, maximum(-HUGE, x))


def outer_sum(u, v, e, p, f, q):
    """Columns of u vᵀ + e pᵀ + f qᵀ."""
    return (
        apply(u, e, f, (v[0], p[0], q[0])),
        apply(u, e, f, (v[1], p[1], q[1])),
        apply(u, e, f, (v[2], p[2], q[2])),
    )


def apply(a, b, c, v):
    """The product of the matrix with columns a, b, c and the vector v."""
    return (
        a[0] * v[0] + b[0] * v[1] + c[0] * v[2],
        a[1] * v[0] + b[1] * v[1] + c[1] * v[2],
        a[2] * v[0] + b[2] * v[1] + c[2] * v[2],
    )


def unit(a):
    return scaled(roughly(ONE / sqrt(dot(a, a))), a)


def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def add(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def scaled(s, a):
    return s * a[0], s * a[1], s * a[2]


def combine(s, a, t, b):
    return s * a[0] + t * b[0], s * a[1] + t * b[1], s * a[2] + t * b[2]


def choose(condition, a, b):
    return where(condition, a[0], b[0]), where(condition, a[1], b[1]), where(condition, a[2], b[2])


FORMULAS = [
    f for f in list(globals().values()) if isinstance(f, types.FunctionType) and f.__module__ == __name__
]
CONSTANTS = (
    "ZERO",
    "SIXTH",
    "THIRD",
    "HALF",
    "TWO_THIRDS",
    "ONE",
    "TWO",
    "THREE",
    "ROOT0",
    "ROOT1",
    "ROOT2",
    "ROOT3",
)
CONSTANTS_BY_DTYPE = ("SMALL", "TINY", "NOISE", "PER_NOISE", "HUGE")


# For the engine: matrices as arrays (3, 3) of symbols ------------------------------------------------------


def columns(m):
    return (m[0], m[3], m[6]), (m[1], m[4], m[7]), (m[2], m[5], m[8])


def rows(a, b, c):
    return [a[0], b[0], c[0], a[1], b[1], c[1], a[2], b[2], c[2]]


def _differential(arguments, results, along):
    """The differential of the nearest rotation, and of the nearest orthonormal matrix.

    Where the latter is a reflection, -M, -R and -T have the differential of M, R and T with the other sign.
    """
    m, damping = arguments[:9], arguments[9:]
    d = nearest_rotation_differential(*columns(m), *columns(results), *columns(along[:9]), *damping)
    return [*rows(*d), *[ZERO] * len(damping)]


def _symmetric(name, body, damped=False):
    """With a symmetric Jacobian, whose products from the left and from the right are the same."""

    def of_entries(*arguments):
        return rows(*body(*columns(arguments)))

    def jvp(arguments, results, tangents):
        return _differential(arguments, results, tangents)[:9]

    def recorded(*arguments):
        return _recorded(of_entries, *arguments)

    return Operation(name, 9 + damped, 9, of_entries, _differential, jvp, recorded)


def _recorded(body, *arguments):
    """The results R0 of `body`, with derivatives of the first three orders through each operation.

    R = R0 E with E = I + [w]x + ..., orthogonal up to third order, and w = 0. Let P = R0ᵀM. That EᵀP is
    symmetric is an equation for w, K w = vee(P - Pᵀ) + (what is of second order, `_bent`), with K of the
    differential. K is taken as a constant, and what it inverts is always 0: three steps from w = 0, each with
    one order more, have the derivatives of w and no others, and those of `solve` are not needed. What
    rounding has left of P - Pᵀ is taken off.
    """
    m, damping = arguments[:9], arguments[9:]
    fixed = [detached(x) for x in m]
    results = [detached(x) for x in body(*fixed, *damping)]
    r, s, t = columns(results)
    inverse = inverse_scale(*columns(fixed))
    a, b, c = (scaled(inverse, x) for x in columns(m))
    p = [(dot(r, x), dot(s, x), dot(t, x)) for x in (a, b, c)]
    pxx, pxy, pxz, pyx, pyy, pyz, pzx, pzy, pzz = (detached(p[j][i]) for i in range(3) for j in range(3))
    k = pyy + pzz, pxx + pzz, pxx + pyy, -HALF * (pxy + pyx), -HALF * (pxz + pzx), -HALF * (pyz + pzy)

    def solved(x):
        return damped_solve(*k, damping[0] * (pxx + pyy + pzz), x) if damping else solve(*k, *x)

    skew = p[1][2] - p[2][1], p[2][0] - p[0][2], p[0][1] - p[1][0]
    skew = tuple(x - detached(x) for x in skew)
    w = solved(skew)
    for _ in range(2):
        w = solved(add(skew, _bent(p, k, w)))
    x, y, z = (apply(r, s, t, f) for f in _turned(w))
    beyond = sum((nothing_up_to(3, x - y) for x, y in zip(m, fixed, strict=True)), ZERO)
    return [r0 + (dr + beyond) for r0, dr in zip(results, rows(x, y, z), strict=True)]


def _turned(w):
    """Columns of E - I = (1 - |w|² / 2) [w]x + [w]x² / 2."""
    x, y, z = w
    square = dot(w, w)
    u, v, n = scaled(ONE - HALF * square, w), scaled(HALF, w), HALF * square
    return (
        (v[0] * x - n, v[0] * y + u[2], v[0] * z - u[1]),
        (v[1] * x - u[2], v[1] * y - n, v[1] * z + u[0]),
        (v[2] * x + u[1], v[2] * y - u[0], v[2] * z - n),
    )


def _bent(p, k, w):
    """What is left of the skew part of (E - I)ᵀP where its first order, -K w, is taken off."""
    e = _turned(w)
    turned = (
        dot(e[2], p[1]) - dot(e[1], p[2]),
        dot(e[0], p[2]) - dot(e[2], p[0]),
        dot(e[1], p[0]) - dot(e[0], p[1]),
    )
    return add(turned, symmetric_image(k, w))


def _recorded_solve(*arguments):
    """K⁺ b, with derivatives of the first three orders: K is a constant, and steps count its deviation."""
    k, b = arguments[:6], arguments[6:]
    fixed = [detached(x) for x in k]
    deviation = [x - y for x, y in zip(k, fixed, strict=True)]
    w = solve(*fixed, *b)
    for _ in range(3):
        rest = [x - y for x, y in zip(b, symmetric_image(deviation, w), strict=True)]
        w = solve(*fixed, *rest)
    beyond = sum((nothing_up_to(3, x) for x in deviation), ZERO)
    return [x + beyond for x in w]


def _solve_jvp(arguments, w, tangents):
    """K dw = db - dK w, of which the same is left out."""
    *dk, dx, dy, dz = tangents
    turned = symmetric_image(dk, w)
    return SOLVE(*arguments[:6], dx - turned[0], dy - turned[1], dz - turned[2])


def _solve_vjp(arguments, w, cotangents):
    x, y, z = SOLVE(*arguments[:6], *cotangents)
    off = -(x * w[1] + y * w[0]), -(x * w[2] + z * w[0]), -(y * w[2] + z * w[1])
    return [-x * w[0], -y * w[1], -z * w[2], *off, x, y, z]


def symmetric_image(k, w):
    xx, yy, zz, xy, xz, yz = k
    return apply((xx, xy, xz), (xy, yy, yz), (xz, yz, zz), w)


SOLVE = Operation("solve", 9, 3, solve, _solve_vjp, _solve_jvp, _recorded_solve)
_NEAREST_ROTATION = _symmetric("nearest_rotation", nearest_rotation)
_NEAREST_ORTHONORMAL = _symmetric("nearest_orthonormal", nearest_orthonormal)
_DAMPED = _symmetric("nearest_rotation_damped", nearest_rotation, damped=True)


@formula({"matrix": (3, 3)}, (3, 3), guarded=False)
def project(matrix):
    return _NEAREST_ROTATION(*matrix.ravel())


@formula({"matrix": (3, 3)}, (3, 3), scalars=1, guarded=False)
def project_damped(matrix, damping):
    return _DAMPED(*matrix.ravel(), damping)


@formula({"matrix": (3, 3)}, (3, 3), guarded=False)
def project_either(matrix):
    """Reflections allowed."""
    return _NEAREST_ORTHONORMAL(*matrix.ravel())


@formula({"matrix": (3, 3)}, (), guarded=False)
def gap(matrix):
    return _GAP(*matrix.ravel())[0]


def _gap_slopes(arguments):
    _, *derivative = gap_and_derivative(*columns(arguments))
    return [once(x, "projection_gap is differentiable once") for x in rows(*derivative)]


def _recorded_gap(*m):
    """The gap, and its slopes times nothing; a second derivative is not finite."""
    fixed = [detached(x) for x in m]
    gap, *derivative = gap_and_derivative(*columns(fixed))
    for slope, x, y in zip(rows(*derivative), m, fixed, strict=True):
        gap = gap + (slope * (x - y) + nothing_up_to(1, x - y))
    return [gap]


_GAP = Operation(
    "gap",
    9,
    1,
    lambda *m: [gap_and_derivative(*columns(m))[0]],
    lambda m, _, g: [g[0] * d for d in _gap_slopes(m)],
    lambda m, _, t: [sum((d * x for d, x in zip(_gap_slopes(m), t, strict=True)), ZERO)],
    _recorded_gap,
)


# For loops that are compiled by others ---------------------------------------------------------------------


def bind(vocabulary, wrap, formulas=FORMULAS):
    """Add the formulas to `vocabulary`, compiled by `wrap` against the names found there."""
    vocabulary["__builtins__"] = builtins
    for f in formulas:
        vocabulary[f.__name__] = wrap(types.FunctionType(f.__code__, vocabulary, f.__name__))


def with_constants(words, number):
    """The words of a loop, and the constants of the formulas in float64, none of which is among them."""
    here = globals()
    own = {name: here[name].value[1] for name in CONSTANTS_BY_DTYPE}
    own |= {name: here[name] for name in CONSTANTS}
    if taken := own.keys() & words.keys():
        raise AssertionError(f"names of the loop are those of the formulas: {', '.join(sorted(taken))}")
    return words | {name: number(value) for name, value in own.items()}
