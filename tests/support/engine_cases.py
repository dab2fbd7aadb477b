"""Formulas to try the engine on, and what their graphs give in 40 digits, with a bound of rounding errors.

A random formula is a function of a list of numbers and of the words it may use, so that it can be called with
symbols of the engine and with tensors alike.
"""

import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import mpmath
import numpy as np
import torch
from torch import Tensor

from svdrot.engine import words
from svdrot.engine.graph import Node, by_dtype, symbol, tracing
from svdrot.engine.walk import ordered

EXACT = mpmath.mp.clone()  # with a precision of its own
EXACT.dps = 40


# Words -----------------------------------------------------------------------------------------------------

ENGINE = SimpleNamespace(
    **{name: getattr(words, name) for name in dir(words) if not name.startswith("_")}, by_dtype=by_dtype
)


def _tensors(*values: Any) -> tuple[Tensor, ...]:
    like = next(v for v in values if isinstance(v, Tensor))
    return tuple(v if isinstance(v, Tensor) else torch.full_like(like, v) for v in values)


def _root(x: Tensor) -> Tensor:
    some = x > 0
    return torch.where(some, torch.where(some, x, torch.ones_like(x)).sqrt(), x.detach())


TORCH = SimpleNamespace(
    where=lambda condition, x, y: torch.where(condition, *_tensors(x, y)),
    maximum=lambda x, y: torch.where(x > y, *_tensors(x, y)),
    minimum=lambda x, y: torch.where(x < y, *_tensors(x, y)),
    atan2=lambda y, x: torch.atan2(*_tensors(y, x)),
    detached=lambda x: x.detach(),
    absolute=torch.abs,
    root=_root,
    by_dtype=lambda float32, float64: float64,
    **{
        name: getattr(torch, name) for name in ("sqrt", "floor", "sin", "cos", "exp", "expm1", "log", "log1p")
    },
)


# Formulas --------------------------------------------------------------------------------------------------

# Every operation and word, away from their poles: a, b, c are any numbers of moderate size.
STEPS: dict[str, Callable[..., Any]] = {
    "add": lambda w, a, b, c: a + b,
    "sub": lambda w, a, b, c: a - b,
    "mul": lambda w, a, b, c: a * b,
    "div": lambda w, a, b, c: a / (b * b + 0.5),
    "neg": lambda w, a, b, c: -a + 0.75,
    "reciprocal": lambda w, a, b, c: 1.0 / (a * a + w.by_dtype(0.3, 0.7)),
    "abs": lambda w, a, b, c: abs(a - 0.1) + w.absolute(b),
    "cube": lambda w, a, b, c: (0.5 * a) ** 3,
    "negative_power": lambda w, a, b, c: (a * a + 1.0) ** -2,
    "power": lambda w, a, b, c: (a * a + 0.5) ** 0.75,
    "where": lambda w, a, b, c: w.where((a < b) & (c >= 0.3), a * c, b),
    "conditions": lambda w, a, b, c: w.where(((a <= c) | ~(b > 0.2)) & (a != b), b, w.where(a == c, a, c)),
    "maximum": lambda w, a, b, c: w.maximum(a, b),
    "minimum": lambda w, a, b, c: w.minimum(a, 0.5 * c),
    "detached": lambda w, a, b, c: a * w.detached(b),
    "sqrt": lambda w, a, b, c: w.sqrt(a * a + 0.25),
    "root": lambda w, a, b, c: w.root(w.maximum(a, 0.0)) + b,
    "floor": lambda w, a, b, c: 3.0 * a - w.floor(3.0 * a),
    "sin": lambda w, a, b, c: w.sin(2.0 * a),
    "cos": lambda w, a, b, c: w.cos(a + b),
    "atan2": lambda w, a, b, c: w.atan2(a, b + 0.1),
    "slope": lambda w, a, b, c: w.atan2(a, 2.0),
    "exp": lambda w, a, b, c: w.exp(-abs(a)),
    "expm1": lambda w, a, b, c: w.expm1(w.minimum(a, 1.0)),
    "log": lambda w, a, b, c: w.log(a * a + 0.5),
    "log1p": lambda w, a, b, c: w.log1p(abs(a)),
}


def random_formula(seed: int, inputs: int) -> Callable[[Sequence[Any], SimpleNamespace], list]:
    """Each of the steps once, in any order; the results are the last two numbers, and the mean of all."""
    draw = random.Random(seed)
    steps = sorted(STEPS)
    draw.shuffle(steps)
    plan = []
    for k, step in enumerate(steps, inputs):
        # Of what is there, mostly the newest, so that the graph is deep.
        plan.append((step, [draw.randrange(k - 4 if draw.random() < 0.7 else 0, k) for _ in "abc"]))

    def formula(x: Sequence[Any], w: SimpleNamespace) -> list:
        values = list(x)
        for step, places in plan:
            values.append(STEPS[step](w, *[values[i] for i in places]))
        return [*values[-2:], sum(values[1:], values[0]) / len(values)]

    return formula


# Exact values ----------------------------------------------------------------------------------------------


class Number(NamedTuple):
    """A number, and how far from it the rounding errors may lead, to first order."""

    value: Any
    error: Any


class Unsure(Exception):
    """Rounding errors decide a comparison or a floor."""


