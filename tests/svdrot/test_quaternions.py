"""The algebra of quaternions: group laws, fifty digits, what is singular, and the mean of Markley."""

import math

import exact_geometry as exact
import pytest
import torch
from exact_geometry import UNITS, each, worst
from torch import Tensor

import svdrot

DTYPES = (torch.float32, torch.float64)
ONE = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def units(count: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(normal(count, 4, seed=seed), dim=-1)


def hard(count: int = 24) -> Tensor:
    """Random, near 1, near -1, near and at half turns, along axes, and of other lengths."""
    random, tiny = units(count), torch.logspace(-15, -1, count, dtype=torch.float64)[:, None]
    pure = random * torch.tensor([0.0, 1.0, 1.0, 1.0])
    axes = torch.cat((torch.eye(4), -torch.eye(4))).double()
    near = [side * ONE + tiny * pure for side in (1, -1)] + [pure + tiny * ONE, pure]
    return torch.cat((random, *near, axes, 1e-3 * random, 1e3 * random))


def rounding(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_products_inverses_and_images_against_fifty_digits(dtype):
    a, b, v = hard().to(dtype), hard().flip(0).to(dtype), normal(len(hard()), 3, seed=1).to(dtype)
    lengths = [x.double().norm(dim=-1) for x in (a, b, v)]
    product = svdrot.quaternion_multiply(a, b)
    assert worst(product, each(exact.multiply, a, b), (lengths[0] * lengths[1]).tolist()) < UNITS
    inverse = svdrot.quaternion_inverse(a)
    assert worst(inverse, each(exact.inverse, a), (1 / lengths[0]).tolist()) < UNITS
    assert worst(svdrot.quaternion_normalize(a), each(exact.unit, a)) < UNITS
    image = svdrot.quaternion_apply(a, v)
    assert worst(image, each(exact.apply, a, v), lengths[2].tolist()) < UNITS


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_exponentials_and_powers_against_fifty_digits(dtype):
    q = hard().to(dtype)
    truth = each(exact.logarithm, q)
    sizes = [max(1.0, float(exact.length(x))) for x in truth]
    assert worst(svdrot.quaternion_log(q), truth, sizes) < UNITS
    x = torch.cat((q[: 5 * 24], 10 * q[:24])).to(dtype)
    sizes = [float(row[0].exp() * max(1, row[1:].norm(), abs(row[0]))) for row in x.double()]
    assert worst(svdrot.quaternion_exp(x), each(exact.exponential, x), sizes) < UNITS
    for t in (0.0, 0.3, 1.0, -1.0, 2.5):
        exponent = torch.full((len(q),), t, dtype=dtype)
        truth, logs = each(exact.power, q, exponent), each(exact.logarithm, q)
        sizes = [
            float(exact.length(p) * max(1, 2 * abs(t) * exact.length(x)))
            for p, x in zip(truth, logs, strict=True)
        ]
        assert worst(svdrot.quaternion_power(q, t), truth, sizes) < UNITS, t


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arcs_against_fifty_digits(dtype):
    """Between rotations that are anything from the same to half a turn apart, and beyond the ends."""
    between = hard()
    start = units(len(between), seed=2)
    end = svdrot.quaternion_multiply(start, between).to(dtype)
    start = start.to(dtype)
    real = torch.tensor([float(exact.multiply(exact.conjugate(a), b)[0]) for a, b in _pairs(start, end)])
    decided = real.abs() > 4 * rounding(dtype) * end.double().norm(dim=-1)  # which arc is the shorter one
    assert decided.sum() > len(decided) / 2
    start, end = start[decided], end[decided]
    for t in (0.0, 0.25, 0.5, 1.0, 1.5, -0.5):
        share = torch.full((len(start),), t, dtype=dtype)
        truth = each(exact.slerp, start, end, share)
        assert worst(svdrot.quaternion_slerp(start, end, t), truth, max(1.0, 2 * abs(t))) < UNITS, t


def _pairs(a: Tensor, b: Tensor):
    return [(exact.numbers(x), exact.numbers(y)) for x, y in zip(a, b, strict=True)]


def test_the_laws_of_the_group():
    a, b, c = units(100), units(100, 1), units(100, 2)
    tolerance = {"rtol": 0, "atol": 8 * rounding(torch.float64)}
    multiply = svdrot.quaternion_multiply
    torch.testing.assert_close(multiply(multiply(a, b), c), multiply(a, multiply(b, c)), **tolerance)
    one = ONE.expand_as(a)
    torch.testing.assert_close(multiply(a, svdrot.quaternion_conjugate(a)), one, **tolerance)
    torch.testing.assert_close(multiply(svdrot.quaternion_inverse(3 * a), 3 * a), one, **tolerance)
    torch.testing.assert_close(multiply(a, one), a, **tolerance)
    product = svdrot.quaternion_to_matrix(a) @ svdrot.quaternion_to_matrix(b)
    torch.testing.assert_close(svdrot.quaternion_to_matrix(multiply(a, b)), product, **tolerance)
    v = normal(100, 3)
    image = (svdrot.quaternion_to_matrix(a) @ v[:, :, None])[:, :, 0]
    torch.testing.assert_close(
        svdrot.quaternion_apply(-5 * a, v), image, rtol=0, atol=16 * 2**-52 * v.abs().max()
    )
    torch.testing.assert_close(svdrot.quaternion_exp(svdrot.quaternion_log(a)), a, **tolerance)
    double = svdrot.axis_angle_to_quaternion(2 * svdrot.quaternion_log(a)[:, 1:])
    torch.testing.assert_close(double, a, **tolerance)
    half = svdrot.quaternion_power(a, 0.5)
    torch.testing.assert_close(multiply(half, half), a, **tolerance)


def test_arcs_are_those_of_rotations_and_keep_their_side():
    a, b, t = units(200), units(200, 1), torch.rand(200, generator=torch.Generator().manual_seed(0)).double()
    found = svdrot.quaternion_slerp(a, b, t)
    expected = svdrot.slerp(svdrot.quaternion_to_matrix(a), svdrot.quaternion_to_matrix(b), t)
    torch.testing.assert_close(svdrot.quaternion_to_matrix(found), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(svdrot.quaternion_slerp(2 * a, -3 * b, t), found, rtol=0, atol=1e-15)
    torch.testing.assert_close(svdrot.quaternion_slerp(-a, b, t), -found, rtol=0, atol=1e-15)
    assert ((found * a).sum(-1) > 0).all()
    apart = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, -1.0]], dtype=torch.float64)
    middle = svdrot.quaternion_slerp(ONE, apart, 0.5)  # half a turn, to the end as it came
    torch.testing.assert_close(
        middle[:, 3], torch.tensor([1.0, -1.0]).double() / math.sqrt(2), rtol=0, atol=1e-15
    )
    assert svdrot.quaternion_slerp(a, b, math.nan).isnan().all()


