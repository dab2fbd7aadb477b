"""Formulas as graphs: an ordinary Python function of numbers, called once with symbols, leaves one behind.

A `Node` is one operation on nodes; its leaves are inputs and constants. Within `tracing()` equal nodes are
one node, so that a graph computes nothing twice, and what constants decide is decided at once.

Beside the operators of Python a formula has those of `words`: `sqrt`, `where`, `sin`, `atan2`, ... Straight-
line code only: a vector machine does the same work for every element, so that there is nothing to branch on.
"""

import math
import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .walk import ordered

MOST_OPERATIONS = 1_000_000  # of one formula: no loop of it ends, if it makes more


def _straight(op: str) -> Callable[[Any, Any], Any]:
    """An operator; arrays take symbols entry by entry themselves."""
    return lambda x, y: NotImplemented if isinstance(y, np.ndarray) else node(op, x, y)


def _swapped(op: str) -> Callable[[Any, Any], Any]:
    return lambda x, y: NotImplemented if isinstance(y, np.ndarray) else node(op, y, x)


class Node:
    """One operation, `op`, on other nodes; `value` is of a constant its number, of an input its name."""

    __slots__ = ("args", "op", "value")
    op: str
    args: "tuple[Node, ...]"
    value: Any

    def __init__(self, op: str, args: tuple["Node", ...] = (), value: Any = None):
        self.op, self.args, self.value = op, args, value

    __add__: Any = _straight("add")
    __radd__: Any = _swapped("add")
    __sub__: Any = _straight("sub")
    __rsub__: Any = _swapped("sub")
    __mul__: Any = _straight("mul")
    __rmul__: Any = _swapped("mul")
    __truediv__: Any = _straight("div")
    __rtruediv__: Any = _swapped("div")

    def __neg__(self) -> "Node":
        return node("neg", self)

    def __pos__(self) -> "Node":
        return self

    def __abs__(self) -> "Node":
        return node("abs", self)

    def __pow__(self, power: Any) -> "Node":
        return _power(self, power)

    def __lt__(self, other: Any) -> "Node":
        return node("lt", self, other)

    def __gt__(self, other: Any) -> "Node":
        return node("lt", other, self)

    def __le__(self, other: Any) -> "Node":
        return node("le", self, other)

    def __ge__(self, other: Any) -> "Node":
        return node("le", other, self)

    def __eq__(self, other: object) -> Any:
        return node("eq", self, other)

    def __ne__(self, other: object) -> Any:
        return node("not", node("eq", self, other))

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __and__(self, other: Any) -> "Node":
        return node("and", self, other)

    def __or__(self, other: Any) -> "Node":
        return node("or", self, other)

    def __invert__(self) -> "Node":
        return node("not", self)

    def __bool__(self) -> bool:
        raise TypeError(
            "a formula cannot branch on a symbol, as `if`, `while`, `and`, `or`, `not`, `min` and `max` do: "
            "use `where(condition, x, y)`, `maximum`, `minimum`, and `&`, `|`, `~` between conditions"
        )

    def __float__(self) -> float:
        raise TypeError("a symbol is no number: use the functions of svdrot.engine, not those of `math`")

    def __index__(self) -> int:
        raise TypeError("a symbol is no number: it cannot count or index")

    __int__ = __index__

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a symbol is one number; it has no entries")

    def __repr__(self) -> str:
        return f"<{self.op} {self.value}>" if self.value is not None else f"<{self.op}>"


class Operation(NamedTuple):
    """An operation with a derivative of its own, made of a formula.

    Args:
        name: of the operation.
        arguments: how many numbers it takes.
        count: how many results it has.
        body: formula of the results.
        vjp: (arguments, results, cotangents) -> adjoints of the arguments.
        jvp: (arguments, results, tangents) -> tangents of the results.
        recorded: formula of the same results for programs that are recorded, and whose derivatives others
            take through each operation: through these they are those of `vjp`. None if they are through those
            of `body`.
    """

    name: str
    arguments: int
    count: int
    body: Callable[..., Sequence[Any]]
    vjp: Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], Sequence[Any]]
    jvp: Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], Sequence[Any]]
    recorded: Callable[..., Sequence[Any]] | None = None

    def __call__(self, *arguments: Any) -> list[Node]:
        return results_of(node("call", *arguments, value=self))


def results_of(call: Node) -> list[Node]:
    return [node("item", call, value=k) for k in range(call.value.count)]


# Tracing --------------------------------------------------------------------------------------------------


class _Traces(threading.local):
    known: dict[Any, Any] | None = None
    left: int = 0


_traces = _Traces()


@contextmanager
def tracing(outputs: Iterable[Node] = ()) -> Iterator[None]:
    """Within it equal nodes are one node, those of the graphs of `outputs` among them."""
    before = _traces.known, _traces.left
    _traces.known, _traces.left = {_key(n.op, n.args, n.value): n for n in ordered(outputs)}, MOST_OPERATIONS
    try:
        yield
    finally:
        _traces.known, _traces.left = before


def node(op: str, *args: Any, value: Any = None) -> Node:
    """The node of an operation, or a simpler one that is as good."""
    nodes = tuple(map(as_node, args))
    _check_kinds(op, nodes)
    simple = _simplified(op, nodes)
    if simple is not None:
        return simple
    if _traces.known is None:
        return Node(op, nodes, value)
    _traces.left -= 1
    if _traces.left < 0:
        raise ValueError(f"more than {MOST_OPERATIONS:,} operations: a loop of the formula does not end")
    if op == "mul" and (known := _traces.known.get(_key(op, nodes[::-1], value))) is not None:
        return known
    key = _key(op, nodes, value)
    known = _traces.known.get(key)
    if known is None:
        known = _traces.known[key] = Node(op, nodes, value)
    return known


