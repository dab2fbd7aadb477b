"""`X_to_Y` for the pairs that have no function of their own: `convert_rotation` under their names."""

from collections.abc import Callable
from itertools import permutations

from torch import Tensor

from ._convert import convert_rotation
from ._euler import check_sequence

# Names in functions, of `svdrot._names`: in those of `convert_rotation`, and in words.
KINDS = {
    "matrix": ("matrix", "rotations (..., 3, 3)"),
    "quaternion": ("quaternion", "quaternions w x y z (..., 4)"),
    "axis_angle": ("axis_angle", "rotation vectors in radians (..., 3)"),
    "mrp": ("mrp", "modified Rodrigues parameters (..., 3)"),
    "euler": ("euler_{}", "Euler angles in radians (..., 3) about the axes of `sequence`"),
    "rotation_2vec": ("2vec", "two directions (..., 6)"),
    "rotation_5d": ("5d", "projected columns (..., 5)"),
    "rotation_6d": ("6d", "the first two columns (..., 6)"),
    "rotation_9d": ("9d", "the nine entries (..., 9)"),
    "symmetric_10d": ("10d", "symmetric forms (..., 10)"),
}


def named_conversions() -> dict[str, Callable[..., Tensor]]:
    """For each ordered pair of kinds its function, by name."""
    return {f"{source}_to_{target}": _named(source, target) for source, target in permutations(KINDS, 2)}


def _named(source: str, target: str) -> Callable[..., Tensor]:
    (start, given), (end, wanted) = KINDS[source], KINDS[target]

    def convert(value: Tensor) -> Tensor:
        return convert_rotation(value, start, end)

    def convert_euler(value: Tensor, sequence: str) -> Tensor:
        check_sequence(sequence)
        return convert_rotation(value, start.format(sequence), end.format(sequence))

    function = convert_euler if "euler" in (source, target) else convert
    function.__name__ = function.__qualname__ = f"{source}_to_{target}"
    function.__module__ = "svdrot.representations"
    function.__doc__ = (
        f"{wanted[0].upper()}{wanted[1:]} from {given}.\n\n"
        f'`convert_rotation(value, "{start}", "{end}")`, which see.'.replace("{}", "<sequence>")
    )
    return function
