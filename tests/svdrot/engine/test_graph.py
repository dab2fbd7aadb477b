"""Graphs of formulas and of their derivatives: exact to rounding, by every writer, at every order."""

import gc
import math
from functools import cache, partial

import numpy as np
import pytest
import torch
from engine_cases import ENGINE, EXACT, TORCH, random_formula, worst_error
from torch import Tensor

from svdrot.engine import door, graph, operations, words
from svdrot.engine.derivatives import jvp, vjp
from svdrot.engine.graph import Node, Operation, constant, ordered, symbol, tracing
from svdrot.engine.maps import Map
from svdrot.engine.program import Program

SEEDS = range(3)
ROWS = 8
INPUTS = {"x": (2, 2), "y": (), "z": (3,)}


@cache
def random_map(seed: int) -> Map:
    formula = random_formula(seed, 8)

    def of_symbols(x, y, z):
        a, b, c = formula([*x.ravel(), y, *z], ENGINE)
        return [a, b], c

    return Map(of_symbols, INPUTS, [(2,), ()], name=f"random formula {seed}")


def torch_map(seed: int):
    """The same in torch."""
    formula = random_formula(seed, 8)

    def of_tensors(x, y, z):
        a, b, c = formula([*x.flatten(-2).unbind(-1), y, *z.unbind(-1)], TORCH)
        return torch.stack([a, b], -1), c

    return of_tensors


def programs(seed: int) -> dict[str, Program]:
    value = random_map(seed).program
    reverse, forward = value.vjp((True,) * 3, (True,) * 2, False), value.jvp((True,) * 3, False)
    return {
        "value": value,
        "reverse": reverse,
        "forward": forward,
        "reverse over reverse": reverse.vjp((True,) * 5, (True,) * 3, False),
        "forward over reverse": reverse.jvp((True,) * 5, False),
        "reverse over forward": forward.vjp((True,) * 6, (True,) * 2, False),
    }


def draw(program: Program, dtype: torch.dtype, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(ROWS, *shape, dtype=dtype, generator=generator) for shape in program.graph.inputs]


def nodes(program: Program) -> list[Node]:
    return [n for group in program.graph.outputs for n in group]


def check(program: Program, x: list[Tensor], found: list[Tensor], times: float = 1.0) -> None:
    worst, sure = worst_error(nodes(program), x, found)
    assert worst <= times, f"{worst} times the bound of rounding errors"
    assert sure >= ROWS - 2  # a comparison within rounding is rare


# Random formulas -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_results_are_exact_to_rounding(seed, dtype):
    for program in programs(seed).values():
        x = draw(program, dtype, seed)
        check(program, x, door.run(program, (), x))
        check(program, x, operations.run(program.name, (), x, door.dtypes_of(program, x)))


# Torch goes other ways to the same derivatives, and rounds on them differently.
OTHER_WAY = 8.0


@pytest.mark.parametrize("seed", SEEDS)
def test_derivatives_are_those_of_torch(seed):
    """By autograd of the same formula written in torch, through the door, and of what the engine writes in
    torch."""
    named = programs(seed)
    *x, g, h = draw(named["reverse"], torch.float64, seed)
    *_, u, v, w = draw(named["forward"], torch.float64, seed + 100)
    *_, k, l, m, n, o = draw(named["forward over reverse"], torch.float64, seed + 200)

    def written(*x):
        return operations.run(named["value"].name, (), x, [torch.float64] * 3)

    for function in (torch_map(seed), random_map(seed), written):
        inputs = [t.clone().requires_grad_() for t in (*x, g, h)]
        results = function(*inputs[:3])
        gradients = torch.autograd.grad(results, inputs[:3], inputs[3:], create_graph=True)
        second = torch.autograd.grad(gradients, inputs, (u, v, w), materialize_grads=True)

        def both(*x, function=function):
            return tuple(function(*x))

        def backward(*inputs, both=both):
            return torch.func.vjp(both, *inputs[:3])[1](inputs[3:])

        values, tangents = torch.func.jvp(function, tuple(x), (u, v, w))
        _, over = torch.func.jvp(backward, (*x, g, h), (k, l, m, n, o))

        check(named["value"], x, [t.detach() for t in results], OTHER_WAY)
        check(named["value"], x, list(values), OTHER_WAY)
        check(named["reverse"], [*x, g, h], [t.detach() for t in gradients], OTHER_WAY)
        check(named["forward"], [*x, u, v, w], list(tangents), OTHER_WAY)
        check(named["reverse over reverse"], [*x, g, h, u, v, w], list(second), OTHER_WAY)
        check(named["forward over reverse"], [*x, g, h, k, l, m, n, o], list(over), OTHER_WAY)


