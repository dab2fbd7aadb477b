"""Differentiable rotations: exact, fast and finite where a singular value decomposition is not.

Column vectors, quaternions w x y z, radians. Every function takes any batch shape.
"""
# pyright: reportUnsupportedDunderAll=false

from importlib import import_module

# Nothing is loaded before it is used, not even torch, so that the command line answers at once. Type checkers
# read `__init__.pyi`.
_HOMES = {
    "exp_map": "interpolation",
    "interpolate_rotations": "interpolation",
    "log_map": "interpolation",
    "slerp": "interpolation",
    "chordal_distance": "metrics",
    "geodesic_distance": "metrics",
    "orthogonalize": "projection",
    "projection_gap": "projection",
    "special_orthogonalize": "projection",
    "convert_rotation": "representations",  # and every X_to_Y
    "is_rotation": "rotations",
    "random_rotation": "rotations",
    "random_rotation_within": "rotations",
    "random_small_rotation": "rotations",
}


def __getattr__(name: str):
    if name in _HOMES:
        value = getattr(import_module(f"svdrot.{_HOMES[name]}"), name)
    elif "_to_" in name:
        value = _conversion(name)
    elif name in __all__:
        return import_module(f"svdrot.{name}")
    else:
        raise AttributeError(f"module 'svdrot' has no attribute {name!r}")
    globals()[name] = value
    return value


def _conversion(name: str):
    representations = import_module("svdrot.representations")
    if name in representations.CONVERSIONS:
        return representations.CONVERSIONS[name]
    known = ", ".join(representations.KINDS)
    raise AttributeError(f"module 'svdrot' has no attribute {name!r}; it has X_to_Y of {known}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "axis_angle_to_matrix",
    "axis_angle_to_quaternion",
    "chordal_distance",
    "conventions",
    "convert_rotation",
    "distributions",
    "euler_to_matrix",
    "euler_to_quaternion",
    "exp_map",
    "geodesic_distance",
    "interpolate_rotations",
    "is_rotation",
    "log_map",
    "losses",
    "matrix_to_axis_angle",
    "matrix_to_euler",
    "matrix_to_mrp",
    "matrix_to_quaternion",
    "matrix_to_rotation_2vec",
    "matrix_to_rotation_5d",
    "matrix_to_rotation_6d",
    "matrix_to_rotation_9d",
    "matrix_to_symmetric_10d",
    "mrp_to_matrix",
    "mrp_to_quaternion",
    "nn",
    "optim",
    "orthogonalize",
    "polar",
    "projection_gap",
    "quaternion_to_axis_angle",
    "quaternion_to_euler",
    "quaternion_to_matrix",
    "quaternion_to_mrp",
    "random_rotation",
    "random_rotation_within",
    "random_small_rotation",
    "registration",
    "representations",
    "rotation_2vec_to_matrix",
    "rotation_5d_to_matrix",
    "rotation_6d_to_matrix",
    "rotation_9d_to_matrix",
    "schedules",
    "slerp",
    "special_orthogonalize",
    "streaming",
    "symmetric_10d_to_matrix",
    "symmetries",
]
