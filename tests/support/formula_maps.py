"""The maps of `svdrot._formulas`, and arguments to call them with."""

import torch
from torch import Tensor

from svdrot._formulas import conversions, linear, turns
from svdrot._formulas.geometry import directions, quaternions, so3
from svdrot.engine.maps import Map
from svdrot.engine.program import Program

CONVERSIONS = (
    "quaternion_to_matrix",
    "matrix_to_quaternion",
    "axis_angle_to_quaternion",
    "axis_angle_to_matrix",
    "matrix_to_axis_angle",
    "quaternion_to_axis_angle",
    "mrp_to_quaternion",
    "quaternion_to_mrp",
    "mrp_to_matrix",
    "matrix_to_mrp",
)
MAPS: dict[str, Map] = {
    **{name: getattr(conversions, name) for name in CONVERSIONS},
    "geodesic_distance": turns.geodesic_distance,
    "chordal_distance": turns.chordal_distance,
    "quaternion_log": quaternions.logarithm,
    "quaternion_slerp": quaternions.slerp,
    "rotation_between": directions.rotation_between,
    "so3_left_jacobian_inverse": so3.left_jacobian_inverse,
    "rotation_9d_to_matrix": linear.rotation_9d_to_matrix,
}


def programs(name: str) -> dict[str, Program]:
    """The program of a map, and those of its derivatives with everything given and everything wanted."""
    value = MAPS[name].program
    inputs, results = (True,) * len(value.graph.inputs), (True,) * len(value.graph.shapes)
    vjp = value.vjp(inputs, results, False)
    again = vjp.vjp((True,) * len(vjp.graph.inputs), (True,) * len(vjp.graph.shapes), False)
    return {"value": value, "vjp": vjp, "jvp": value.jvp(inputs, False), "vjp of vjp": again}


def drawn(program: Program, *batch: int, seed: int = 0) -> list[Tensor]:
    """Arguments of a program in float64: rotation matrices for its own (3, 3), else normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i, shape in enumerate(program.graph.inputs):
        x = torch.randn(*batch, *shape, dtype=torch.float64, generator=generator)
        if shape == (3, 3) and i < program.primals:
            u, _, vh = torch.linalg.svd(x)
            x = u @ vh
            x = x * torch.linalg.det(x)[..., None, None]
        found.append(x)
    return found