@pytest.mark.parametrize("seed", SEEDS)
def test_reverse_is_the_transpose_of_forward(seed):
    """<g, J t> = <Jᵀ g, t>, at both orders."""
    named = programs(seed)
    *x, g, h = draw(named["reverse"], torch.float64, seed)
    *_, u, v, w = draw(named["forward"], torch.float64, seed + 100)
    tangents = door.run(named["forward"], (), [*x, u, v, w])
    gradients = door.run(named["reverse"], (), [*x, g, h])
    left, right = inner((g, h), tangents), inner(gradients, (u, v, w))
    assert_close(left, right)

    *_, k, l, m, n, o = draw(named["forward over reverse"], torch.float64, seed + 200)
    over = door.run(named["forward over reverse"], (), [*x, g, h, k, l, m, n, o])
    second = door.run(named["reverse over reverse"], (), [*x, g, h, u, v, w])
    left, right = inner((u, v, w), over), inner(second, (k, l, m, n, o))
    assert_close(left, right)


def inner(a, b) -> tuple[Tensor, Tensor]:
    """The inner product of each row, and of the absolute values."""
    products = torch.cat([(s * t).reshape(ROWS, -1) for s, t in zip(a, b, strict=True)], -1)
    return products.sum(-1), products.abs().sum(-1)


