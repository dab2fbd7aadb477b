# pyright: reportUndefinedVariable=false
"""The arithmetic of one pair of points (x, y) of weight w, on scalars, as in `svdrot._formulas.projection`,
with which it is bound.

Matrices are three columns; g stands for a gradient with respect to what follows it.
"""

import types


def second_moments(w, x, y):
    """The columns of w y xᵀ, and w |x|²."""
    y = scaled(w, y)
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


def one_more(n, a, b, c, d, e, v, w, x, y):
    """The same with one more pair; a pair of weight 0 changes nothing. (Welford 1962.)"""
    both = n + w
    share = w / where(both == ZERO, ONE, both)
    x, y = difference(x, a), difference(y, b)
    z = scaled(n * share, y)
    c, d, e = add(c, scaled(x[0], z)), add(d, scaled(x[1], z)), add(e, scaled(x[2], z))
    return both, add(a, scaled(share, x)), add(b, scaled(share, y)), c, d, e, v + n * share * dot(x, x)


def one_more_about_zero(n, c, d, e, v, w, x, y):
    """The same of moments about the origin."""
    z = scaled(w, y)
    c, d, e = add(c, scaled(x[0], z)), add(d, scaled(x[1], z)), add(e, scaled(x[2], z))
    return n + w, c, d, e, v + w * dot(x, x)


def pair_gradient(w, x, y, ga, gb, gc, gd, ge, gv, hc, hd, he):
    """Gradients with respect to x and y, about the centroids, and two parts of that with respect to w.

    The moments are about the centroids, so that these drop out of them to first order. w is the part of the
    total weight; what a weight takes from all moments by that is left out. G = (gc, gd, ge), as y needs it,
    and gv are for the size of x, H, the same as x needs it, for the size of y.
    """
    spread = scaled(gv, x)
    along = add(ga, add((dot(hc, y), dot(hd, y), dot(he, y)), spread))
    gx, gy = add(along, spread), add(gb, apply(gc, gd, ge, x))
    return scaled(w, gx), scaled(w, gy), dot(along, x), dot(gb, y)


def squared_distance(x, y, r, s, t):
    """|R x - y|² for R = (r, s, t)."""
    z = difference(apply(r, s, t, x), y)
    return dot(z, z)


def difference(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


FORMULAS = [value for value in list(globals().values()) if isinstance(value, types.FunctionType)]
