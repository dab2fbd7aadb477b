"""Which source goes with which target, and where each begins."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from svdrot.transform import Transform


def matched(
    source: Tensor | Sequence[Tensor],
    target: Tensor | Sequence[Tensor],
    init: Transform | Tensor | Sequence[Transform | Tensor] | None,
) -> tuple[list[Any], list[Any], list[Any]]:
    """Sources, targets and starts, as many of each; what is one is repeated."""
    if isinstance(init, Transform) and init.scale.ndim == 1:
        init = [Transform(*parts) for parts in zip(init.rotation, init.translation, init.scale, strict=True)]
    lists = {"source": _items(source), "target": _items(target), "init": _items(init)}
    counts = {name: len(items) for name, items in lists.items() if items is not None}
    if not {"source", "target"} & {*counts}:
        raise ValueError("`source` or `target` must be many clouds; got one of each: call `register`.")
    if len({*counts.values()}) > 1:
        told = ", ".join(f"{count} of `{name}`" for name, count in counts.items())
        raise ValueError(f"There must be as many of each, or one; got {told}.")
    count = next(iter(counts.values()))
    one = {"source": source, "target": target, "init": init}
    found = ([one[name]] * count if items is None else items for name, items in lists.items())
    sources, targets, inits = found
    return sources, targets, inits


def _items(value: Any) -> list[Any] | None:
    """The items of a sequence or of a tensor of clouds or matrices; None of one cloud or matrix."""
    many = isinstance(value, list | tuple) or (isinstance(value, Tensor) and value.ndim == 3)
    return list(value) if many else None