def exact(outputs: Sequence[Node], leaves: dict[Any, float], dtype: torch.dtype) -> list[Number]:
    """What a graph gives for these inputs, which are taken as exact.

    The bound: half a unit of rounding for each arithmetic operation and two for each word, carried along by
    the derivative of each operation.
    """
    known = {name: Number(EXACT.mpf(value), EXACT.zero) for name, value in leaves.items()}
    return _walk(outputs, known, dtype)


def worst_error(outputs: Sequence[Node], x: Sequence[Tensor], found: Sequence[Tensor]) -> tuple[float, int]:
    """The largest error of the results for a batch, over its bound; and how many rows were sure."""
    worst, sure = EXACT.zero, 0
    for row in range(len(x[0])):
        leaves = {(i, k): v for i, t in enumerate(x) for k, v in enumerate(t[row].flatten().tolist())}
        try:
            numbers = exact(outputs, leaves, x[0].dtype)
        except Unsure:
            continue
        sure += 1
        entries = [v for t in found for v in t[row].flatten().tolist()]
        for number, entry in zip(numbers, entries, strict=True):
            distance = abs(number.value - entry)
            if distance != 0:  # NaN, too
                ratio = distance / number.error if number.error else EXACT.inf
                worst = ratio if not ratio <= worst else worst
    return float(worst), sure


def _walk(outputs: Sequence[Node], leaves: dict[Any, Number], dtype: torch.dtype) -> list[Number]:
    eps = EXACT.mpf(torch.finfo(dtype).eps)
    done: dict[int, Any] = {}
    for n in ordered(outputs):
        args = [done[id(a)] for a in n.args]
        if n.op == "input":
            done[id(n)] = leaves[n.value]
        elif n.op in ("constant", "by_dtype"):
            value = n.value if n.op == "constant" else n.value[dtype == torch.float64]
            value = float(np.float32(value)) if dtype == torch.float32 else value
            done[id(n)] = Number(EXACT.mpf(value), EXACT.zero)
        elif n.op == "call":
            with tracing():
                body = list(n.value.body(*[symbol(k) for k in range(len(args))]))
            done[id(n)] = _walk(body, dict(enumerate(args)), dtype)
        elif n.op == "item":
            done[id(n)] = args[0][n.value]
        elif n.op in _CONDITIONS:
            same = len(n.args) == 2 and n.args[0] is n.args[1]  # whatever its errors are
            done[id(n)] = _CONDITIONS[n.op](*([Number(a.value, EXACT.zero) for a in args] if same else args))
        elif n.op == "where":
            done[id(n)] = args[1] if args[0] else args[2]
        elif n.op == "floor":
            (x,) = args
            if EXACT.floor(x.value - x.error) != EXACT.floor(x.value + x.error):
                raise Unsure
            done[id(n)] = Number(EXACT.floor(x.value), EXACT.zero)
        else:
            function, partials, units = _OPERATIONS[n.op]
            value = _real(function, *[a.value for a in args])
            error = units * eps * abs(value)
            if any(a.error for a in args):
                try:
                    factors = partials(value, *[a.value for a in args])
                    error += sum(abs(f) * a.error for f, a in zip(factors, args, strict=True))
                except ZeroDivisionError:
                    error = EXACT.inf
            done[id(n)] = Number(value, error)
    return [done[id(o)] for o in outputs]


def _real(function: Callable[..., Any], *args: Any) -> Any:
    """NaN where there is no real value."""
    try:
        value = function(*args)
    except (ValueError, ZeroDivisionError):
        value = EXACT.nan
    return EXACT.nan if isinstance(value, EXACT.mpc) else value


def _compared(holds: Callable[[Any, Any], bool]) -> Callable[[Number, Number], bool]:
    def condition(a: Number, b: Number) -> bool:
        if abs(a.value - b.value) <= a.error + b.error and (a.error or b.error):
            raise Unsure
        return holds(a.value, b.value)

    return condition


_CONDITIONS: dict[str, Callable[..., bool]] = {
    "lt": _compared(lambda a, b: a < b),
    "le": _compared(lambda a, b: a <= b),
    "eq": _compared(lambda a, b: a == b),
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "not": lambda a: not a,
}


# The function, its partial derivatives from (value, *arguments), and its own error in units of rounding.
_OPERATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Sequence], float]] = {
    "add": (lambda a, b: a + b, lambda v, a, b: (1, 1), 0.5),
    "sub": (lambda a, b: a - b, lambda v, a, b: (1, 1), 0.5),
    "mul": (lambda a, b: a * b, lambda v, a, b: (b, a), 0.5),
    "div": (lambda a, b: a / b, lambda v, a, b: (1 / b, v / b), 0.5),
    "neg": (lambda a: -a, lambda v, a: (1,), 0),
    "abs": (abs, lambda v, a: (1,), 0),
    "detached": (lambda a: a, lambda v, a: (1,), 0),
    "sqrt": (EXACT.sqrt, lambda v, a: (0.5 / v if v else EXACT.inf,), 0.5),
    "sin": (EXACT.sin, lambda v, a: (EXACT.cos(a),), 2),
    "cos": (EXACT.cos, lambda v, a: (EXACT.sin(a),), 2),
    "atan2": (EXACT.atan2, lambda v, y, x: (x / (x * x + y * y), y / (x * x + y * y)), 2),
    "exp": (EXACT.exp, lambda v, a: (v,), 2),
    "expm1": (EXACT.expm1, lambda v, a: (v + 1,), 2),
    "log": (EXACT.log, lambda v, a: (1 / a,), 2),
    "log1p": (lambda a: EXACT.log(1 + a), lambda v, a: (1 / (1 + a),), 2),
}
