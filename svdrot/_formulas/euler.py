"""Euler angles about all 24 sequences of axes, intrinsic (upper case) and extrinsic (lower case)."""

from itertools import product

from svdrot.engine.maps import Map
from svdrot.engine.words import atan2, cos, detached, sin, sqrt, where

from .conversions import quaternion_to_matrix
from .vectors import EPS, multiplied, vector

SEQUENCES = tuple(
    "".join(axes) for case in ("XYZ", "xyz") for axes in product(case, repeat=3) if axes[1] not in axes[::2]
)


def _euler_to_matrix(sequence: str) -> Map:
    def to_matrix(angles):
        a, b, c = _in_order(sequence, [_about(*pair) for pair in zip(_axes(sequence), angles, strict=True)])
        return a @ b @ c

    return Map(to_matrix, {"angles": (3,)}, (3, 3), name=f"{__name__}.euler_{sequence}_to_matrix")


def _euler_to_quaternion(sequence: str) -> Map:
    def to_quaternion(angles):
        pairs = zip(_axes(sequence), angles, strict=True)
        a, b, c = _in_order(sequence, [_quaternion_about(axis, 0.5 * angle) for axis, angle in pairs])
        return multiplied(multiplied(a, b), c)

    return Map(to_quaternion, {"angles": (3,)}, (4,), name=f"{__name__}.euler_{sequence}_to_quaternion")


def _matrix_to_euler(sequence: str) -> Map:
    return Map(
        lambda m: _angles(m, sequence),
        {"matrix": (3, 3)},
        (3,),
        name=f"{__name__}.matrix_to_euler_{sequence}",
    )


def _quaternion_to_euler(sequence: str) -> Map:
    """By the matrix: a small entry of it is right relative to itself, hence a small angle too."""

    def to_euler(quaternion):
        return _angles(quaternion_to_matrix(quaternion), sequence)

    return Map(to_euler, {"quaternion": (4,)}, (3,), name=f"{__name__}.quaternion_to_euler_{sequence}")


def _axes(sequence: str) -> list[int]:
    return ["xyz".index(axis) for axis in sequence.lower()]


def _in_order(sequence: str, factors: list) -> list:
    """Turns about axes of the turned body from left to right, about fixed axes from right to left."""
    return factors if sequence.isupper() else factors[::-1]


def _about(axis: int, angle):
    c, s = cos(angle), sin(angle)
    turn = vector([c, -s], [s, c])
    places = [(axis + 1) % 3, (axis + 2) % 3]
    matrix = vector([0.0] * 3, [0.0] * 3, [0.0] * 3)
    matrix[axis, axis] = 1.0
    for i in range(2):
        for k in range(2):
            matrix[places[i], places[k]] = turn[i, k]
    return matrix


def _quaternion_about(axis: int, half):
    q = vector(cos(half), 0.0, 0.0, 0.0)
    q[1 + axis] = sin(half)
    return q


def _angles(m, sequence: str):
    """M = R_a(gamma) R_b(beta) R_c(alpha) is the extrinsic product, and the transpose of the intrinsic one
    with every angle negated. With d the third axis and s = 1 if (a, b, d) is right-handed and the angles are
    not negated,

        c = d: M e_c = s sin(beta) e_a + cos(beta) (cos(gamma) e_d - s sin(gamma) e_b),
        c = a: M e_c = cos(beta) e_a + sin(beta) (sin(gamma) e_b - s cos(gamma) e_d).

    Then R_b(beta) leaves e_b alone, so that row b of R_a(-gamma) M is row b of R_c(alpha): taking alpha from
    it, and not from M, keeps the product right to rounding however close gimbal lock is."""
    c, b, a = _axes(sequence)
    d = 3 - a - b
    s = 1.0 if ((b - a) % 3 == 1) == sequence.islower() else -1.0
    m = m.T if sequence.isupper() else m
    axis = m[:, c]
    x, y = (axis[d], -s * axis[b]) if c == d else (-s * axis[d], axis[b])
    square = x * x + y * y
    # An entry is right to a few eps, hence so is the product when a shorter (x, y) counts as zero.
    locked = detached(square) < (4.0 * EPS) * (4.0 * EPS)
    x, y, square = where(locked, 1.0, x), where(locked, 0.0, y), where(locked, 1.0, square)
    length = sqrt(square)
    cosine, sine = x / length, y / length
    length = where(locked, 0.0, length)
    row = cosine * m[b] + (s * sine) * m[d]
    if c == d:
        beta, alpha = atan2(s * axis[a], length), atan2(s * row[a], row[b])
    else:
        beta, alpha = atan2(length, axis[a]), atan2(-s * row[d], row[b])
    return alpha, beta, atan2(sine, cosine)


euler_to_matrix = {sequence: _euler_to_matrix(sequence) for sequence in SEQUENCES}
euler_to_quaternion = {sequence: _euler_to_quaternion(sequence) for sequence in SEQUENCES}
matrix_to_euler = {sequence: _matrix_to_euler(sequence) for sequence in SEQUENCES}
quaternion_to_euler = {sequence: _quaternion_to_euler(sequence) for sequence in SEQUENCES}
