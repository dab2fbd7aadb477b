"""Differentiable rotations: exact, fast and finite where a singular value decomposition is not.

Column vectors, quaternions w x y z, radians. Every function takes any batch shape.
"""
# pyright: reportUnsupportedDunderAll=false

from importlib import import_module

from . import _deprecated
from ._names import CONVERSIONS as _CONVERSIONS
from ._names import KINDS as _KINDS

# Nothing is loaded before it is used, not even torch, so that the command line answers at once. Type checkers
# read `__init__.pyi`.
_HOMES = {
    "Transform": "transform",
    "exp_map": "interpolation",
    "interpolate_rotations": "interpolation",
    "interpolate_transforms": "interpolation",
    "log_map": "interpolation",
    "slerp": "interpolation",
    "chordal_distance": "metrics",
    "geodesic_distance": "metrics",
    "orthogonalize": "projection",
    "projection_gap": "projection",
    "special_orthogonalize": "projection",
    "quaternion_apply": "quaternions",
    "quaternion_conjugate": "quaternions",
    "quaternion_exp": "quaternions",
    "quaternion_inverse": "quaternions",
    "quaternion_log": "quaternions",
    "quaternion_mean": "quaternions",
    "quaternion_multiply": "quaternions",
    "quaternion_normalize": "quaternions",
    "quaternion_power": "quaternions",
    "quaternion_slerp": "quaternions",
    "convert_rotation": "representations",
    **dict.fromkeys(_CONVERSIONS, "representations"),
    "davenport_to_matrix": "representations",
    "matrix_to_davenport": "representations",
    "is_rotation": "rotations",
    "random_rotation": "rotations",
    "random_rotation_within": "rotations",
    "random_small_rotation": "rotations",
    "se3_adjoint": "se3",
    "se3_exp": "se3",
    "se3_left_jacobian": "se3",
    "se3_left_jacobian_inverse": "se3",
    "se3_log": "se3",
    "se3_right_jacobian": "se3",
    "se3_right_jacobian_inverse": "se3",
    "sim3_adjoint": "se3",
    "sim3_exp": "se3",
    "sim3_log": "se3",
    "so3_left_jacobian": "so3",
    "so3_left_jacobian_inverse": "so3",
    "so3_right_jacobian": "so3",
    "so3_right_jacobian_inverse": "so3",
    "swing_twist": "so3",
    "angle_between": "vectors",
    "circular_mean": "vectors",
    "hat": "vectors",
    "look_at": "vectors",
    "rotation_angle": "vectors",
    "rotation_between": "vectors",
    "vee": "vectors",
    "wrap_angle": "vectors",
}
_MODULES = (
    "averaging",
    "compat",
    "conventions",
    "distributions",
    "epipolar",
    "evaluation",
    "flows",
    "io",
    "losses",
    "nn",
    "optim",
    "polar",
    "quaternions",
    "registration",
    "representations",
    "schedules",
    "se3",
    "so3",
    "symmetries",
    "vectors",
)


def __getattr__(name: str):
    if name in _HOMES:
        value = getattr(import_module(f"svdrot.{_HOMES[name]}"), name)
    elif name in _MODULES:
        return import_module(f"svdrot.{name}")
    elif name == "__version__":
        value = import_module("importlib.metadata").version("svdrot")
    elif ("svdrot", name) in _deprecated.NAMES:
        return _deprecated.renamed("svdrot", name)
    else:
        more = f"; it has X_to_Y of {', '.join(_KINDS)}" if "_to_" in name else ""
        raise AttributeError(f"module 'svdrot' has no attribute {name!r}{more}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__]


__all__ = sorted((*_HOMES, *_MODULES, "__version__"))

_deprecated.alias_modules(__name__)
