"""Doors from other libraries: their names, conventions and orders of arguments, on the functions of this one.

A user changes the import and nothing else: `from svdrot.compat import roma`, `from
svdrot.compat.pytorch3d.transforms import quaternion_to_matrix`, `from svdrot.compat.scipy import Rotation`.
What is deliberately different is said where it is, and in docs/compat.md.

Example:
    >>> import torch
    >>> from svdrot.compat import roma
    >>> roma.rotvec_to_unitquat(torch.tensor([0.0, 0.0, torch.pi]))  # x y z w, as there
    tensor([ 0.0000e+00,  0.0000e+00,  1.0000e+00, -4.3711e-08])
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import pytorch3d as pytorch3d
    from . import roma as roma
    from . import scipy as scipy

__all__ = ["pytorch3d", "roma", "scipy"]


def __getattr__(name: str):
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__]
