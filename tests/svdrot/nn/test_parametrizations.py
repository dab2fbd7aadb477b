"""Weights that stay orthonormal: what they are, what a step does, and who may do what with them."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import svdrot
from svdrot.nn import SpecialOrthogonal, Stiefel, orthogonal

EPS = torch.finfo(torch.float64).eps
SHAPES = [(3, 3), (2, 2), (6, 4), (4, 6), (5, 5), (2, 3, 3), (2, 7, 5), (48, 48), (5, 1)]
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.5),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.5),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.3),
    "line search": lambda p: torch.optim.LBFGS(p, line_search_fn="strong_wolfe"),
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def off(weight: Tensor) -> float:
    w = weight.mT if weight.shape[-2] < weight.shape[-1] else weight
    return (w.mT @ w - torch.eye(w.shape[-1], dtype=w.dtype)).abs().max().item()


def linear(rows: int, columns: int, special: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(columns, rows, bias=False, dtype=torch.float64)
    orthogonal(layer, special=special)
    return layer


@pytest.mark.parametrize("kind", [Stiefel, SpecialOrthogonal])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_step_is_that_of_the_projected_gradient(shape, kind):
    """W -> polar(W - lr (G - W sym(WᵀG))), of whatever the optimizer makes of it."""
    if kind is SpecialOrthogonal and shape[-1] != shape[-2]:
        pytest.skip("square ones only")
    exact = svdrot.special_orthogonalize if kind is SpecialOrthogonal else svdrot.orthogonalize
    free, layer, weights = nn.Parameter(drawn(*shape)), kind(), drawn(*shape, seed=1)
    first = exact(free.detach())
    optimizer = torch.optim.SGD([free], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        w = layer(free)
        torch.testing.assert_close(w.detach(), first, rtol=0, atol=64 * EPS * shape[-1])
        assert torch.equal(free, w)  # the free matrix becomes the weight
        x = w.detach().requires_grad_()
        (expected,) = torch.autograd.grad(((exact(x) - weights) ** 2).sum(), x)
        ((w - weights) ** 2).sum().backward()
        assert free.grad is not None
        torch.testing.assert_close(free.grad, expected, rtol=0, atol=1e-12)
        first = exact(w.detach() - 0.1 * expected)
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("shape", [(6, 6), (4, 6), (3, 3), (50, 50)], ids=str)
def test_every_optimizer_finds_the_procrustes_solution(shape, name):
    """Regression on what a rotation or a frame has made: the loss is zero there and nowhere else."""
    rows, columns = shape
    truth = svdrot.polar.polar(drawn(rows, columns, seed=2), special=rows == columns)
    x, layer = drawn(300, columns), linear(rows, columns, special=rows == columns)
    optimizer, steps = OPTIMIZERS[name](layer.parameters()), 20 if name[0] == "l" else 300

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (layer(x) - x @ truth.mT).square().sum() / 600
        loss.backward()
        return loss

    for k in range(steps + 100):
        if k == steps:  # the rest of Adam's steps, which do not end by themselves
            optimizer.param_groups[0]["lr"] *= 1e-2
        optimizer.step(closure)
    assert (layer.weight - truth).abs().max() < 1e-4
    assert off(layer.weight) < 32 * EPS


def test_thousands_of_steps_leave_it_orthonormal():
    for special in (False, True):
        layer = linear(12, 12, special)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
        for k in range(2000):
            optimizer.zero_grad()
            (layer.weight * drawn(12, 12, seed=k)).sum().backward()
            optimizer.step()
        assert off(layer.weight) < 32 * EPS
        assert torch.linalg.det(layer.weight) > 0 or not special


def test_rotations_stay_rotations_however_long_the_step():
    for n in (2, 3, 4, 48):
        layer = linear(n, n, special=True)
        free = layer.parametrizations.weight.original  # pyright: ignore[reportAttributeAccessIssue]
        for k in range(20):
            layer.weight.sum().backward()
            with torch.no_grad():
                free += 3 * drawn(n, n, seed=k)
            assert torch.linalg.det(layer.weight) > 0 and off(layer.weight) < 1e-10


def test_an_orthonormal_weight_stays_and_others_become_the_nearest():
    layer = nn.Linear(6, 4, dtype=torch.float64)
    raw = layer.weight.detach().clone()
    orthogonal(layer)
    torch.testing.assert_close(layer.weight.detach(), svdrot.orthogonalize(raw), rtol=0, atol=1e-14)
    frame = svdrot.orthogonalize(drawn(4, 6))
    layer.weight = frame
    torch.testing.assert_close(layer.weight.detach(), frame, rtol=0, atol=4 * EPS)
    other = nn.Linear(6, 4, dtype=torch.float64)
    other.weight = nn.Parameter(frame.clone())
    orthogonal(other)
    torch.testing.assert_close(other.weight.detach(), frame, rtol=0, atol=4 * EPS)
    parametrize.remove_parametrizations(other, "weight")
    torch.testing.assert_close(other.weight.detach(), frame, rtol=0, atol=4 * EPS)


@pytest.mark.parametrize(
    ("shape", "special", "value", "message"),
    [
        ((3, 3), True, -torch.eye(3, dtype=torch.float64), "must hold rotations"),
        ((3, 3), False, torch.ones(3, 3, dtype=torch.float64), r"must be orthonormal, .*got .* = 3.0e\+00"),
        ((2, 3), False, torch.eye(3, dtype=torch.float64)[:2] * 1.1, r"= 2.1e-01"),
        ((3, 3), False, torch.full((3, 3), torch.nan, dtype=torch.float64), "= nan"),
    ],
)
def test_what_is_not_orthonormal_is_not_assigned(shape, special, value, message):
    layer = linear(*shape, special)
    with pytest.raises(ValueError, match=message):
        layer.weight = value


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="`name` must be that of a parameter"):
        orthogonal(nn.Linear(3, 3), "wieght")
    with pytest.raises(ValueError, match=r"`bias` must have shape \(..., m, n\)"):
        orthogonal(nn.Linear(3, 3), "bias")
    with pytest.raises(ValueError, match=r"`weight` must have shape \(..., n, n\)"):
        orthogonal(nn.Linear(3, 4), special=True)


def test_a_tensor_that_is_no_parameter_is_left_alone():
    for layer in (Stiefel(), SpecialOrthogonal()):
        x = drawn(4, 5, 5).requires_grad_()
        before = x.detach().clone()
        layer(x).sum().backward()
        assert torch.equal(x, before)
        free = nn.Parameter(drawn(5, 5))
        with torch.no_grad():
            layer(free)
        torch.func.functional_call(layer, {}, (free * 1.0,)).sum().backward()
        assert torch.equal(free, drawn(5, 5))


def test_second_derivatives_are_those_of_the_polar_factor():
    for shape in ((5, 3), (3, 3), (4, 4)):
        m = nn.Parameter(svdrot.orthogonalize(drawn(*shape)))
        c, v = drawn(*shape, seed=2), drawn(*shape, seed=3)
        found = []
        for x, f in ((m, Stiefel()), (m.detach().clone().requires_grad_(), svdrot.orthogonalize)):
            (g,) = torch.autograd.grad((f(x) * c).sum() ** 2, x, create_graph=True)
            found.append(torch.autograd.grad((g * v).sum(), x)[0])
        torch.testing.assert_close(*found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [Stiefel, SpecialOrthogonal])
def test_forward_mode_sees_the_map_itself(kind):
    exact = svdrot.special_orthogonalize if kind is SpecialOrthogonal else svdrot.orthogonalize
    for n in (3, 5, 48):
        free, along = nn.Parameter(drawn(n, n)), drawn(n, n, seed=1)
        for x in (free, free.detach()):
            with torch.autograd.forward_ad.dual_level():
                found = kind()(torch.autograd.forward_ad.make_dual(x, along))
                tangent = torch.autograd.forward_ad.unpack_dual(found).tangent
            expected = torch.func.jvp(exact, (free.detach(),), (along,))[1]
            torch.testing.assert_close(tangent, expected, rtol=0, atol=1e-10 * expected.abs().max().item())
        assert torch.equal(free, drawn(n, n))


def test_forwards_that_share_a_backward():
    layer = linear(5, 5)
    weights = [layer.weight for _ in range(3)]
    (weights[0] * drawn(5, 5) + weights[1] * drawn(5, 5) + weights[2] * drawn(5, 5)).sum().backward()
    free = layer.parametrizations.weight.original  # pyright: ignore[reportAttributeAccessIssue]
    (expected,) = torch.autograd.grad((layer.weight * drawn(5, 5)).sum(), free)
    torch.testing.assert_close(free.grad, 3 * expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("special", [False, True])
def test_compiled_it_trains_alike(special):
    found = []
    for compiled in (False, True):
        layer = linear(6, 6, special)
        call = torch.compile(layer, fullgraph=True) if compiled else layer
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.5)
        for k in range(5):
            optimizer.zero_grad()
            (call(drawn(8, 6, seed=k)) ** 2 * drawn(8, 6, seed=k + 9)).sum().backward()
            optimizer.step()
        found.append(layer.weight.detach())
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("special", [False, True])
def test_exported_copied_kept(special):
    layer, x = linear(5, 5, special), drawn(3, 5)
    layer.weight.sum().backward()
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), layer(x), rtol=0, atol=1e-13)
    other = linear(5, 5, special)
    other.load_state_dict(layer.state_dict())
    assert [*layer.state_dict()] == ["parametrizations.weight.original"]
    for same in (copy.deepcopy(layer), other):
        torch.testing.assert_close(same(x), layer(x), rtol=0, atol=1e-14)
    kind = SpecialOrthogonal() if special else Stiefel()
    kind(nn.Parameter(torch.eye(50)))
    assert len(pickle.dumps(kind)) < 1000  # without the rotations of the last forward


def test_precision():
    for dtype in (torch.float16, torch.bfloat16):
        layer = orthogonal(nn.Linear(6, 6, bias=False).to(dtype))
        layer(torch.ones(2, 6, dtype=dtype)).sum().backward()
        assert layer.weight.dtype == dtype and off(layer.weight.float()) < 8 * torch.finfo(dtype).eps
    layer = orthogonal(nn.Linear(6, 6, bias=False))
    with torch.autocast("cpu", torch.bfloat16):
        weight = layer.weight
    assert weight.dtype == torch.float32 and off(weight) < 1e-6


def test_a_gradient_that_is_no_number_spoils_its_own_matrix():
    free, layer = nn.Parameter(drawn(3, 5, 5)), Stiefel()
    before = layer(free).detach().clone()
    free.grad = torch.zeros_like(free)
    free.grad[1, 2, 3] = torch.nan
    torch.optim.SGD([free], lr=1.0).step()
    found = layer(free).detach()
    assert found[1].isnan().all()
    torch.testing.assert_close(found[[0, 2]], before[[0, 2]], rtol=0, atol=1e-14)
