"""Representations linear in the rotation and read by its projection: 9D and 10D."""

from svdrot.engine.maps import formula

from .conversions import four_outer_product
from .projection import project
from .vectors import vector


@formula({"rotation_9d": (9,)}, (3, 3), guarded=False)
def rotation_9d_to_matrix(rotation_9d):
    return project(rotation_9d)


@formula({"matrix": (3, 3)}, (9,))
def matrix_to_rotation_9d(matrix):
    return matrix


@formula({"symmetric": (10,)}, (3, 3))
def symmetric_10d_to_matrix(symmetric):
    """The rotation of a symmetric form, of A = M - tr(M) / 4 with Horn's N(M) = tr(A) / 4 - A.

    See `svdrot.symmetric_10d_to_matrix`.
    """
    ww, wx, wy, wz, xx, xy, xz, yy, yz, zz = 0.25 * symmetric  # of which no sum of four overflows
    matrix = vector(
        [0.5 * (yy + zz - ww - xx), wz - xy, -wy - xz],
        [-wz - xy, 0.5 * (xx + zz - ww - yy), wx - yz],
        [wy - xz, -wx - yz, 0.5 * (xx + yy - ww - zz)],
    )  # of M / 2: a positive factor does not move the nearest rotation
    return project(matrix)


@formula({"matrix": (3, 3)}, (10,))
def matrix_to_symmetric_10d(matrix):
    four_qq = four_outer_product(matrix)
    return [(1.0 if i == k else 0.0) - 0.25 * four_qq[i, k] for i in range(4) for k in range(i, 4)]
