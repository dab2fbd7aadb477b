"""Derivatives of graphs, as graphs: reverse mode (`vjp`) and forward mode (`jvp`), of any order by
repetition.

An adjoint or tangent that is zero annihilates: what `where` did not choose gives exactly zero, although the
factor it would be multiplied by may be infinite there, as 1 / (2 sqrt(x)) is at x = 0. So a formula needs to
guard values only, and where(x > 0, sqrt(x), 0) has the derivative 0 at 0.

A sum of two such zeros, of a node that two conditions choose, is a number like any other. There the argument
needs the guard, as in `words.root`.
"""

from collections.abc import Sequence

from .graph import Node, as_node, constant, is_constant, results_of
from .walk import ordered
from .words import absolute, cos, maximum, sin, where


def vjp(outputs: Sequence[Node], wanted: Sequence[Node], cotangents: Sequence[Node]) -> list[Node]:
    """The adjoint of each wanted input, when the outputs have these cotangents. Within `tracing(outputs)`."""
    adjoints: dict[int, Node] = {}
    zero = constant(0.0)

    def give(n: Node, g: Node) -> None:
        if not is_constant(g, 0) and n.op != "constant":
            adjoints[id(n)] = plus(adjoints[id(n)], g) if id(n) in adjoints else g

    for output, g in zip(outputs, cotangents, strict=True):
        give(output, g)
    for n in reversed(_up_to(outputs, wanted)):
        if n.op == "call":
            results = results_of(n)
            g = [adjoints.get(id(r), zero) for r in results]
            if not all(is_constant(x, 0) for x in g):
                for a, adjoint in zip(n.args, n.value.vjp(n.args, results, g), strict=True):
                    give(a, as_node(adjoint))
            continue
        g = adjoints.get(id(n))
        if g is None or n.op == "item":
            continue
        if n.op == "where":
            condition, x, y = n.args
            give(x, where(condition, g, 0.0))
            give(y, where(condition, 0.0, g))
        else:
            for a, factor in _partials(n):
                give(a, times(g, factor))
    return [adjoints.get(id(x), zero) for x in wanted]


def jvp(outputs: Sequence[Node], given: Sequence[Node], tangents: Sequence[Node]) -> list[Node]:
    """The tangent of each output, when the given inputs have these. Within `tracing(outputs)`."""
    known: dict[int, Node] = {id(x): t for x, t in zip(given, tangents, strict=True)}
    zero = constant(0.0)
    for n in _up_to(outputs, given):
        if id(n) in known or n.op == "item":
            continue
        if n.op == "call":
            results = results_of(n)
            along = [known.get(id(a), zero) for a in n.args]
            for r, t in zip(results, n.value.jvp(n.args, results, along), strict=True):
                known[id(r)] = as_node(t)
            continue
        if n.op == "where":
            condition, x, y = n.args
            tangent = where(condition, known.get(id(x), zero), known.get(id(y), zero))
        else:
            tangent = zero
            for a, factor in _partials(n):
                if id(a) in known:
                    tangent = plus(tangent, times(known[id(a)], factor))
        if not is_constant(tangent, 0):
            known[id(n)] = tangent
    return [known.get(id(o), zero) for o in outputs]


def _up_to(outputs: Sequence[Node], inputs: Sequence[Node]) -> list[Node]:
    """The nodes that depend on the inputs, each after its arguments."""
    reached = {id(x) for x in inputs}
    found = []
    for n in ordered(outputs):
        if id(n) in reached or any(id(a) in reached for a in n.args):
            reached.add(id(n))
            found.append(n)
    return found


def times(g: Node, factor: Node) -> Node:
    """g times factor, but 0 wherever `where` made g 0."""
    if g.op == "where":
        condition, x, y = g.args
        if is_constant(y, 0):
            return where(condition, times(x, factor), 0.0)
        if is_constant(x, 0):
            return where(condition, 0.0, times(y, factor))
    return g * factor


def plus(g: Node, h: Node) -> Node:
    """g + h, in one `where` if both are chosen by the same condition."""
    if g.op == h.op == "where" and g.args[0] is h.args[0]:
        (condition, a, b), (_, c, d) = g.args, h.args
        return where(condition, plus(a, c), plus(b, d))
    return g + h


def _partials(n: Node) -> list[tuple[Node, Node]]:
    """Arguments of a node, each with the derivative by it."""
    a = n.args
    match n.op:
        case "add":
            return [(a[0], constant(1)), (a[1], constant(1))]
        case "sub":
            return [(a[0], constant(1)), (a[1], constant(-1))]
        case "mul":
            return [(a[0], a[1]), (a[1], a[0])]
        case "div":
            inverse = 1.0 / a[1]
            return [(a[0], inverse), (a[1], -(n * inverse))]
        case "neg":
            return [(a[0], constant(-1))]
        case "abs":
            return [(a[0], where(a[0] > 0.0, 1.0, where(a[0] < 0.0, -1.0, 0.0)))]
        case "roughly":
            return [(a[0], constant(1))]
        case "once":
            raise NotImplementedError(n.value)
        case "nothing":
            raise AssertionError("a recorded formula has no graph of its derivatives")
        case "sqrt":
            return [(a[0], 0.5 / n)]
        case "sin":
            return [(a[0], cos(a[0]))]
        case "cos":
            return [(a[0], -sin(a[0]))]
        case "atan2":
            y, x = a
            k = 1.0 / maximum(absolute(x), absolute(y))  # so that no square leaves the range of numbers
            y, x = y * k, x * k
            k = k / (x * x + y * y)
            return [(a[0], x * k), (a[1], -(y * k))]
        case "exp":
            return [(a[0], n)]
        case "expm1":
            return [(a[0], n + 1.0)]
        case "log":
            return [(a[0], 1.0 / a[0])]
        case "log1p":
            return [(a[0], 1.0 / (1.0 + a[0]))]
    return []  # comparisons, floor, detached, leaves
