"""Whoever writes operations down, or stands for tensors, finds operations, and never the example's result."""

import io

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import svdrot
from svdrot.nn.heads import REPRESENTATIONS
from svdrot.polar import polar
from svdrot.registration import kabsch

# torch.jit tells of sizes that become numbers; what `linearize` makes is told of constants of torch itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning"),
]

ROUNDING = 1e-10  # in another order; the result of the example is off by 1
FUNCTIONS = {
    "special_orthogonalize": lambda m: svdrot.special_orthogonalize(m),
    "orthogonalize": lambda m: svdrot.orthogonalize(m),
    "polar": lambda m: polar(m),
    "projection_gap": lambda m: svdrot.projection_gap(m),
    "kabsch": lambda m: kabsch(m, m.roll(1, -1).square()).rotation,
    "residual": lambda m: kabsch(m, m.roll(1, -1).square()).residual,
    "procrustes": lambda m: kabsch(m, m.roll(1, -1).square(), m[..., 0].square()).translation,
}
SETTINGS = ({}, {"pre_dispatch": True}, {"tracing_mode": "fake"})
each_function = pytest.mark.parametrize("name", FUNCTIONS)
each_size = pytest.mark.parametrize("n", [2, 3, 4])


def matrices(n, seed):
    return torch.randn(5, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weighted(f):
    """A scalar whose gradient is not that of a constant."""
    return lambda m: (f(m) * torch.arange(f(m).numel(), dtype=m.dtype).reshape(f(m).shape)).sum()


def assert_same(value, expected):
    torch.testing.assert_close(value, expected, rtol=0, atol=ROUNDING * max(1, expected.abs().max().item()))


@each_function
@each_size
def test_traced_programs_compute(name, n):
    """Each function by all settings, each at one of its sizes: thousands of operations are traced singly."""
    f, example, other = FUNCTIONS[name], matrices(n, 1), matrices(n, 2)
    turn = n + [*FUNCTIONS].index(name)
    assert_same(make_fx(f, **SETTINGS[turn % len(SETTINGS)])(example)(other), f(other))
    if name in ("special_orthogonalize", "kabsch"):
        gradient = torch.func.grad(weighted(f))
        assert_same(make_fx(gradient)(example)(other), gradient(other))
    traced = torch.jit.trace(f, example.requires_grad_(turn % 2 == 0), check_trace=False)
    assert_same(traced(other), f(other))


def test_traced_programs_have_the_gradient_where_it_is_unique():
    traced = torch.jit.trace(FUNCTIONS["special_orthogonalize"], matrices(3, 1), check_trace=False)
    m = torch.cat((matrices(3, 2), torch.eye(3, dtype=torch.float64)[None]))  # whose singular values repeat
    found = [torch.func.grad(weighted(f))(m) for f in (FUNCTIONS["special_orthogonalize"], traced)]
    assert_same(*found)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "residual"])  # not differentiable
@pytest.mark.parametrize("part", ["formula", "any size"])
def test_linearized_programs_are_forward_mode(name, part):
    """Of 2x2 and 3x3 matrices, whose formulas go one way, the one or the other."""
    n = 4 if part == "any size" else 2 + [*FUNCTIONS].index(name) % 2
    f, at, along = FUNCTIONS[name], matrices(n, 1), matrices(n, 3)
    value, tangents = torch.func.linearize(f, at)
    expected, tangent = torch.func.jvp(f, (at,), (along,))
    assert_same(value, expected)
    assert_same(tangents(along), tangent)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("trains", [False, True])
def test_traced_heads_are_saved_and_compute(representation, trains):
    assert_traced(svdrot.nn.RotationHead(9, representation).eval(), trains)


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("evaluates", [False, True])
def test_traced_heads_with_the_manifold_gradient_give_rotations(evaluates, trains):
    assert_traced(svdrot.nn.RotationHead(9, "svd", "manifold_gradient").train(not evaluates), trains)


def assert_traced(head, trains):
    head = head.double().requires_grad_(trains)
    example, other = torch.randn(2, 4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(head, example), file)
    file.seek(0)
    assert_same(torch.jit.load(file)(other), head(other))


@each_function
@each_size
def test_tensors_without_memory_have_shapes(name, n):
    f = FUNCTIONS[name]
    shape = f(matrices(n, 1)).shape
    with FakeTensorMode():
        m = torch.randn(5, n, n, dtype=torch.float64, requires_grad=True)
        value = f(m)
        assert value.shape == f(m.detach()).shape == shape
        assert f(m.new_ones(5, n, n)).shape == shape
        if value.requires_grad:
            value.sum().backward()
            assert m.grad is not None and m.grad.shape == m.shape
    assert f(torch.empty(5, n, n, dtype=torch.float64, device="meta")).shape == shape


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_heads_are_made_without_memory(representation):
    with torch.device("meta"):
        head = svdrot.nn.RotationHead(7, representation, near_identity=True)
        assert head(torch.zeros(2, 7)).shape == (2, 3, 3)
        assert svdrot.geodesic_distance(torch.zeros(3, 3), torch.zeros(3, 3)).shape == ()


@each_function
@each_size
def test_signs_not_yet_taken_count(name, n):
    f, m = FUNCTIONS[name], matrices(n, 1)
    assert torch._neg_view(m).is_neg()
    assert_same(f(torch._neg_view(m)), f(-m))


class Labeled(torch.Tensor):
    """A subclass that only has a name."""


@each_function
@each_size
def test_subclasses_stay_what_they_are(name, n):
    f, m = FUNCTIONS[name], matrices(n, 1)
    value = f(m.as_subclass(Labeled))
    assert_same(value.as_subclass(torch.Tensor), f(m))
    assert isinstance(value, Labeled)
