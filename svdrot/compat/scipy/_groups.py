"""The groups of rotations that scipy names, in its orientations."""

import torch
from torch import Tensor

from svdrot import symmetries
from svdrot._checks import check_choice

AXES = {"x": 0, "y": 1, "z": 2}


def group(name: str, axis: str) -> Tensor:
    """Return the rotations (N, 3, 3) of "I", "O", "T", "Cn" or "Dn", the last two about an axis."""
    check_choice("axis", axis.lower(), AXES)
    named = {"I": symmetries.icosahedral, "O": symmetries.octahedral, "T": symmetries.tetrahedral}
    if name in named:
        return named[name]()
    if name[:1] not in ("C", "D") or not name[1:].isdecimal() or int(name[1:]) < 1:
        raise ValueError(f'`group` must be "I", "O", "T", "Cn" or "Dn"; got {name!r}.')
    unit = torch.eye(3, dtype=torch.float64)
    about, order = unit[AXES[axis.lower()]], int(name[1:])
    if name[0] == "C":
        return symmetries.cyclic(order, about)
    return symmetries.dihedral(order, about, unit[(AXES[axis.lower()] + 1) % 3])