def test_a_number_is_the_tensor_of_that_number():
    a, b = units(9), units(9, 1)
    for t in (0, 0.3, 2, -1.5):
        same = torch.full((9,), t, dtype=torch.float64)
        assert torch.equal(svdrot.quaternion_slerp(a, b, t), svdrot.quaternion_slerp(a, b, same))
        assert torch.equal(svdrot.quaternion_power(a, t), svdrot.quaternion_power(a, same))

    def both(a, b):
        return svdrot.quaternion_slerp(a, b, 0.3) + svdrot.quaternion_power(a, 2)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(a, b), both(a, b), rtol=0, atol=1e-15)


SINGULAR = torch.tensor(
    [
        *([0, 0, 0, 0], [1, 0, 0, 0], [-1, 0, 0, 0], [-1, 1e-19, 0, 0], [-1, 3e-17, 1e-17, 0]),
        *([0, 0, 1, 0], [1, 0, 1e-30, 0], [1e-3, 0, 0, -1], [-1e-30, 0, 0, 1]),
    ],
    dtype=torch.float64,
)
ONE_ARGUMENT = {
    "inverse": svdrot.quaternion_inverse,
    "normalize": svdrot.quaternion_normalize,
    "exp": svdrot.quaternion_exp,
    "log": svdrot.quaternion_log,
    "power": lambda q: svdrot.quaternion_power(q, 0.7),
    "apply": lambda q: svdrot.quaternion_apply(q, torch.tensor([1.0, -2.0, 0.5]).to(q)),
    "slerp": lambda q: svdrot.quaternion_slerp(torch.tensor([1.0, 0.0, 0.0, 0.0]).to(q), q, 0.3),
    "slerp from": lambda q: svdrot.quaternion_slerp(q, torch.tensor([-1.0, 0.0, 0.0, 0.0]).to(q), 0.3),
    "mean": lambda q: svdrot.quaternion_mean(q[..., None, :] + torch.eye(4).to(q)[:2]),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_two_derivatives_are_finite_at_singular_places(name, dtype):
    q = SINGULAR.to(dtype).requires_grad_()
    value = ONE_ARGUMENT[name](q)
    assert value.isfinite().all() or name == "log"
    weight = normal(*value.shape, seed=3).to(dtype)
    (first,) = torch.autograd.grad((value.nan_to_num() * weight).sum(), q, create_graph=True)
    (second,) = torch.autograd.grad((first * normal(*first.shape, seed=4).to(dtype)).sum(), q)
    assert first.isfinite().all() and second.isfinite().all()


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_derivatives_are_those_of_differences(name):
    q = torch.cat((units(4), torch.tensor([[1, 1e-3, 0, 0], [-1, 0.1, 0, 0.2], [1e-2, 1, 0, 0]]))).double()
    q.requires_grad_()
    assert torch.autograd.gradcheck(ONE_ARGUMENT[name], q, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(ONE_ARGUMENT[name], q)


def test_what_has_no_inverse_and_no_logarithm():
    q = torch.stack((torch.zeros(4), torch.full((4,), torch.nan), torch.tensor([2.0, 0.0, 0.0, 0.0])))
    inverse = svdrot.quaternion_inverse(q)
    assert (inverse[0] == 0).all() and inverse[1].isnan().all() and inverse[2, 0] == 0.5
    assert svdrot.quaternion_log(q)[:2].isnan().all()
    assert torch.equal(svdrot.quaternion_normalize(q)[0], torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert (svdrot.quaternion_power(q, -0.5)[0] == 0).all()
    for f in (svdrot.quaternion_multiply, lambda a, b: svdrot.quaternion_slerp(a, b, 0.5)):
        found = f(q, torch.ones(4))
        assert found[1].isnan().all() and found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_lengths_far_from_one(scale):
    q = (scale * units(50)).float()
    v = normal(50, 3).float()
    torch.testing.assert_close(svdrot.quaternion_normalize(q).norm(dim=-1), torch.ones(50), rtol=0, atol=4e-7)
    back = svdrot.quaternion_multiply(svdrot.quaternion_inverse(q), q)
    torch.testing.assert_close(back, ONE.float().expand(50, 4), rtol=0, atol=1e-6)
    image = svdrot.quaternion_apply(q, v)
    torch.testing.assert_close(image.norm(dim=-1), v.norm(dim=-1), rtol=1e-6, atol=0)
    assert svdrot.quaternion_log(q)[:, 0] == pytest.approx(math.log(scale), rel=0.05)


# The mean ---------------------------------------------------------------------------------------------------


def spread(batch: int, count: int, size: float) -> tuple[Tensor, Tensor]:
    """Quaternions of any sign and length around one, and weights."""
    q = normal(batch, 1, 4) + size * normal(batch, count, 4, seed=1)
    w = torch.rand(batch, count, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return q * normal(batch, count, 1, seed=3), w


@pytest.mark.parametrize("size", [1e-6, 0.1, 1.0, 100.0])
def test_the_mean_is_the_eigenvector_and_that_of_matrices(size):
    q, w = spread(50, 7, size)
    mean = svdrot.quaternion_mean(q, w)
    u = torch.nn.functional.normalize(q, dim=-1)
    values, vectors = torch.linalg.eigh((u.mT * w[:, None]) @ u)
    expected = vectors[..., -1]
    expected = expected * (expected[:, :1].sign())
    condition = values[:, 3] / (values[:, 3] - values[:, 2])
    assert ((mean - expected).abs().amax(-1) / condition).max() < 16 * 2**-52
    matrix = svdrot.averaging.average_rotations(svdrot.quaternion_to_matrix(q), w)
    distance = (svdrot.quaternion_to_matrix(mean) - matrix).abs().amax((-2, -1))
    assert (distance / condition).max() < 64 * 2**-52
    turn = units(1, 5)
    turned = svdrot.quaternion_mean(svdrot.quaternion_multiply(turn, q), w)
    expected = svdrot.quaternion_multiply(turn, mean)
    expected = expected * expected[:, :1].sign()
    assert ((turned - expected).abs().amax(-1) / condition).max() < 64 * 2**-52


def test_what_counts_in_a_mean():
    q, w = spread(3, 5, 0.3)
    expected = svdrot.quaternion_mean(q[:, 1:], w[:, 1:])
    q[:, 0], w[:, 0] = torch.nan, 0
    q.requires_grad_(), w.requires_grad_()
    found = svdrot.quaternion_mean(q, w)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)
    gradients = torch.autograd.grad(found.sum(), (q, w))
    assert all(g.isfinite().all() for g in gradients)
    with torch.no_grad():
        q[0, 2], w[1, 3] = torch.inf, -1
    assert svdrot.quaternion_mean(q, w).isnan().all(-1).tolist() == [True, True, False]
    empty = svdrot.quaternion_mean(q[:, :0])
    assert torch.equal(empty, ONE.expand(3, 4)) and torch.equal(
        svdrot.quaternion_mean(q, 0 * w.detach())[2], ONE
    )
    half = svdrot.quaternion_mean(q[2].half())
    assert half.dtype == torch.float16
    with pytest.raises(ValueError, match=r"`quaternions` must have shape \(\.\.\., N, 4\)"):
        svdrot.quaternion_mean(ONE)
    with pytest.raises(ValueError, match=r"`weights` must have shape \(\.\.\., 5\)"):
        svdrot.quaternion_mean(q, w[:, :4])


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="`a` must have shape"):
        svdrot.quaternion_multiply(torch.ones(3), torch.ones(4))
    with pytest.raises(TypeError, match="`share` must be a tensor or a number"):
        svdrot.quaternion_slerp(ONE, ONE, "half")
    with pytest.raises(TypeError, match="`exponent` must be floating point"):
        svdrot.quaternion_power(ONE, torch.tensor(2))
