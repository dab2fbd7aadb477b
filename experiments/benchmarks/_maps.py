"""The maps of the library for benchmarks: which there are, arguments for them, and who else has them."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from experiments import shared
from svdrot._formulas import conversions
from svdrot.engine.maps import Map
from svdrot.engine.program import Program

MODULES = tuple(
    f"svdrot._formulas.{name}" for name in ("conversions", "euler", "frames", "linear", "losses", "turns")
)


def maps(modules: Sequence[str] = MODULES) -> dict[str, Map]:
    """Collect all maps that modules declare, by the names of their formulas; of Euler angles one sequence."""
    found: dict[str, Map] = {}
    for module in modules:
        for value in vars(importlib.import_module(module)).values():
            several = [value.get("XYZ")] if isinstance(value, dict) else [value]
            found |= {m.name.rpartition(".")[2]: m for m in several if isinstance(m, Map) and not m.scalars}
    return found


def names(wanted: Sequence[str] = ()) -> list[str]:
    """Return the names of these maps, of all by default."""
    return [name for name in maps() if not wanted or name in wanted]


def projection() -> Map:
    """Return the map of 3x3 matrices to their nearest rotations, whose gradient reads its result."""
    return importlib.import_module("svdrot._formulas.projection").project


def of_roma() -> dict[str, Callable[..., Any]]:
    """Return what roma has of the maps, on quaternions x y z w."""
    roma = shared.run.peer(
        "roma"
    )  # not before it is needed: it imports Triton, which looks once whether to compile
    return {
        "quaternion_to_matrix": roma.unitquat_to_rotmat,
        "matrix_to_quaternion": roma.rotmat_to_unitquat,
        "axis_angle_to_quaternion": roma.rotvec_to_unitquat,
        "axis_angle_to_matrix": roma.rotvec_to_rotmat,
        "matrix_to_axis_angle": roma.rotmat_to_rotvec,
        "quaternion_to_axis_angle": roma.unitquat_to_rotvec,
        "geodesic_distance": roma.rotmat_geodesic_distance,
    }


def gradient(m: Map) -> Program:
    """Derive the program of the gradients by all arguments, from arguments and cotangents."""
    program = m.program
    return program.vjp((True,) * len(m.shapes), (True,) * len(m.results), False)


def drawn(program: Program, batch: int, device: str, dtype: torch.dtype) -> list[Tensor]:
    """Draw arguments: rotation matrices and unit quaternions for what a map takes, else normal numbers."""
    generator = torch.Generator(device).manual_seed(0)
    found = []
    for i, shape in enumerate(program.graph.inputs):
        count = (4,) if shape == (3, 3) else shape
        x = torch.randn(batch, *count, device=device, generator=generator)
        if i < program.primals and count == (4,):
            x = torch.nn.functional.normalize(x, dim=-1)
            x = conversions.quaternion_to_matrix(x) if shape == (3, 3) else x
        elif shape == (3, 3):
            x = torch.randn(batch, *shape, device=device, generator=generator)
        found.append(x.to(dtype))
    return found
