"""Gradients through programs that others recorded: those of the library, also where the gap is rounding."""

from functools import partial

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import svdrot
from svdrot._formulas import plane, projection
from svdrot._kernels.operations import any_size
from svdrot.engine import door

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters and tracers use what torch itself deprecates

TOLERANCE = 1e-9  # in float64: rounding, a thousand times as large for a gap of 1e-3
DAMPING = 1e-2
FUNCTIONS = {
    "rotation": lambda m: svdrot.special_orthogonalize(m),
    "damped": lambda m: svdrot.special_orthogonalize(m, damping=DAMPING),
    "orthonormal": lambda m: svdrot.orthogonalize(m),
    "gap": lambda m: svdrot.projection_gap(m),
}
MAPS = {"rotation": "project", "damped": "project_damped", "orthonormal": "project_either"}
REGULAR = 3  # so many of `matrices` have one nearest rotation, and the first two one gradient of the gap


class Model(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, m):
        return self.function(m)


def exported(function, example, strict=False):
    dynamic = ({0: torch.export.Dim("batch")},)
    return torch.export.export(Model(function), (example,), dynamic_shapes=dynamic, strict=strict).module()


ROADS = {
    "export": exported,
    "strict export": partial(exported, strict=True),
    "jit.trace": lambda f, m: torch.jit.trace(f, m, check_trace=False),
    "make_fx": lambda f, m: make_fx(f)(m),
    "make_fx of a variable": lambda f, m: make_fx(f)(m.clone().requires_grad_()),
    "make_fx before autograd": lambda f, m: make_fx(f, pre_dispatch=True)(m),
    "compile": lambda f, m: torch.compile(f, backend="aot_eager", fullgraph=True),
}


def matrices(rows, n):
    """Generic, thin and orthonormal; then those without a nearest one: a reflection twice, u v', 0."""
    generator = torch.Generator().manual_seed(rows + n)
    draw = partial(torch.randn, dtype=torch.float64, generator=generator)
    sizes = torch.linspace(1, 1e-3, n, dtype=torch.float64)
    if rows != n:
        q = svdrot.orthogonalize(draw(rows, n))
        return torch.stack((draw(rows, n), q * sizes, q, torch.outer(draw(rows), draw(n)), 0 * q))
    q = svdrot.special_orthogonalize(draw(n, n))
    mirror = torch.ones(n, dtype=torch.float64)
    mirror[0] = -1
    return torch.stack(
        (draw(n, n), q * sizes, q, -2 * q if n % 2 else 2 * q * mirror, torch.outer(draw(n), draw(n)), 0 * q)
    )


def expected(name, m, value, weight):
    """The derivative by the rule at this result: of several nearest ones roads may choose others."""
    n = m.shape[-1]
    if m.shape[-2:] in ((2, 2), (3, 3)):
        program = getattr(plane if n == 2 else projection, MAPS[name]).program
        scalars = (DAMPING,) if name == "damped" else ()
        return door.run(program.vjp((True,), (True,), True), scalars, (m, value, weight))[0]
    if name == "orthonormal":
        return any_size.orthogonalize_differential(m, value, weight)
    return any_size.special_orthogonalize_differential(m, value, weight, DAMPING * (name == "damped") or None)


def assert_near(found, wanted, factor=1.0):
    scale = wanted.abs().amax((-2, -1), keepdim=True).clamp_min(1)
    assert ((found - wanted).abs() <= factor * TOLERANCE * scale).all()


def value_and_gradient(f, m, create_graph=False):
    m = m.clone().requires_grad_()
    value = f(m)
    weight = torch.randn(value.shape, dtype=m.dtype, generator=torch.Generator().manual_seed(7))
    (gradient,) = torch.autograd.grad((value * weight).sum(), m, create_graph=create_graph)
    return m, value.detach(), weight, gradient


