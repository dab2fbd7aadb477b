"""From a graph of formulas to one of a machine: constants of a precision, operations as their bodies."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from .graph import Node, constant, node, rebuilt, tracing

# How operators are written in every language that looks like Python; division rounds as each machine is told.
INFIX = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "neg": "-{}",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "eq": "{} == {}",
    "and": "{} & {}",
    "or": "{} | {}",
    "not": "~{}",
}


def lowered(
    outputs: Sequence[Node],
    dtype: torch.dtype,
    bodies: Mapping[str, Callable[..., Node]],
    recorded: bool = False,
) -> list[Node]:
    """Replace operations that a machine lacks by their formulas, and round constants to `dtype`.

    By those for programs that are `recorded`, or by their bodies.
    """
    with tracing():
        # First operations with a derivative of their own, then what those are made of.
        outputs = rebuilt(outputs, lambda n, args: _expanded(n, args, {}, recorded))
        outputs = rebuilt(outputs, lambda n, args: _expanded(n, args, bodies, recorded))
        return rebuilt(outputs, lambda n, args: _known(n, args, dtype))


def with_constants(outputs: Sequence[Node], dtype: torch.dtype) -> list[Node]:
    """The same graph with the constants of a precision."""
    with tracing():
        return rebuilt(outputs, lambda n, args: _known(n, args, dtype))


def _expanded(n: Node, args: list, bodies: Mapping[str, Callable[..., Node]], recorded: bool):
    if n.op == "call":
        formula = (recorded and n.value.recorded) or n.value.body
        return rebuilt([*formula(*args)], lambda m, a: _expanded(m, a, bodies, recorded))
    if n.op == "item":
        return args[0][n.value]
    if n.op in bodies:
        return bodies[n.op](*args)
    return None


def _known(n: Node, args: list, dtype: torch.dtype) -> Node:
    if n.op == "by_dtype":
        n = constant(n.value[dtype == torch.float64])
    elif args:
        n = node(n.op, *args, value=n.value)
    if n.op == "constant" and dtype != torch.float64:
        with np.errstate(over="ignore"):
            return constant(float(np.float32(n.value)))
    return n
