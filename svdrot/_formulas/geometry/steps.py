r"""Steps on SO(3) and SE(3): from where one is, along a tangent of the frame before it.

Of a tangent that is a parameter the *difference* to what it was counts, R = R₀ exp(x - x₀): see
`svdrot.nn.Rotation`. The maps that are `carried` take R as the place where derivatives are taken, so that
these are those along R exp(y) at y = 0, which for SO(3) is the Riemannian gradient, whatever x - x₀.
"""

import numpy as np

from svdrot._formulas.conversions import axis_angle_to_matrix
from svdrot._formulas.turns import axial
from svdrot._formulas.vectors import vector
from svdrot.engine.maps import formula
from svdrot.engine.words import detached

from .skew import hat
from .so3 import left_jacobian

ROTATION = {"rotation": (3, 3), "turn": (3,), "turn_before": (3,)}
POSE = {
    "rotation": (3, 3),
    "translation": (3,),
    "turn": (3,),
    "turn_before": (3,),
    "shift": (3,),
    "shift_before": (3,),
}
POSED = [(3, 3), (3,), ()]


def orthonormal(r):
    """Two steps R + R (I - RᵀR) / 2, which take an error of e to e⁴ / 2, and add no rounding but R's."""
    for _ in range(2):
        gap = np.diag(vector(1.0, 1.0, 1.0)) - r.T @ r
        r = r + 0.5 * (r @ gap)
    return r


def constant(x):
    return vector(*map(detached, x.ravel())).reshape(x.shape)


@formula({"rotation": (3, 3), "step": (3,)}, (3, 3))
def advanced(rotation, step):
    """R exp(x)."""
    return orthonormal(rotation @ axis_angle_to_matrix(step))


@formula(ROTATION, (3, 3))
def turned(rotation, turn, turn_before):
    return orthonormal(rotation) @ axis_angle_to_matrix(turn - turn_before)


@formula(ROTATION, (3, 3))
def carried(rotation, turn, turn_before):
    here = constant(advanced(rotation, turn - turn_before))
    return here @ axis_angle_to_matrix(turn - constant(turn))


@formula(POSE, POSED)
def posed(rotation, translation, turn, turn_before, shift, shift_before):
    w, v = turn - turn_before, shift - shift_before
    r = orthonormal(rotation)
    return r @ axis_angle_to_matrix(w), translation + r @ (left_jacobian(w) @ v), 1.0


@formula(POSE, POSED)
def posed_and_carried(rotation, translation, turn, turn_before, shift, shift_before):
    w, v = turn - turn_before, shift - shift_before
    r = constant(advanced(rotation, w))
    t = constant(translation + rotation @ (left_jacobian(w) @ v))
    w, v = turn - constant(turn), shift - constant(shift)
    return r @ axis_angle_to_matrix(w), t + r @ (left_jacobian(w) @ v), 1.0


@formula({"rotation": (3, 3), "gradient": (3, 3)}, (3,))
def algebra(rotation, gradient):
    """x with <G, R [y]> = x·y for all y."""
    return axial(rotation.T @ gradient)


@formula({"rotation": (3, 3), "gradient": (3, 3)}, (3, 3))
def tangent(rotation, gradient):
    """The part of G along the rotations near R: R times the skew part of RᵀG."""
    return rotation @ (0.5 * hat(axial(rotation.T @ gradient)))