# Every road once, and every function and size on one of them, which takes seconds, not a minute.
CASES = [
    *[(road, "rotation", (3, 3)) for road in ROADS],
    *[("jit.trace", name, (3, 3)) for name in ("damped", "orthonormal", "gap")],
    *[("jit.trace", name, (n, n)) for name in FUNCTIONS for n in (2, 4)],
    *[(road, "orthonormal", shape) for road in ("export", "jit.trace") for shape in ((5, 3), (2, 3))],
    ("export", "rotation", (4, 4)),
    ("make_fx of a variable", "rotation", (4, 4)),
]


@pytest.mark.parametrize(("road", "name", "shape"), CASES)
def test_gradients_follow_the_rule_of_the_gap(road, name, shape):
    torch._dynamo.reset()
    f, m = FUNCTIONS[name], matrices(*shape) if shape[0] >= shape[1] else matrices(*shape[::-1]).mT
    other = m.flip(0) + 0.1 * torch.eye(*shape, dtype=m.dtype)
    recorded = ROADS[road](f, other)
    _, value, weight, gradient = value_and_gradient(recorded, m)
    assert gradient.isfinite().all()
    if name == "gap":
        _, _, _, wanted = value_and_gradient(f, m)
        assert_near(gradient[:2], wanted[:2])
    elif shape[0] < shape[1]:
        assert_near(gradient, expected(name, m.mT, value.mT, weight.mT).mT)
    else:
        assert_near(gradient, expected(name, m, value, weight))
    if shape == (3, 3):  # every road and every function once more, without autograd
        with torch.no_grad():
            plain = ROADS[road](f, other)(m)
        assert torch.equal(value, plain)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("rotation", (2, 2)), ("rotation", (3, 3)), ("rotation", (4, 4)), ("orthonormal", (5, 3))],
)
def test_recorded_programs_have_three_derivatives_and_no_wrong_fourth(name, shape):
    f, m = FUNCTIONS[name], matrices(*shape)
    traced = torch.jit.trace(f, m.flip(0), check_trace=False)
    found = []
    for g in (f, traced):
        x, _, _, gradient = value_and_gradient(g, m, create_graph=True)
        orders = [gradient]
        for _ in range(2 if g is f else 3):
            orders += torch.autograd.grad((orders[-1] * torch.cos(x)).sum(), x, create_graph=True)
        found.append(orders)
    for a, b in zip(*found, strict=False):
        assert b.isfinite().all()
        assert_near(b[:REGULAR], a[:REGULAR], 1e3)
    assert not found[1][3].isfinite().any()


def test_the_gap_has_no_wrong_second_derivative_in_recorded_programs():
    for n in (2, 3, 4):
        m = matrices(n, n)
        traced = torch.jit.trace(FUNCTIONS["gap"], m, check_trace=False)
        x, _, _, gradient = value_and_gradient(traced, m, create_graph=True)
        assert not torch.autograd.grad(gradient.sum(), x)[0].isfinite().any()


def test_recorded_differentials_may_be_differentiated():
    (m, g), r = (
        torch.stack((matrices(3, 3), matrices(3, 3).flip(0))),
        svdrot.special_orthogonalize(matrices(3, 3)),
    )
    program = projection.project.program.vjp((True,), (True,), True)

    def by_formula(m):
        return door.apply(program, (), (m, r, g))[0]

    def by_eigenvectors(m):
        return any_size.special_orthogonalize_differential(m, r, g)

    for f in (by_formula, by_eigenvectors):
        traced = torch.jit.trace(f, m.flip(0), check_trace=False)
        wanted, found = value_and_gradient(f, m), value_and_gradient(traced, m)
        assert found[3].isfinite().all()
        assert_near(found[1], wanted[1], 1e3)
        assert_near(found[3][:REGULAR], wanted[3][:REGULAR], 1e3)


def test_float32_gradients_of_a_layer_of_zeros_are_zero():
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 9), torch.nn.Unflatten(-1, (3, 3)), svdrot.nn.SpecialOrthogonalize()
    )
    torch.nn.init.zeros_(model[0].weight)
    torch.nn.init.zeros_(model[0].bias)
    module = torch.export.export(model, (torch.randn(3, 4),)).module()
    gradients = torch.autograd.grad(module(torch.randn(3, 4)).sum(), [*module.parameters()])
    assert all((g == 0).all() for g in gradients)
