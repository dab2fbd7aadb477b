"""What follows from a formula: its graph, and those of its derivatives of every order."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain, count
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch

from .derivatives import jvp, vjp
from .graph import CONDITIONS, Node, as_node, constant, rebuilt, symbol, tracing

Shape = tuple[int, ...]


COMPUTED = -1  # in place of an input: the dtype of the computation
Follows = int | torch.dtype | None  # what the dtype of an output is: see `Program`


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
        follows: for each output its dtype, or the input whose dtype it has, None for the common one of the
            formula's inputs, or `COMPUTED`.
        primals: how many of the inputs are the formula's own.
    """

    def __init__(self, graph: Graph, name: str, order: int, follows: Sequence[Follows], primals: int):
        self.graph: Graph = graph
        self.name: str = name
        self.order: int = order
        self.follows: tuple[Follows, ...] = tuple(follows)
        self.primals: int = primals
        # Results that derivatives take: not what is stored in a dtype of its own, perhaps rounded.
        self.kept: list[int] = [i for i, f in enumerate(self.follows) if not isinstance(f, torch.dtype)]
        self.sums: bool = any(graph.summed)
        # Derivatives take the results, too, instead of doing an operation of many steps again.
        self.keeps_results: bool = any(n.op == "item" for group in graph.outputs for n in group)
        self.kernels: dict[Any, Any] = {}  # by device and dtypes
        self.plans: dict[Any, Any] = {}  # by shapes and dtypes
        self.derivatives: dict[Any, Program] = {}  # by what is wanted and given
        PROGRAMS[name] = self

    def __reduce__(self) -> Any:
        return find, (self.name,)

    def vjp(self, wanted: tuple[bool, ...], given: tuple[bool, ...], with_results: bool) -> "Program":
        """(inputs, results `kept` if wanted, given cotangents) -> adjoints of the wanted inputs."""
        found = self.derivatives.get((wanted, given, with_results))
        if found is None:
            name = f"{self.name}|vjp:{_bits(wanted)}:{_bits(given)}:{with_results:d}"
            found = self.derivatives[wanted, given, with_results] = self._vjp(
                wanted, given, with_results, name
            )
        return found

    def _vjp(self, wanted, given, with_results, name):
        graph, first = self.graph, self._first(with_results)
        places = [i for i, w in enumerate(wanted) if w]
        with tracing(self._nodes):
            cotangents, shapes = self._along(graph.shapes, given, first)
            targets = [n for i in places for n in self._entries_of(i)]
            flat = iter(self._finished(vjp(self._nodes, targets, cotangents), with_results))
        groups = tuple(tuple(next(flat) for _ in range(math.prod(graph.inputs[i]))) for i in places)
        inputs = (*graph.inputs, *self._results(with_results), *shapes)
        shapes = tuple(graph.inputs[i] for i in places)
        return self._derived(inputs, groups, shapes, name, places, (False,) * len(places))

    def jvp(self, given: tuple[bool, ...], with_results: bool) -> "Program":
        """(inputs, results `kept` if wanted, given tangents) -> tangents of the outputs."""
        found = self.derivatives.get((given, with_results))
        if found is None:
            name = f"{self.name}|jvp:{_bits(given)}:{with_results:d}"
            found = self.derivatives[given, with_results] = self._jvp(given, with_results, name)
        return found

    def _jvp(self, given, with_results, name):
        graph, first = self.graph, self._first(with_results)
        with tracing(self._nodes):
            tangents, shapes = self._along(graph.inputs, given, first)
            sources = [n for i in range(len(graph.inputs)) for n in self._entries_of(i)]
            flat = iter(self._finished(jvp(self._nodes, sources, tangents), with_results))
        groups = tuple(tuple(next(flat) for _ in group) for group in graph.outputs)
        inputs = (*graph.inputs, *self._results(with_results), *shapes)
        return self._derived(inputs, groups, graph.shapes, name, self.follows, graph.summed)

    def total(self, wanted: tuple[bool, ...]) -> "Program":
        """(inputs, factor) -> the sum of the only output over all rows, and `factor` times its gradients."""
        found = self.derivatives.get(wanted)
        if found is None:
            found = self.derivatives[wanted] = self._total(wanted, f"{self.name}|total:{_bits(wanted)}")
        return found

    def _total(self, wanted, name):
        graph = self.graph
        with tracing(self._nodes):
            factor = symbol(("scalar", graph.scalars))
            targets = [self._entries_of(i) for i, w in enumerate(wanted) if w]
            flat = iter(vjp(self._nodes, [n for group in targets for n in group], [factor]))
            gradients = tuple(tuple(next(flat) for _ in group) for group in targets)
        places = [i for i, w in enumerate(wanted) if w]
        shapes = ((), *(graph.inputs[i] for i in places))
        summed = (True, *(False for _ in places))
        whole = Graph(
            graph.inputs, graph.scalars + 1, (graph.outputs[0], *gradients), shapes, summed, graph.guarded
        )
        return Program(whole, name, self.order, (None, *[COMPUTED] * len(places)), self.primals)

    def _entries_of(self, i: int) -> list[Node]:
        return [symbol((i, k)) for k in range(math.prod(self.graph.inputs[i]))]

    @cached_property
    def _nodes(self) -> list[Node]:
        return [n for group in self.graph.outputs for n in group]

    def _first(self, with_results: bool) -> int:
        """Where the inputs of a derivative begin that the formula has not."""
        return len(self.graph.inputs) + len(self._results(with_results))

    def _results(self, wanted: bool) -> list[Shape]:
        return [self.graph.shapes[i] for i in self.kept] if wanted else []

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
        graph = self.graph
        names = {
            id(n): (len(graph.inputs) + place, k)
            for place, i in enumerate(self.kept)
            for k, n in enumerate(graph.outputs[i])
            if n.args and not graph.summed[i]  # of a sum the result of a row is not known
        }
        return rebuilt(nodes, lambda n, _: symbol(names[id(n)]) if id(n) in names else None)

    def _derived(self, inputs, groups, shapes, name, follows, summed) -> "Program":
        graph = self.graph
        derived = Graph(tuple(inputs), graph.scalars, groups, shapes, summed, graph.guarded)
        return Program(derived, name, self.order + 1, follows, self.primals)


