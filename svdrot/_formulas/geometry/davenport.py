"""Davenport's angles: three turns about any three axes, of which neighbors are perpendicular.

Let n1, n2, n3 be the axes and λ the angle about n2 that takes n1 to n3. Then R1(α) R2(β) R3(γ) R2(λ) =
R1(α) R2(β + λ) R1(γ), proper Euler angles in the frame F = (n1, n2, n1 x n2). R2(λ) F is the frame
G = (n3, n2, n3 x n2), so that Fᵀ R G has the angles (α, β + λ, γ) of the intrinsic sequence XYX; and Gᵀ R F,
of turns about fixed axes R = R3(γ) R2(β) R1(α), the angles (α, β - λ, γ) of the extrinsic one."""

from svdrot._formulas.euler import matrix_to_euler
from svdrot._formulas.vectors import (
    EPS,
    choose,
    cross,
    dot,
    normalized,
    rescaled,
    unit_perpendicular_part,
    vector,
)
from svdrot.engine.maps import Map
from svdrot.engine.words import absolute, atan2, cos, detached, sin, where

from .skew import about

NAN = float("nan")
ORDERS = ("intrinsic", "extrinsic")


def _axes(axes, tolerance):
    """Unit axes; NaN for one of zeros, and where neighbors are not perpendicular."""
    n, bad = [], None
    for axis in axes:
        scaled, _, missing = rescaled(axis)
        n.append(normalized(choose(missing, [1.0, 0.0, 0.0], scaled)))
        bad = missing if bad is None else bad | missing
    bad = bad | (absolute(dot(n[0], n[1])) > tolerance) | (absolute(dot(n[1], n[2])) > tolerance)
    return [vector(*[where(bad, NAN, x) for x in axis]) for axis in n]


def _to_matrix(order: str) -> Map:
    def to_matrix(angles, axes, tolerance):
        a, b, c = [about(n, cos(t), sin(t)) for n, t in zip(_axes(axes, tolerance), angles, strict=True)]
        return a @ b @ c if order == "intrinsic" else c @ b @ a

    inputs = {"angles": (3,), "axes": (3, 3)}
    return Map(to_matrix, inputs, (3, 3), scalars=1, name=f"{__name__}.to_matrix_{order}")


def _from_matrix(order: str) -> Map:
    intrinsic = order == "intrinsic"

    def from_matrix(matrix, axes, tolerance):
        first, second, third = _axes(axes, tolerance)
        first, third = (unit_perpendicular_part(n, second) for n in (first, third))
        shift = atan2(dot(cross(second, first), third), dot(first, third))
        # About the opposite axis where 0 would not be among the angles, [-λ, pi - λ] or [λ, pi + λ].
        side = where((detached(shift) if intrinsic else -detached(shift)) < -8.0 * EPS, -1.0, 1.0)
        second, shift = side * second, side * shift
        f = vector(first, second, cross(first, second)).T
        g = vector(third, second, cross(third, second)).T
        if intrinsic:
            a, b, c = matrix_to_euler["XYX"](f.T @ matrix @ g)
            return a, side * (b - shift), c
        a, b, c = matrix_to_euler["xyx"](g.T @ matrix @ f)
        return a, side * (b + shift), c

    inputs = {"matrix": (3, 3), "axes": (3, 3)}
    return Map(from_matrix, inputs, (3,), scalars=1, name=f"{__name__}.from_matrix_{order}")


TO_MATRIX = {order: _to_matrix(order) for order in ORDERS}
FROM_MATRIX = {order: _from_matrix(order) for order in ORDERS}
