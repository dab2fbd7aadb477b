"""Riemannian SGD and Adam: equal to torch's on tangents, on the manifold, at the optimum."""

import copy

import pytest
import torch
from torch import Tensor, nn

import svdrot
from svdrot.optim import RiemannianAdam, RiemannianSGD

EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}
ALIKE = {
    "sgd": (RiemannianSGD, torch.optim.SGD, {"lr": 0.1}),
    "momentum": (RiemannianSGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}),
    "nesterov": (RiemannianSGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "ascent": (RiemannianSGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.5, "maximize": True}),
    "adam": (RiemannianAdam, torch.optim.Adam, {"lr": 0.1, "betas": (0.8, 0.95)}),
    "amsgrad": (RiemannianAdam, torch.optim.Adam, {"lr": 0.1, "amsgrad": True, "eps": 1e-3}),
}
SHAPES = [(3, 3), (4, 3, 3), (2, 2), (5, 5), (6, 2), (2, 6), (3, 5, 4), (5, 1), (48, 48), (60, 44)]


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)


def frame(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    return nn.Parameter(svdrot.orthogonalize(drawn(*shape, seed=seed)).to(dtype))


def off(p: Tensor) -> float:
    q = p.detach().mT if p.shape[-2] < p.shape[-1] else p.detach()
    return (q.mT @ q - torch.eye(q.shape[-1], dtype=q.dtype)).abs().max().item()


@pytest.mark.parametrize("name", ALIKE)
def test_on_rotations_of_space_it_is_the_optimizer_of_torch_on_tangents(name):
    """The law: a step on matrices, and torch's on `svdrot.nn.Rotation`, for the same gradients."""
    kind, of_torch, options = ALIKE[name]
    start, target, weights = (
        svdrot.random_rotation(5, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        for k in range(3)
    )
    module, matrices = svdrot.nn.Rotation(5, initial=start), [nn.Parameter(r.clone()) for r in start]
    one, other = of_torch(module.parameters(), **options), kind(matrices, **options)
    for _ in range(50):
        one.zero_grad()
        other.zero_grad()
        for r in (module(), torch.stack([*matrices])):
            ((r - target).square() * weights.abs()).sum().backward()
        one.step()
        other.step()
    torch.testing.assert_close(module().detach(), torch.stack([*matrices]).detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_first_step_is_along_the_canonical_gradient(shape):
    """G - Q GᵀQ, along which f falls by lr times its squared length, to first order."""
    p, g, lr = frame(*shape), drawn(*shape, seed=1), 1e-5
    q = p.detach().clone()
    p.grad = g.clone()
    RiemannianSGD([p], lr=lr).step()
    a, b = (q.mT, g.mT) if shape[-2] < shape[-1] else (q, g)
    gradient = b - a @ (b.mT @ a)
    moved = (p.detach() - q).mT if shape[-2] < shape[-1] else p.detach() - q
    torch.testing.assert_close(moved / -lr, gradient, rtol=0, atol=1e-3 * gradient.abs().max().item())


@pytest.mark.parametrize("kind", ["momentum", "adam"])
@pytest.mark.parametrize("dtype", EPS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_thousands_of_steps_stay_on_the_manifold(shape, dtype, kind):
    p = frame(*shape, dtype=dtype)
    sign = torch.linalg.det(p.detach()).sign() if shape[-1] == shape[-2] else None
    make = {"momentum": lambda: RiemannianSGD([p], 0.02, 0.9), "adam": lambda: RiemannianAdam([p], 0.05)}
    optimizer = make[kind]()
    for k in range(1000):
        p.grad = drawn(*shape, seed=k, dtype=dtype)
        optimizer.step()
    assert off(p) < 16 * EPS[dtype] * min(shape[-2:]) ** 0.5
    assert sign is None or torch.equal(torch.linalg.det(p.detach()).sign(), sign)
    for state in optimizer.state.values():  # momenta are tangents
        z = state["momentum_buffer" if kind == "momentum" else "exp_avg"]
        if shape[-1] != shape[-2]:
            q = p.detach().mT if shape[-2] < shape[-1] else p.detach()
            a = q.mT @ z
            assert (a + a.mT).abs().max() <= 64 * EPS[dtype] * z.abs().max() * max(shape)
        elif z.shape[-2:] == shape[-2:]:
            assert (z + z.mT).abs().max() <= 4 * EPS[dtype] * z.abs().max()


def trained(optimizer: torch.optim.Optimizer, loss, steps: int, end: int = 0) -> float:
    """With `end` steps at falling rates, for Adam, whose steps do not end by themselves."""
    for k in range(steps + end):
        if k >= steps:
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return loss().item()


@pytest.mark.parametrize("kind", [RiemannianSGD, RiemannianAdam])
def test_it_solves_wahba(kind):
    """Rotations that fit weighted directions best, of which the SVD knows the answer."""
    x, w = drawn(8, 20, 3), drawn(8, 20, seed=1).abs()
    y = x @ svdrot.random_rotation(8, dtype=x.dtype).mT + 0.1 * drawn(8, 20, 3, seed=2)
    p = nn.Parameter(torch.eye(3, dtype=x.dtype).repeat(8, 1, 1))
    optimizer = kind([p], lr=0.2 if kind is RiemannianSGD else 0.02)

    def loss() -> Tensor:
        return (w * (x @ p.mT - y).square().sum(-1)).sum() / 20

    trained(optimizer, loss, 400, 200)
    best = svdrot.special_orthogonalize((w[..., None] * y).mT @ x)
    assert (p - best).abs().max() < (1e-12 if kind is RiemannianSGD else 1e-6)


@pytest.mark.parametrize("kind", [RiemannianSGD, RiemannianAdam])
def test_it_finds_principal_components(kind):
    """Brockett's function Σ k qₖᵀ A qₖ has its minimum at the eigenvectors of the smallest eigenvalues, the
    very smallest for the largest k."""
    u = svdrot.orthogonalize(drawn(7, 7))
    values, k = torch.arange(1.0, 8.0, dtype=u.dtype), torch.arange(1.0, 4.0, dtype=u.dtype)
    a, p = u @ values.diag() @ u.mT, frame(7, 3, seed=5)
    options = {"momentum": 0.5} if kind is RiemannianSGD else {}
    optimizer = kind([p], lr=0.02, **options)
    found = trained(optimizer, lambda: ((p.mT @ a @ p).diagonal() * k).sum(), 2000, 300)
    assert found == pytest.approx(1 * 3 + 2 * 2 + 3 * 1, abs=1e-10)
    cosine = (p.detach() * u[:, [2, 1, 0]]).sum(0).abs()
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", [RiemannianSGD, RiemannianAdam])
def test_it_solves_procrustes(kind):
    a, b, p = drawn(40, 6), drawn(40, 6, seed=1), frame(6, 6, seed=2)
    best = svdrot.orthogonalize(a.mT @ b)
    if torch.linalg.det(best) * torch.linalg.det(p.detach()) < 0:
        with torch.no_grad():
            p[:, 0] *= -1
    optimizer = kind([p], lr=1.0, momentum=0.9) if kind is RiemannianSGD else kind([p], lr=0.02)
    trained(optimizer, lambda: (a @ p - b).square().mean(), 2000, 200)
    assert (p - best).abs().max() < (1e-10 if kind is RiemannianSGD else 1e-6)


@pytest.mark.parametrize("name", ["momentum", "adam", "amsgrad"])
def test_parameters_together_are_as_each_alone(name):
    """Batches, stacks of parameters of one shape, and others between them: the same numbers."""
    kind, _, options = ALIKE[name]
    starts = [frame(*shape, seed=k) for k, shape in enumerate(((4, 4), (5, 2), (4, 4), (4, 4), (2, 4, 4)))]
    together = [nn.Parameter(p.detach().clone()) for p in starts]
    one, alone = kind(together, **options), [kind([p], **options) for p in starts]
    for k in range(6):
        for i, (p, q) in enumerate(zip(together, starts, strict=True)):
            q.grad = drawn(*q.shape, seed=7 * k + i) if k != i else None  # one rests
            p.grad = None if q.grad is None else q.grad.clone()
        one.step()
        for optimizer in alone:
            optimizer.step()
    for p, q in zip(together, starts, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adam", "amsgrad"])
def test_a_state_goes_on_where_it_was(name):
    kind, _, options = ALIKE[name]
    first = [frame(3, 3), frame(5, 2), frame(2, 5, seed=1)]
    optimizer = kind(first, **options)

    def steps(params, optimizer, begin):
        for k in range(begin, begin + 4):
            for i, p in enumerate(params):
                p.grad = drawn(*p.shape, seed=10 * k + i)
            optimizer.step()

    steps(first, optimizer, 0)
    second = [nn.Parameter(p.detach().clone()) for p in first]
    other = kind(second, lr=1.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(first, optimizer, 4)
    steps(second, other, 4)
    for p, q in zip(first, second, strict=True):
        assert torch.equal(p, q)


def test_a_gradient_that_is_no_number_spoils_its_own_matrix():
    for kind in (RiemannianSGD, RiemannianAdam):
        for shape in ((4, 3, 3), (4, 5, 5), (4, 5, 2), (4, 48, 48)):
            p = frame(*shape)
            p.grad = drawn(*shape, seed=1)
            p.grad[1, 0, 0] = torch.nan
            kind([p], lr=0.01).step()
            assert p[1].isnan().all()
            assert off(p[[0, 2, 3]]) < 1e-13


@pytest.mark.parametrize(
    ("kind", "params", "options", "error", "message"),
    [
        (
            RiemannianSGD,
            torch.ones(4, 3),
            {},
            ValueError,
            r"`params\[0\]` must have orthonormal columns; got .* 4\.",
        ),
        (RiemannianAdam, torch.ones(3, 4), {}, ValueError, "must have orthonormal rows"),
        (RiemannianSGD, torch.ones(3), {}, ValueError, r"must have shape \(..., m, n\)"),
        (RiemannianSGD, torch.eye(3).bfloat16(), {}, TypeError, "must be float32 or float64"),
        (RiemannianSGD, torch.eye(3), {"lr": -1}, ValueError, "`lr` must be"),
        (RiemannianSGD, torch.eye(3), {"momentum": 1.0}, ValueError, "`momentum` must be"),
        (RiemannianSGD, torch.eye(3), {"nesterov": True}, ValueError, "`nesterov` needs"),
        (RiemannianAdam, torch.eye(3), {"betas": (0.9, 1.0)}, ValueError, "`betas` must be"),
        (RiemannianAdam, torch.eye(3), {"eps": -1}, ValueError, "`eps` must not"),
    ],
)
def test_what_is_refused(kind, params, options, error, message):
    with pytest.raises(error, match=message):
        kind([nn.Parameter(params)], **options)


def test_a_refused_group_is_not_added():
    optimizer = RiemannianSGD([frame(3, 3)])
    with pytest.raises(ValueError, match="must have orthonormal"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2, 2))]})
    assert len(optimizer.param_groups) == 1


def test_a_closure_is_called_once():
    p, calls = frame(5, 2), []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        loss = p.square().sum() + p[0, 0]
        loss.backward()
        return loss

    loss = RiemannianSGD([p], lr=torch.tensor(0.1)).step(closure)
    assert calls == [True] and isinstance(loss, Tensor)
