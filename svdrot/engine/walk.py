"""The nodes of a graph in an order in which they can be computed."""

from collections.abc import Iterable
from typing import Any


def ordered(outputs: Iterable[Any]) -> list[Any]:
    """All nodes that the outputs are made of, each after its arguments."""
    order, seen, stack = [], set(), [(o, False) for o in reversed(list(outputs))]
    while stack:
        n, done = stack.pop()
        if done:
            order.append(n)
        elif id(n) not in seen:
            seen.add(id(n))
            stack.append((n, True))
            stack.extend([(a, False) for a in reversed(n.args)])
    return order


def operations(outputs: Iterable[Any]) -> int:
    """How many operations there are: what a machine has to do."""
    return sum(
        n.op not in ("input", "constant", "by_dtype", "item", "detached", "once") for n in ordered(outputs)
    )