PROGRAMS: WeakValueDictionary[str, Program] = WeakValueDictionary()  # a formula keeps its derivatives alive


MAPS: WeakValueDictionary[str, Any] = WeakValueDictionary()  # what has a `program`, by its name


_TAKEN: set[str] = set()


def free_name(name: str) -> str:
    """The name, or with a number if a formula had it: what was compiled by name stays right."""
    found = next(n for n in chain([name], (f"{name} {k}" for k in count(2))) if n not in _TAKEN)
    _TAKEN.add(found)
    return found


def find(name: str) -> Program:
    """The program of a name, made if need be."""
    if name in PROGRAMS:
        return PROGRAMS[name]
    parent, _, derivative = name.rpartition("|")
    if not parent:
        if name not in MAPS:
            raise KeyError(f"no formula of the name {name!r} has been declared in this process")
        return MAPS[name].program
    kind, *masks = derivative.split(":")
    flags = [tuple(c == "1" for c in mask) for mask in masks]
    if kind == "total":
        return find(parent).total(*flags)
    *flags, (with_results,) = flags
    return getattr(find(parent), kind)(*flags, with_results)


def _bits(flags: Sequence[bool]) -> str:
    return "".join(str(int(f)) for f in flags)


def program(
    formula: Callable[..., Any],
    inputs: Sequence[Shape],
    results: Sequence[Shape],
    *,
    name: str,
    scalars: int = 0,
    guarded: Sequence[int] = (),
    summed: Sequence[bool] = (),
    follows: Sequence[Follows] = (),
) -> Program:
    """The program of a formula: a function of arrays of symbols, a symbol for a shape of (), and scalars."""
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
    graph = Graph(tuple(inputs), scalars, groups, tuple(results), totals, tuple(guarded))
    return Program(graph, name, 0, follows or [None] * len(results), len(inputs))


def _symbols(i: int, shape: Shape) -> Any:
    return array_of([symbol((i, k)) for k in range(math.prod(shape))], shape)


def array_of(numbers: Any, shape: Shape) -> Any:
    """Numbers and symbols, nested anyhow, as an array of this shape, or the only one for ()."""
    flat = _flat(numbers)
    if len(flat) != math.prod(shape):
        raise ValueError(f"{math.prod(shape)} numbers are wanted, for shape {shape}; got {len(flat)}")
    if shape == ():
        return flat[0]
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(shape)


def _entries(name: str, k: int, result: Any, shape: Shape) -> tuple[Node, ...]:
    flat = _flat(result)
    if isinstance(result, np.ndarray) and result.ndim == 2 and len(shape) == 2 and result.shape != shape:
        raise ValueError(f"result {k} of the formula `{name}` must have shape {shape}; got {result.shape}")
    if len(flat) != math.prod(shape):
        raise ValueError(
            f"result {k} of the formula `{name}` must have shape {shape}; got {len(flat)} numbers"
        )
    entries = tuple(map(as_node, flat))
    if any(x.op in CONDITIONS for x in entries):
        raise TypeError(
            f"result {k} of the formula `{name}` is a condition: `where(condition, 1.0, 0.0)` is a number"
        )
    return entries


def is_symbolic(x: Sequence[Any]) -> bool:
    """Whether there is a symbol among numbers and arrays of them."""
    parts = [entry for entry in x if not (isinstance(entry, np.ndarray) and entry.dtype != object)]
    return any(isinstance(entry, Node) for entry in _flat(parts))


def _flat(result: Any) -> list[Any]:
    if isinstance(result, np.ndarray):
        return [*result.flat]
    if isinstance(result, (tuple, list)):
        return [x for part in result for x in _flat(part)]
    return [result]
