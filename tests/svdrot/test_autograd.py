"""Derivatives of every order and by every road, against finite differences and against each other."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import svdrot


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


SQUARE = {
    "one": draw(2, 1, 1),
    "two": draw(2, 2, 2),
    "three": draw(2, 2, 3, 3),
    "four": draw(2, 4, 4),
    "five": draw(2, 5, 5),
    "identity": torch.eye(3, dtype=torch.float64),
    "identity_two": torch.eye(2, dtype=torch.float64),
    "identity_four": torch.eye(4, dtype=torch.float64),
    "rotations": svdrot.random_rotation(2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
    "reflections": -2 * torch.eye(3, dtype=torch.float64) + 0.7 * draw(2, 3, 3),
    "rank_two": draw(2, 3, 2) @ draw(2, 2, 3),
}


@pytest.mark.parametrize("case", SQUARE)
def test_special_orthogonalize_against_finite_differences(case):
    m = SQUARE[case].clone().requires_grad_()
    options = {"check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(svdrot.special_orthogonalize, m, check_forward_ad=True, **options)
    assert gradgradcheck(svdrot.special_orthogonalize, m, check_fwd_over_rev=True)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (4, 4), (4, 2), (2, 4), (5, 3), (3, 1)])
def test_orthogonalize_against_finite_differences(shape):
    m = draw(2, *shape).requires_grad_()
    assert gradcheck(svdrot.orthogonalize, m, check_forward_ad=True)
    assert gradgradcheck(svdrot.orthogonalize, m)


def test_orthogonalize_where_all_singular_values_are_equal():
    m = torch.eye(5, 3, dtype=torch.float64).requires_grad_()
    assert gradcheck(svdrot.orthogonalize, m, check_forward_ad=True)
    assert gradgradcheck(svdrot.orthogonalize, m)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_projection_gap_against_finite_differences(n):
    m = draw(3, n, n).requires_grad_()
    assert gradcheck(svdrot.projection_gap, m, check_forward_ad=True)
    torch.func.vmap(torch.func.grad(svdrot.projection_gap))(m.detach())


def test_projection_gap_refuses_a_second_derivative():
    m = draw(3, 3).requires_grad_()
    (g,) = torch.autograd.grad(svdrot.projection_gap(m), m, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        g.sum().backward()


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("function", [svdrot.special_orthogonalize, svdrot.orthogonalize])
def test_functional_transforms_agree(function, n):
    m = draw(6, n, n)
    reverse = torch.func.vmap(torch.func.jacrev(function))(m)
    forward = torch.func.vmap(torch.func.jacfwd(function))(m)
    torch.testing.assert_close(forward, reverse, rtol=1e-12, atol=1e-12)
    one_by_one = torch.stack([torch.autograd.functional.jacobian(function, x) for x in m])
    torch.testing.assert_close(reverse, one_by_one, rtol=1e-12, atol=1e-12)
    batched = torch.func.vmap(function, in_dims=1, out_dims=1)(m.movedim(0, 1)).movedim(1, 0)
    torch.testing.assert_close(batched, function(m), rtol=0, atol=1e-15)  # by another kernel, perhaps

    weight = draw(n, n)
    hessian = torch.func.hessian(lambda x: (weight * function(x)).sum())(m[0]).reshape(n * n, n * n)
    torch.testing.assert_close(hessian, hessian.mT, rtol=1e-9, atol=1e-9)
    twice_reverse = torch.func.jacrev(torch.func.jacrev(lambda x: (weight * function(x)).sum()))(m[0])
    torch.testing.assert_close(twice_reverse.reshape(n * n, n * n), hessian, rtol=1e-9, atol=1e-9)


def test_nested_vmap_is_one_batch():
    m = draw(2, 4, 5, 3, 3)
    nested = torch.func.vmap(torch.func.vmap(svdrot.special_orthogonalize))(m)
    assert torch.equal(nested, svdrot.special_orthogonalize(m))


def test_vmap_over_a_backward_outside_of_it():
    m = draw(4, 3, 3).requires_grad_()
    r = svdrot.special_orthogonalize(m)
    weights = draw(5, 4, 3, 3)

    def vjp(weight):
        return torch.autograd.grad(r, m, weight, retain_graph=True)[0]

    one_by_one = torch.stack([vjp(weight) for weight in weights])
    torch.testing.assert_close(torch.func.vmap(vjp)(weights), one_by_one, rtol=1e-12, atol=1e-12)


def test_only_the_matrix_and_the_rotation_are_saved():
    m = draw(4, 3, 3).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        r = svdrot.special_orthogonalize(m)
    assert len(saved) == 2
    assert saved[0].data_ptr() == m.data_ptr() and saved[1].data_ptr() == r.data_ptr()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_damping_bounds_the_gradient(n):
    """At gap zero, along the undefined direction, a pair sum g becomes g / (g² + d²), at most 1 / 2d."""
    m = torch.eye(n, dtype=torch.float64)
    m[-1, -1] = -1 + 1e-9
    m = m.requires_grad_()
    w = draw(n, n)
    norms = []
    for damping in (1e-1, 1e-2, 1e-3):
        (d,) = torch.autograd.grad(svdrot.special_orthogonalize(m, damping=damping), m, w)
        norms.append(d.norm())
        assert d.norm() <= (w - w.mT).norm() / (2 * damping)
    (undamped,) = torch.autograd.grad(svdrot.special_orthogonalize(m, damping=0.0), m, w)
    assert undamped.norm() > 1e6 > max(norms)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_a_gap_of_rounding_has_a_gradient_of_ordinary_size(n, dtype):
    """Stored, a matrix without a gap has one of rounding: over that, the gradient would be 1e7, or 1e15."""
    q = svdrot.special_orthogonalize(draw(200, n, n))
    reflections, rank_one = 2 * q, draw(200, n, 1) @ draw(200, 1, n)
    reflections[..., 0] *= -1
    for m in (reflections, rank_one) if n == 3 else (reflections,):  # rank n - 2 has no gap
        m = m.to(dtype).requires_grad_()
        (d,) = torch.autograd.grad(svdrot.special_orthogonalize(m).sum(), m)
        size = n * d.norm(dim=(-2, -1)) * m.detach().norm(dim=(-2, -1))
        assert size.max() < 100 * n


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [2, 3, 4])
def test_gradients_rise_smoothly_from_where_the_gap_is_rounding(n, dtype):
    """Never above 1 / gap, and that from some units of rounding on."""
    eps = torch.finfo(dtype).eps
    gaps = eps * 2.0 ** torch.arange(-2, 14, 0.05, dtype=dtype)
    m = torch.eye(n, dtype=dtype).repeat(len(gaps), 1, 1)
    m[:, -2, -2] = 0.5
    m[:, -1, -1] = gaps - 0.5  # the diagonal is exact, and so is the gap
    w = torch.zeros(n, n, dtype=dtype)
    w[-1, -2] = 1
    m.requires_grad_()
    (d,) = torch.autograd.grad((w * svdrot.special_orthogonalize(m)).sum(), m)
    relative = d[:, -1, -2] * gaps
    assert relative[gaps < 10 * eps].abs().max() < 1e-3
    assert (relative[gaps > 100 * eps] - 1).abs().max() < 0.2
    assert relative.min() > -1e-3 and relative.max() < 1.2 and relative.diff().abs().max() < 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("off", [0.0, 1e-23, 1e-30, 1e-44, 1e-170])
def test_gradient_of_the_gap_is_one_of_the_possible_ones_where_singular_values_tie(off, dtype):
    """u2 v2ᵀ + u3 v3ᵀ, or a mean of such, also where the square of what parts two singular values is 0."""
    m = torch.diag(torch.tensor([1.0, 1.0, 0.5], dtype=dtype))
    m[0, 1] = m[1, 0] = off
    (d,) = torch.autograd.grad(svdrot.projection_gap(m.requires_grad_()), m)
    assert (
        1 <= d.norm() < 2**0.5 + 8 * torch.finfo(dtype).eps
        and abs(d.trace() - 2) < 8 * torch.finfo(dtype).eps
    )


def test_transforms_inside_torch_compile_are_refused():
    """Dynamo would drop the derivative without a word (pytorch#192985), and give zeros."""
    m = torch.eye(3)[None]

    def tangent(m, t):
        return torch.func.jvp(svdrot.special_orthogonalize, (m,), (t,))[1]

    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(tangent, fullgraph=True, backend="eager")(m, torch.randn(1, 3, 3))


def test_many_threads_may_call_at_once():
    m = draw(64, 3, 3)
    expected = svdrot.special_orthogonalize(m)
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda _: svdrot.special_orthogonalize(m), range(16))
    assert all(torch.equal(r, expected) for r in results)
