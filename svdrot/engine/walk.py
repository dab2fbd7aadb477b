"""The nodes of a graph in an order in which they can be computed."""

from collections.abc import Iterable
from typing import Any


def ordered(outputs: Iterable[Any]) -> list[Any]:
    """All nodes that the outputs are made of, each after its arguments."""
    order, seen, stack = [], set(), [*outputs][::-1]
    while stack:
        n = stack.pop()
        if n is None:  # the one below has its arguments
            order.append(stack.pop())
        elif id(n) not in seen:
            seen.add(id(n))
            if n.args:
                stack += (n, None, *n.args[::-1])
            else:
                order.append(n)
    return order


def operations(outputs: Iterable[Any]) -> int:
    """How many operations there are: what a machine has to do."""
    return sum(
        n.op not in ("input", "constant", "by_dtype", "item", "detached", "once", "roughly")
        for n in ordered(outputs)
    )
