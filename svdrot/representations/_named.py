"""`X_to_Y` for the pairs that have no function of their own: `convert_rotation` under their names."""

import re
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
    """Return for each ordered pair of kinds its function, by name."""
    return {f"{source}_to_{target}": _named(source, target) for source, target in permutations(KINDS, 2)}


def _named(source: str, target: str) -> Callable[..., Tensor]:
    """Return the conversion between two kinds, with a docstring of its own."""
    start, end = KINDS[source][0], KINDS[target][0]

    def convert(value: Tensor) -> Tensor:
        return convert_rotation(value, start, end)

    def convert_euler(value: Tensor, sequence: str) -> Tensor:
        check_sequence(sequence)
        return convert_rotation(value, start.format(sequence), end.format(sequence))

    function = convert_euler if "euler" in (source, target) else convert
    function.__name__ = function.__qualname__ = f"{source}_to_{target}"
    function.__module__ = "svdrot.representations"
    function.__doc__ = _docstring(source, target)
    return function


def _docstring(source: str, target: str) -> str:
    """Return what is said of the conversion: how, from what, to what, and an example."""
    (start, given), (end, wanted) = KINDS[source], KINDS[target]
    both = {row.hub for row in TABLE.values() if row.kind in (source, target)} == {"quaternion"}
    hub = "quaternion" if both else "matrix"
    euler = "euler" in (source, target)
    axes = "three axes, upper case for intrinsic or lower case for extrinsic, neighbors different."
    sequence = f"\n    sequence: {axes}" if euler else ""
    unknown = ", or `sequence` is not one of the 24" if euler else ""
    there, back = (', "XYZ"' if "euler" == kind else "" for kind in (source, target))
    either = ', "XYZ"' if euler else ""
    how = f'`convert_rotation(value, "{start}", "{end}")`'.replace("{}", "<sequence>")
    return f"""Convert {_without_shape(given)} to {_without_shape(wanted)}.

The same as {how}. Values and derivatives at the singular
set are those of its two halves, `{source}_to_{hub}` and `{hub}_to_{target}`.

Args:
    value: {given}.{sequence}

Returns:
    {wanted[0].upper()}{wanted[1:]}.

Raises:
    ValueError: if `value` has not that shape{unknown}.
    TypeError: if `value` is not floating point.

Example:
    >>> import torch, svdrot
    >>> rotation = svdrot.random_rotation(8, generator=torch.Generator().manual_seed(0))
    >>> value = svdrot.matrix_to_{source}(rotation{there})
    >>> converted = svdrot.{source}_to_{target}(value{either})
    >>> torch.allclose(svdrot.{target}_to_matrix(converted{back}), rotation, atol=1e-5)
    True
"""


def _without_shape(words: str) -> str:
    return re.sub(r" \(\.\.\..*?\)", "", words)
