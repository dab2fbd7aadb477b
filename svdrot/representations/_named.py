"""`X_to_Y` for the pairs that have no function of their own: `convert_rotation` under their names."""

from collections.abc import Callable
from itertools import permutations

from torch import Tensor

from svdrot import _names

from ._convert import convert_rotation
from ._euler import check_sequence
from ._table import TABLE

# By their names in functions: those of `convert_rotation`, and what their numbers are.
KINDS = {
    kind: next(
        (f"{kind}_{{}}" if kind == "euler" else name, row.words)
        for name, row in TABLE.items()
        if row.kind == kind
    )
    for kind in _names.KINDS
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