def assert_close(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> None:
    """Some hundred operations on each side, of which each rounds once; the factor is their conditioning."""
    (left, size), (right, other) = a, b
    assert ((left - right).abs() <= 1e4 * torch.finfo(torch.float64).eps * (size + other)).all()


# Single operations -----------------------------------------------------------------------------------------


def derivative(formula, name: str, *x: float, dtype: torch.dtype = torch.float64) -> list[float]:
    inputs = [torch.tensor([v], dtype=dtype, requires_grad=True) for v in x]
    function = Map(formula, {f"x{k}": () for k in range(len(x))}, (), name=name)
    gradients = torch.autograd.grad(function(*inputs).sum(), inputs, materialize_grads=True)
    return [g.item() for g in gradients]


def test_derivatives_at_corners_and_edges():
    assert derivative(abs, "corner of abs", 0.0) == [0.0]
    assert derivative(words.sqrt, "edge of sqrt", 0.0) == [math.inf]
    assert derivative(words.root, "edge of root", 0.0) == [0.0]
    assert derivative(words.root, "edge of root", -0.0) == [0.0]
    assert derivative(words.log, "edge of log", 0.0) == [math.inf]
    assert derivative(words.floor, "jump of floor", 2.0) == [0.0]
    assert derivative(lambda x: words.detached(x) * x, "half of a square", 3.0) == [3.0]
    for extreme in (words.maximum, words.minimum):
        assert derivative(extreme, f"tie of {extreme.__name__}", 2.0, 2.0) == [0.0, 1.0]


def test_what_where_does_not_choose_has_a_derivative_of_exactly_zero():
    def guarded(x):
        return words.where(x > 0.0, words.sqrt(x) * words.log(x) / x, 0.0)

    function = Map(guarded, {"x": ()}, (), name="guarded root")
    x = torch.tensor([0.0, -1.0, 4.0], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    _, tangent = torch.func.jvp(function, (x.detach(),), (torch.ones_like(x),))
    for found in (first, second, tangent):
        assert found[:2].tolist() == [0.0, 0.0]
    assert second[2] != 0
    torch.testing.assert_close(first, tangent, rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_derivative_of_atan2_reaches_over_all_magnitudes(dtype):
    """x / (x^2 + y^2) and -y / (x^2 + y^2), though the squares leave the range of numbers."""
    small, large = math.sqrt(torch.finfo(dtype).tiny) / 64, math.sqrt(torch.finfo(dtype).max) * 64
    points = [(s * y, s * x) for s in (small, 1.0, large) for y in (-3.0, 0.1, 2.0) for x in (-1.0, 0.0, 5.0)]
    for y, x in torch.tensor(points, dtype=dtype).tolist():
        found = derivative(words.atan2, "atan2 alone", y, x, dtype=dtype)
        square = EXACT.mpf(x) ** 2 + EXACT.mpf(y) ** 2
        for d, exact in zip(found, (x / square, -y / square), strict=True):
            # Eight operations.
            assert abs(d - exact) <= 4 * torch.finfo(dtype).eps * abs(exact)


@pytest.mark.parametrize("power", [-3, -2.0, -0.5, 0, 0.5, 1, 2, 2.5, 3, 7, 10.0])
def test_powers(power):
    x = torch.linspace(0.3, 3, 50, dtype=torch.float64)
    found = Map(lambda x: x**power, {"x": ()}, (), name=f"power {power}")(x)
    exact = torch.tensor([float(EXACT.mpf(v) ** power) for v in x.tolist()], dtype=torch.float64)
    # A product rounds at most ten times; exp of p log x has the error of p log x, which is at most 3.
    torch.testing.assert_close(found, exact, rtol=8 * torch.finfo(torch.float64).eps, atol=0)


def test_a_power_may_be_a_symbol():
    x, p = torch.tensor([0.5, 2.0, 3.0]), torch.tensor([2.0, -1.5, 0.25])
    found = Map(lambda x, p: x**p, {"x": (), "p": ()}, (), name="symbolic power")(x, p)
    torch.testing.assert_close(found, x**p)


def test_comparisons_of_equals_and_of_nan():
    def formula(x, y):
        conditions = (
            x < y,
            x <= y,
            x > y,
            x >= y,
            x == y,
            x != y,
            ~(x < y),
            (x < y) | (x == y),
            (x <= y) & (y <= x),
        )
        return [words.where(c, 1.0, 0.0) for c in conditions]

    nan, inf = math.nan, math.inf
    x = torch.tensor([1.0, 1.0, 2.0, 0.0, nan, 1.0, nan, inf, -inf])
    y = torch.tensor([1.0, 2.0, 1.0, -0.0, 1.0, nan, nan, inf, inf])
    function = Map(formula, {"x": (), "y": ()}, (9,), guarded=False, name="comparisons")
    wanted = [x < y, x <= y, x > y, x >= y, x == y, x != y, ~(x < y), (x < y) | (x == y), (x <= y) & (y <= x)]
    wanted = torch.stack(wanted, -1).float()
    assert torch.equal(function(x, y), wanted)
    assert torch.equal(operations.run("comparisons", (), (x, y), (x.dtype, x.dtype))[0], wanted)


# What constants and structure decide -----------------------------------------------------------------------


def test_equal_nodes_are_one():
    x, y = symbol("x"), symbol("y")
    with tracing([x, y]):
        assert x * y is y * x
        assert words.sin(x + 1.0) is words.sin(x + 1.0)
        assert x + 0.0 is x and 0.0 + x is x and x - 0.0 is x and x * 1.0 is x and x / 1.0 is x
        negative = -y
        assert -negative is y and x - negative is x + y and x + negative is x - y and x * -1.0 is -x
        assert (x * 0.0).value == 0.0
        condition = x < y
        assert words.where(condition, x, x) is x
        assert words.where(condition, words.where(condition, x, y), 0.0) is words.where(condition, x, 0.0)
        assert ~~condition is condition
        assert constant(0.0) is not constant(-0.0)


def test_what_constants_decide_is_decided_at_once():
    x = symbol("x")
    with tracing([x]):
        yes, no = constant(1.0) < 2.0, constant(1.0) == 2.0
        condition = x < 1.0
        assert (condition & yes) is condition and (no | condition) is condition
        assert (condition & no).value == 0.0 and (yes | condition).value == 1.0
        assert words.where(yes, x, 2.0) is x and words.where(~yes, x, 2.0).value == 2.0
        assert words.detached(2.0).value == 2.0


# Of these Python makes errors, machines make numbers.
CONSTANTS = {
    "quotient": (lambda x: x + 1.0 / constant(0.0), math.inf),
    "logarithm": (lambda x: x + words.log(0.0), -math.inf),
    "root": (lambda x: x + words.sqrt(-1.0), math.nan),
    "overflow": (lambda x: x + words.exp(1000.0), math.inf),
    "sine": (lambda x: x + words.sin(math.inf), math.nan),
    "floor": (lambda x: x + words.floor(-math.inf), -math.inf),
    "angle": (lambda x: words.atan2(x, 1.0) - words.atan2(1.0, 1.0 / x), 0.0),
    "detached": (lambda x: x * words.detached(3.0), 3.0),
    "choice": (lambda x: words.where((x > 0.0) & (constant(1.0) < 2.0), 4.0, 5.0), 4.0),
    "huge": (lambda x: x * 1e300, {torch.float32: math.inf, torch.float64: 1e300}),
    "far": (lambda x: words.atan2(x, 1e300), {torch.float32: 0.0, torch.float64: 1e-300}),
    "tiny": (lambda x: 1e-300 / x, {torch.float32: 0.0, torch.float64: 1e-300}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CONSTANTS)
def test_constants_are_those_of_the_machine(case, dtype):
    formula, expected = CONSTANTS[case]
    expected = expected[dtype] if isinstance(expected, dict) else expected
    function = Map(formula, {"x": ()}, (), guarded=False, name=f"constant {case}")
    x = torch.ones(3, dtype=dtype)
    for found in (function(x), *operations.run(function.program.name, (), (x,), (dtype, dtype))):
        wanted = torch.full((3,), expected, dtype=dtype)
        torch.testing.assert_close(found, wanted, rtol=1e-15, atol=0, equal_nan=True)


def test_scalars_may_be_used_as_any_number():
    def formula(x, s, t):
        return words.where(s > 1.0, words.sqrt(s) * x, words.detached(t)) + words.atan2(t, s)

    function = Map(formula, {"x": ()}, (), scalars=2, name="scalars anywhere")
    x = torch.randn(5, dtype=torch.float64)
    for s in (0.5, 2):
        expected = (math.sqrt(s) * x if s > 1 else torch.full_like(x, 3.0)) + math.atan2(3.0, s)
        found = function(x, scalars=(s, 3.0))
        (written,) = operations.run(function.program.name, (s, 3.0), (x,), (x.dtype, x.dtype))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(written, expected)


def test_graphs_may_be_deep():
    x = symbol("x")
    with tracing([x]):
        y = x
        for k in range(20_000):
            y = y * 0.5 + float(k)
        (g,) = vjp([y], [x], [constant(1.0)])
        (t,) = jvp([y], [x], [constant(1.0)])
    assert len(ordered([y])) > 40_000
    assert g.op == t.op == "constant"


# Operations with a derivative of their own -----------------------------------------------------------------

# (a b, sin a), with derivatives that are not theirs: 5 a and -7 b^2 of the first, the second itself of the
# second.
MADE_UP = Operation(
    "made-up",
    2,
    2,
    lambda a, b: [a * b, words.sin(a)],
    lambda x, r, g: [5.0 * x[0] * g[0] + r[1] * g[1], -7.0 * x[1] * x[1] * g[0]],
    lambda x, r, t: [5.0 * x[0] * t[0] - 7.0 * x[1] * x[1] * t[1], r[1] * t[0]],
)


class MadeUp(torch.autograd.Function):
    """The same in torch: the results that are saved have these derivatives themselves."""

    @staticmethod
    def forward(ctx, a, b):
        product, sine = a * b, a.sin()
        ctx.save_for_backward(a, b, sine)
        return product, sine

    @staticmethod
    def backward(ctx, g, h):
        a, b, sine = ctx.saved_tensors
        return 5 * a * g + sine * h, -7 * b * b * g


def within(made_up, x):
    product, sine = made_up(2.0 * x[0], x[1] * x[0])
    return [product * sine + x[1], sine * sine]


def alone(made_up, x):
    """Its results are those of the map, which derivatives take instead of computing them once more."""
    return made_up(*x)


MAPS = {f: Map(partial(f, MADE_UP), {"x": (2,)}, (2,), name=f"made-up {f.__name__}") for f in (within, alone)}


def in_torch(formula, x: Tensor) -> Tensor:
    return torch.stack(formula(MadeUp.apply, x.unbind(-1)), -1)


def in_operations(formula, x: Tensor) -> Tensor:
    (y,) = operations.run(MAPS[formula].program.name, (), (x,), (x.dtype, x.dtype), differentiable=True)
    return y


def orders(function, x: Tensor, weights: Tensor, count: int) -> list[Tensor]:
    """The result, and the gradients of the first `count` orders, each of a weighted sum of the one before."""
    x = x.clone().requires_grad_()
    found = [function(x)]
    for k in range(count):
        found += torch.autograd.grad((found[-1] * weights[k]).sum(), x, create_graph=k + 1 < count)
    return [t.detach() for t in found]


@pytest.mark.parametrize("formula", MAPS)
def test_an_operation_keeps_its_derivative_at_every_order(formula):
    x, *weights = torch.randn(5, 6, 2, dtype=torch.float64)
    weights = torch.stack(weights)
    expected = orders(partial(in_torch, formula), x, weights, 4)
    for function in (MAPS[formula], partial(in_operations, formula)):
        for found, wanted in zip(orders(function, x, weights, 4), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("formula", MAPS)
def test_an_operation_keeps_its_derivative_in_forward_mode(formula):
    x, t, u, g = torch.randn(4, 6, 2, dtype=torch.float64)
    rounding = {"rtol": 1e-12, "atol": 1e-12}
    xs = x.clone().requires_grad_()
    (first,) = torch.autograd.grad((in_torch(formula, xs) * g).sum(), xs, create_graph=True)
    (second,) = torch.autograd.grad((first * t).sum(), xs, create_graph=True)
    (third,) = torch.autograd.grad((second * t).sum(), xs)

    def forward(function, x, t=t):
        return torch.func.jvp(function, (x,), (t,))[1]

    for function in (MAPS[formula], partial(in_operations, formula)):
        for mode in (torch.enable_grad, torch.no_grad):
            with mode():
                torch.testing.assert_close((forward(function, x) * g).sum(), (first * t).sum(), **rounding)
        twice = forward(partial(forward, function), x, u)
        torch.testing.assert_close((twice * g).sum(), (second * u).sum(), **rounding)

        def reverse(x, function=function):
            return torch.func.vjp(function, x)[1](g)[0]

        torch.testing.assert_close(forward(reverse, x), second.detach(), **rounding)
        torch.testing.assert_close(forward(partial(forward, reverse), x), third, **rounding)


def test_derivatives_take_the_results_of_an_operation():
    """So that its steps, which may be many, are not done again."""
    program = MAPS[alone].program
    derivatives = program.vjp((True,), (True,), True), program.jvp((True,), True)
    assert not [n for p in derivatives for n in ordered(nodes(p)) if n.op == "call"]


def test_half_precision_keeps_no_rounded_results_for_a_derivative():
    x, weights = torch.randn(64, 2).half(), torch.ones(1, 1)
    found, wanted = orders(MAPS[alone], x, weights, 1), orders(MAPS[alone], x.float(), weights, 1)
    for half, single in zip(found, wanted, strict=True):
        assert torch.equal(half, single.half())


def test_operations_of_constants_and_of_operations():
    def body(a):
        product, sine = MADE_UP(a, 3.0)
        return [product + sine]

    outer = Operation("outer", 1, 1, body, lambda x, r, g: [2.0 * g[0]], lambda x, r, t: [2.0 * t[0]])

    def formula(x):
        return outer(x)[0] + MADE_UP(1.0, 2.0)[0]

    function = Map(formula, {"x": ()}, (), name="operations of operations")
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    (written,) = operations.run(function.program.name, (), (x,), (x.dtype, x.dtype), differentiable=True)
    for y in (function(x), written):
        torch.testing.assert_close(y, 3 * x + x.sin() + 2)
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.full_like(x, 2.0))


# Errors that explain ---------------------------------------------------------------------------------------


def unending(x):
    while True:
        x = x * x


MISTAKES = {
    "if": (lambda x: x[0] if x[0] > 0 else x[1], TypeError, "use `where"),
    "and": (lambda x: words.where(x[0] > 0 and x[1] > 0, 1.0, 2.0), TypeError, "`&`"),
    "max": (lambda x: max(x[0], x[1]), TypeError, "`maximum`"),
    "math": (lambda x: math.sin(x[0]), TypeError, "not those of `math`"),
    "numpy": (lambda x: np.sin(x)[0], TypeError, "sin"),
    "torch": (lambda x: torch.sin(x[0]), TypeError, "sin"),
    "unknown": (lambda x: words.tangent(x[0]), AttributeError, "tangent"),
    "modulo": (lambda x: x[0] % 2.0, TypeError, "%"),
    "entries": (lambda x: sum(x[0]), TypeError, "no entries"),
    "index": (lambda x: [1.0, 2.0][x[0]], TypeError, "no number"),
    "string": (lambda x: x[0] + "1", TypeError, "got str"),
    "nothing": (lambda x: None, TypeError, "got NoneType"),
    "too many": (lambda x: [x[0], x[1]], ValueError, r"shape \(\); got 2 numbers"),
    "condition": (lambda x: x[0] > 0.0, TypeError, "is a condition"),
    "condition as number": (lambda x: (x[0] > 0.0) * x[1], TypeError, "a condition is no number"),
    "number as condition": (lambda x: words.where(x[0], 1.0, 2.0), TypeError, "got a number"),
    "number and number": (lambda x: words.where(x[0] & x[1], 1.0, 2.0), TypeError, "got a number"),
    "without end": (unending, ValueError, "does not end"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_explained(case, monkeypatch):
    monkeypatch.setattr(graph, "MOST_OPERATIONS", 1000)
    formula, error, reason = MISTAKES[case]
    with pytest.raises(TypeError if error is AttributeError else error, match=reason):
        Map(formula, {"x": (2,)}, (), name=f"mistake {case}")(torch.ones(2))


def test_a_wrong_number_of_results_is_explained():
    for results in (lambda x: x, lambda x: (x, x, x)):
        with pytest.raises(ValueError, match="must return 2 results"):
            Map(results, {"x": ()}, [(), ()], name=f"mistake {results}")(torch.ones(2))


def test_wrong_arguments_are_explained():
    function = Map(lambda x, y, s: x * y[0] * s, {"x": (), "y": (2,)}, (), scalars=1, name="two and one")
    x, y = torch.ones(3), torch.ones(3, 2)
    for tensors, scalars in (((x,), (1.0,)), ((x, y, y), (1.0,)), ((x, y), ()), ((x, y), (1.0, 2.0))):
        with pytest.raises(TypeError, match=r"`two and one` takes 2 tensors \(x, y\) and 1 scalars"):
            function(*tensors, scalars=scalars)
    with pytest.raises(ValueError, match=r"`y` must have shape \(..., 2\)"):
        function(x, x, scalars=(1.0,))
    with pytest.raises(TypeError, match="`x` must be floating point"):
        function(x.int(), y, scalars=(1.0,))
    with pytest.raises(ValueError, match="may have two dimensions"):
        Map(lambda x: x[0, 0, 0], {"x": (2, 2, 2)}, (), name="three dimensions")(torch.ones(2, 2, 2))


def test_formulas_that_would_be_silently_wrong_are_refused():
    def swapped(estimate, truth):
        return estimate - truth

    with pytest.raises(TypeError, match="in the order of the formula: estimate, truth"):
        Map(swapped, {"truth": (), "estimate": ()}, ())
    weight = torch.tensor(2.0, requires_grad=True)
    with pytest.raises(TypeError, match="make it an argument"):
        Map(lambda x: x * weight, {"x": ()}, (), name="closed over")(torch.ones(3))
    with pytest.raises(ValueError, match=r"must have shape \(2, 3\); got \(3, 2\)"):
        Map(lambda x: x.T, {"x": (2, 3)}, (2, 3), name="transposed")(torch.ones(4, 2, 3))
    with pytest.raises(TypeError, match="`where` takes a condition"):
        words.where(-2, 1.0, 2.0)  # what ~True is
    scaled = Map(lambda x, s: s * x, {"x": ()}, (), scalars=1, name="scaled")
    with pytest.raises(TypeError, match="`scaled` takes x and 1 scalars"):
        Map(lambda x: scaled(x), {"x": ()}, (), name="without its scalar")(torch.ones(3))
    outer = Map(lambda x: scaled(x, scalars=(3.0,)) + scaled(x, 2.0), {"x": ()}, (), name="with it")
    assert torch.equal(outer(torch.ones(3)), torch.full((3,), 5.0))
    with pytest.raises(TypeError, match="a sum or mean is of one number"):
        Map(lambda x: x, {"x": (2,)}, (2,), name="no number").mean(torch.ones(3, 2))


def test_a_name_is_of_one_formula():
    """Derivatives are found by the name: the second must not have those of the first, nor after its death."""
    x = torch.ones(3, requires_grad=True)
    for word, derivative in ((words.sin, torch.cos), (words.cos, lambda x: -torch.sin(x))):
        found = Map(word, {"x": ()}, (), name="of one")(x)
        torch.testing.assert_close(torch.autograd.grad(found.sum(), x)[0], derivative(x))


# Memory ----------------------------------------------------------------------------------------------------


def alive() -> int:
    gc.collect()
    return sum(type(x) is Node for x in gc.get_objects())


def test_tracing_leaves_no_nodes_behind():
    def traced():
        x = [symbol(k) for k in range(8)]
        with tracing(x):
            outputs = random_formula(0, 8)(x, ENGINE)
            g = vjp(outputs, x, [constant(1.0)] * 3)
            jvp(g, x, [constant(1.0)] * 8)

    def failing():
        Map(lambda x: x + 1.0 if x > 0.0 else x, {"x": ()}, (), name="failing")(torch.ones(1))

    traced()
    before = alive()
    for _ in range(20):
        traced()
        with pytest.raises(TypeError):
            failing()
    assert alive() == before


def test_programs_hold_only_their_own_nodes():
    """Neither a kernel, nor torch operations, nor a derivative leave more."""
    before = alive()
    function = Map(lambda x: words.sin(x) * words.exp(x) + 2.0, {"x": ()}, (), name="only its own")
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    torch.autograd.grad(function(x).sum(), x)
    operations.run(function.program.name, (), (x.detach(),), (x.dtype, x.dtype))
    derivative = function.program.vjp((True,), (True,), False)
    own = {id(n) for program in (function.program, derivative) for n in ordered(nodes(program))}
    assert alive() - before <= len(own)