CONDITIONS = frozenset(("lt", "le", "eq", "and", "or", "not"))  # all other operations give numbers


def _check_kinds(op: str, args: tuple[Node, ...]) -> None:
    """Conditions and numbers are not mixed: a machine has a bit for the one and a word for the other."""
    for k, a in enumerate(args):
        wanted = op in ("and", "or", "not") or (op == "where" and k == 0)
        if (a.op in CONDITIONS) != wanted and a.op != "constant":
            if wanted:
                raise TypeError(
                    "`where`, `&`, `|` and `~` take conditions, such as x > 0.0; got a number: "
                    "compare it with something"
                )
            raise TypeError(
                "a condition is no number: `where(condition, 1.0, 0.0)` is, and conditions are joined by "
                "`&`, `|` and `~`"
            )


def _key(op: str, args: tuple[Node, ...], value: Any) -> tuple:
    if op == "constant":
        value = value, math.copysign(1.0, value)  # 0 and -0 are not one node
    return op, *map(id, args), value


def as_node(x: Any) -> Node:
    return x if isinstance(x, Node) else constant(x)


def constant(x: float) -> Node:
    if hasattr(x, "requires_grad"):
        raise TypeError("a tensor inside a formula would be a constant of it: make it an argument")
    if not hasattr(x, "__float__"):
        raise TypeError(f"a formula works on numbers and symbols; got {type(x).__name__}")
    return node("constant", value=float(x))


def by_dtype(float32: float, float64: float) -> Node:
    """A constant that depends on the precision of the computation."""
    return Node("by_dtype", value=(float(float32), float(float64)))


def symbol(name: Any) -> Node:
    return node("input", value=name)


def is_constant(x: Node, value: float | None = None) -> bool:
    return x.op == "constant" and (value is None or x.value == value)


def _simplified(op: str, args: tuple[Node, ...]) -> Node | None:
    match op, args:
        case "add", (x, y):
            if is_constant(x, 0):
                return y
            if is_constant(y, 0):
                return x
            if y.op == "neg":
                return x - y.args[0]
        case "sub", (x, y):
            if is_constant(y, 0):
                return x
            if is_constant(x, 0):
                return -y
            if y.op == "neg":
                return x + y.args[0]
        case "mul", (x, y):
            for a, b in ((x, y), (y, x)):
                if is_constant(a, 0):
                    return a
                if is_constant(a, 1):
                    return b
                if is_constant(a, -1):
                    return -b
        case "div", (x, y) if is_constant(y, 1):
            return x
        case "neg", (x,) if x.op == "neg":
            return x.args[0]
        case "where", (condition, x, y):
            # The same condition once more says nothing new.
            a = x.args[1] if x.op == "where" and x.args[0] is condition else x
            b = y.args[2] if y.op == "where" and y.args[0] is condition else y
            if a is b:
                return a
            if condition.op == "constant":
                return a if condition.value else b
            if a is not x or b is not y:
                return node("where", condition, a, b)
        case "not", (x,) if x.op == "not":
            return x.args[0]
        case "and" | "or", (x, y):
            for a, b in ((x, y), (y, x)):
                if a.op == "constant":
                    return b if bool(a.value) == (op == "and") else a
        case "detached", (x,) if x.op == "constant":
            return x
    for a in args:  # not `all`, of a generator: 4 % of the time to make a kernel
        if a.op != "constant":
            return None
    return constant(_folded(op, [a.value for a in args])) if op in _FOLDED else None


def _folded(op: str, values: list[float]) -> float:
    try:
        return _FOLDED[op](*values)
    except (ArithmeticError, ValueError):  # 1 / 0, log(0) and the like, of which a machine makes no error
        with np.errstate(all="ignore"):
            return getattr(np, "divide" if op == "div" else op)(*values)


_FOLDED: dict[str, Callable] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
    "abs": abs,
    "lt": operator.lt,  # True and False become 1 and 0
    "le": operator.le,
    "eq": operator.eq,
    "not": operator.not_,
    **{
        name: getattr(math, name)
        for name in ("sqrt", "floor", "sin", "cos", "atan2", "exp", "expm1", "log", "log1p")
    },
}


def _power(x: Node, power: Any) -> Node:
    if isinstance(power, Node) or power != int(power):
        return (
            node("sqrt", x)
            if not isinstance(power, Node) and power == 0.5
            else node("exp", power * node("log", x))
        )
    if power < 0:
        return 1.0 / _power(x, -power)
    if power == 0:
        return constant(1.0)
    half = _power(x, power // 2) if power > 1 else None
    if half is None:
        return x
    return half * half * x if power % 2 else half * half


def rebuilt(outputs: Sequence[Node], change: Callable[[Node, list[Node]], Any]) -> list[Node]:
    """The graph made again from its leaves: `change(node, new arguments)` says what becomes of a node, None
    that it stays as it is."""
    new: dict[int, Any] = {}
    for n in ordered(outputs):
        args = [new[id(a)] for a in n.args]
        changed = change(n, args)
        if changed is None:
            same = [*map(id, args)] == [*map(id, n.args)]
            changed = n if same else node(n.op, *args, value=n.value)
        new[id(n)] = changed
    return [new[id(o)] for o in outputs]
