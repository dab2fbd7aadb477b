"""What follows from a formula: its graph, and those of its derivatives of every order."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .derivatives import jvp, vjp
from .graph import CONDITIONS, Node, constant, operations, rebuilt, symbol, tracing

Shape = tuple[int, ...]


class Graph(NamedTuple):
    """A computation on one row. Entry k of input i is the symbol (i, k), number k of the call ("scalar",
    k)."""

    inputs: tuple[Shape, ...]  # of at most two dimensions
    scalars: int
    outputs: tuple[tuple[Node, ...], ...]  # the entries of each
    shapes: tuple[Shape, ...]  # of the outputs
    summed: tuple[bool, ...]  # of which outputs, of one number, the sum over all rows is wanted, in float64
    guarded: tuple[int, ...]  # inputs of which one entry that is not finite makes all outputs NaN


class Program:
    """A graph that knows its derivatives.

    Args:
        graph: on the inputs of a formula, and for a derivative on what comes after them.
        name: by which `find` finds it.
        order: of the derivative.
        follows: for each output the input whose dtype it has, or None for the common one of the formula's.
        primals: how many of the inputs are the formula's own.
    """

    def __init__(self, graph: Graph, name: str, order: int, follows: Sequence[int | None], primals: int):
        self.graph, self.name, self.order, self.follows, self.primals = (
            graph,
            name,
            order,
            tuple(follows),
            primals,
        )
        self.sums = any(graph.summed)
        # Derivatives take the results, too, instead of doing an operation of many steps again.
        self.keeps_results = any(n.op == "item" for group in graph.outputs for n in group)
        self.kernels: dict[Any, Any] = {}
        PROGRAMS[name] = self

    def __reduce__(self):
        return find, (self.name,)

    @cached_property
    def cost(self) -> int:
        """Operations on a row."""
        return operations([n for group in self.graph.outputs for n in group])

    def vjp(self, wanted: tuple[bool, ...], given: tuple[bool, ...], with_results: bool) -> "Program":
        """(inputs, results if wanted, given cotangents) -> adjoints of the wanted inputs."""
        key = f"{self.name}|vjp:{_bits(wanted)}:{_bits(given)}:{with_results:d}"
        return PROGRAMS.get(key) or self._vjp(wanted, given, with_results, key)

    def _vjp(self, wanted, given, with_results, key):
        graph, first = self.graph, self._first(with_results)
        places = [i for i, w in enumerate(wanted) if w]
        with tracing(self._nodes):
            cotangents, shapes = self._along(graph.shapes, given, first)
            targets = [symbol((i, k)) for i in places for k in range(math.prod(graph.inputs[i]))]
            flat = iter(self._finished(vjp(self._nodes, targets, cotangents), with_results))
        groups = tuple(tuple(next(flat) for _ in range(math.prod(graph.inputs[i]))) for i in places)
        inputs = (*graph.inputs, *(graph.shapes if with_results else ()), *shapes)
        shapes = tuple(graph.inputs[i] for i in places)
        return self._derived(inputs, groups, shapes, key, places, (False,) * len(places))

    def jvp(self, given: tuple[bool, ...], with_results: bool) -> "Program":
        """(inputs, results if wanted, given tangents) -> tangents of the outputs."""
        key = f"{self.name}|jvp:{_bits(given)}:{with_results:d}"
        return PROGRAMS.get(key) or self._jvp(given, with_results, key)

    def _jvp(self, given, with_results, key):
        graph, first = self.graph, self._first(with_results)
        with tracing(self._nodes):
            tangents, shapes = self._along(graph.inputs, given, first)
            sources = [symbol((i, k)) for i, s in enumerate(graph.inputs) for k in range(math.prod(s))]
            flat = iter(self._finished(jvp(self._nodes, sources, tangents), with_results))
        groups = tuple(tuple(next(flat) for _ in group) for group in graph.outputs)
        inputs = (*graph.inputs, *(graph.shapes if with_results else ()), *shapes)
        return self._derived(inputs, groups, graph.shapes, key, self.follows, graph.summed)

    @cached_property
    def _nodes(self) -> list[Node]:
        return [n for group in self.graph.outputs for n in group]

    def _first(self, with_results: bool) -> int:
        """Where the inputs of a derivative begin that the formula has not."""
        return len(self.graph.inputs) + (len(self.graph.shapes) if with_results else 0)

    def _along(
        self, shapes: Sequence[Shape], given: tuple[bool, ...], first: int
    ) -> tuple[list, list[Shape]]:
        """Symbols of cotangents or tangents, zeros for those not given, and the shapes of those that are."""
        symbols: list[Node] = []
        there: list[Shape] = []
        for shape, g in zip(shapes, given, strict=True):
            place = first + len(there)
            symbols += [symbol((place, k)) if g else constant(0.0) for k in range(math.prod(shape))]
            there += [shape] if g else []
        return symbols, there

    def _finished(self, nodes: list[Node], with_results: bool) -> list[Node]:
        """A derivative with the results of the formula in place of what they would be computed from."""
        if not with_results:
            return nodes
        names = {
            id(n): (len(self.graph.inputs) + i, k)
            for i, (group, total) in enumerate(zip(self.graph.outputs, self.graph.summed, strict=True))
            for k, n in enumerate(group)
            if n.args and not total  # of a sum the result of a row is not known
        }
        return rebuilt(nodes, lambda n, _: symbol(names[id(n)]) if id(n) in names else None)

    def _derived(self, inputs, groups, shapes, key, follows, summed) -> "Program":
        graph = self.graph
        derived = Graph(tuple(inputs), graph.scalars, groups, shapes, summed, graph.guarded)
        return Program(derived, key, self.order + 1, follows, self.primals)


PROGRAMS: dict[str, Program] = {}
_DECLARED: dict[str, tuple] = {}  # what the formulas of these names are


def find(name: str) -> Program:
    """The program of a name, made again if need be."""
    if name in PROGRAMS:
        return PROGRAMS[name]
    parent, _, derivative = name.rpartition("|")
    if not parent:
        raise KeyError(f"no formula of the name {name!r} has been declared in this process")
    kind, *masks = derivative.split(":")
    *masks, results = masks
    return getattr(find(parent), kind)(*(tuple(c == "1" for c in mask) for mask in masks), results == "1")


def _bits(flags: Sequence[bool]) -> str:
    return "".join(str(int(f)) for f in flags)


def program(
    formula: Callable,
    inputs: Sequence[Shape],
    results: Sequence[Shape],
    *,
    name: str,
    scalars: int = 0,
    guarded: Sequence[int] = (),
    summed: Sequence[bool] = (),
) -> Program:
    """The program of a formula: a function of arrays of symbols, a symbol for a shape of (), and scalars.

    Raises:
        ValueError: if another formula has the name, or the same one with other shapes.
    """
    for shape in (*inputs, *results):  # results are inputs of derivatives
        if len(shape) > 2:
            raise ValueError(
                f"an element of the formula `{name}` may have two dimensions; got shape {tuple(shape)}: "
                "flatten it"
            )
    with tracing():
        symbols = [_symbols(i, shape) for i, shape in enumerate(inputs)]
        numbers = [symbol(("scalar", k)) for k in range(scalars)]
        try:
            found = formula(*symbols, *numbers)
        except (TypeError, AttributeError) as error:
            raise TypeError(f"the formula `{name}` failed on symbols: {error}") from error
        found = found if len(results) > 1 else (found,)
        if not isinstance(found, (tuple, list)) or len(found) != len(results):
            raise ValueError(f"the formula `{name}` must return {len(results)} results; got {found!r}")
        groups = tuple(
            _entries(name, k, r, shape) for k, (r, shape) in enumerate(zip(found, results, strict=True))
        )
    totals = tuple(summed) or (False,) * len(results)
    declared = formula, tuple(inputs), tuple(results), scalars, tuple(guarded), totals
    if _DECLARED.setdefault(name, declared) != declared:
        raise ValueError(f"another formula of the name `{name}` has been declared: give this one a `name`")
    graph = Graph(tuple(inputs), scalars, groups, tuple(results), totals, tuple(guarded))
    return Program(graph, name, 0, [None] * len(results), len(inputs))


def _symbols(i: int, shape: Shape) -> Any:
    if shape == ():
        return symbol((i, 0))
    array = np.empty(math.prod(shape), dtype=object)
    array[:] = [symbol((i, k)) for k in range(len(array))]
    return array.reshape(shape)


def _entries(name: str, k: int, result: Any, shape: Shape) -> tuple[Node, ...]:
    flat = _flat(result)
    if len(flat) != math.prod(shape):
        raise ValueError(
            f"result {k} of the formula `{name}` must have shape {shape}; got {len(flat)} numbers"
        )
    entries = tuple(x if isinstance(x, Node) else constant(x) for x in flat)
    if any(x.op in CONDITIONS for x in entries):
        raise TypeError(
            f"result {k} of the formula `{name}` is a condition: `where(condition, 1.0, 0.0)` is a number"
        )
    return entries


def _flat(result: Any) -> list:
    if isinstance(result, (tuple, list, np.ndarray)):
        return [x for part in result for x in _flat(part)]
    return [result]
