# pyright: reportUndefinedVariable=false
"""The arithmetic of one pair of points (x, y) of weight w, on scalars, as in `so3`, with which it is bound.

a and b are centroids of x and y; matrices are three columns; g stands for a gradient with respect to what
follows it.
"""

import types


def second_moments(w, x, y, a, b):
    """The columns of w (y - b)(x - a)ᵀ, and w |x - a|²."""
    x, y = difference(x, a), scaled(w, difference(y, b))
    return scaled(x[0], y), scaled(x[1], y), scaled(x[2], y), w * dot(x, x)


def merged(n, a, b, c, d, e, v, total, a2, b2, c2, d2, e2, v2):
    """Weight, centroids and second moments (c, d, e), v about them of two sets of pairs as of one.

    (Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample
    variances".)
    """
    both = n + total
    share = total / where(both == ZERO, ONE, both)
    x, y = difference(a2, a), difference(b2, b)
    z = scaled(n * share, y)
    c, d, e = (
        add(add(c, c2), scaled(x[0], z)),
        add(add(d, d2), scaled(x[1], z)),
        add(add(e, e2), scaled(x[2], z)),
    )
    return both, add(a, scaled(share, x)), add(b, scaled(share, y)), c, d, e, v + v2 + n * share * dot(x, x)


def pair_gradient(w, x, y, a, b, total, gn, ga, gb, gc, gd, ge, gv, constant):
    """Gradients with respect to x, y and w of the total weight n, the centroids and the moments over n.

    The moments are about the centroids, so that these drop out of them to first order. `constant` is what a
    weight takes from all moments by its part of the total: -<G, C> - gv v, C = (c, d, e).
    """
    inverse = ONE / where(total == ZERO, ONE, total)
    x, y = difference(x, a), difference(y, b)
    back = (dot(gc, y), dot(gd, y), dot(ge, y))
    along = add(ga, add(back, scaled(gv, x)))
    gw = dot(along, x) + dot(gb, y) + constant
    gx, gy = add(along, scaled(gv, x)), add(gb, apply(gc, gd, ge, x))
    return scaled(w * inverse, gx), scaled(w * inverse, gy), inverse * gw + gn


def squared_distance(x, y, a, b, r, s, t):
    """|R (x - a) - (y - b)|² for R = (r, s, t)."""
    z = difference(apply(r, s, t, difference(x, a)), difference(y, b))
    return dot(z, z)


def difference(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


FORMULAS = [value for value in list(globals().values()) if isinstance(value, types.FunctionType)]
