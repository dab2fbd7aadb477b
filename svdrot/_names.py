"""Public names that are made, not written. Without torch, which `dir(svdrot)` must not load."""

from itertools import permutations

# Representations, as functions name them.
KINDS = (
    "matrix",
    "quaternion",
    "axis_angle",
    "mrp",
    "euler",
    "rotation_2vec",
    "rotation_5d",
    "rotation_6d",
    "rotation_9d",
    "symmetric_10d",
)
CONVERSIONS = tuple(f"{source}_to_{target}" for source, target in permutations(KINDS, 2))
