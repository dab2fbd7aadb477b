"""SE(3) and Sim(3): fifty digits, the laws of groups, and derivatives of the exponential."""

import math

import exact_geometry as exact
import pytest
import torch
from exact_geometry import UNITS, each, worst
from torch import Tensor

import svdrot
from svdrot import Transform
from svdrot._formulas.geometry import se3

DTYPES = (torch.float32, torch.float64)
EPS = 2.0**-52


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(v: Tensor) -> Tensor:
    return torch.nn.functional.normalize(v, dim=-1)


def twists(numbers: int = 6, most: float = math.pi) -> Tensor:
    """Any rotations up to an angle, zero, tiny ones, both sides of 1 and near a half turn; any lengths."""
    tiny = torch.logspace(-15, -1, 8, dtype=torch.float64)
    angles = [torch.zeros(2), tiny, 1 - tiny, 1 + tiny, math.pi - tiny, torch.linspace(0.1, most, 9)]
    angle = torch.cat([x.double() for x in angles])
    n = len(angle)
    moves = normal(n, 3, seed=1) * torch.logspace(-3, 1, n, dtype=torch.float64)[torch.randperm(n), None]
    parts = [unit(normal(n, 3)) * angle[:, None], moves]
    growth = 0.5 * normal(n, 1, seed=2)
    growth[::4], growth[1::4] = 0, growth[1::4] * tiny.repeat(6)[: len(growth[1::4]), None]
    return torch.cat((*parts, growth)[: numbers - 4], 1)


def sizes(twist: Tensor) -> Tensor:
    """What rounding of a pose is measured by: turns, lengths and growth."""
    twist = twist.double()
    grown = twist[:, 6:].abs().sum(1).exp()
    return (1 + twist[:, :3].norm(dim=1)) * (1 + twist[:, 3:6].norm(dim=1)) * grown


def flat(transform: Transform) -> Tensor:
    return torch.cat((transform.rotation.flatten(1), transform.translation, transform.scale[:, None]), 1)


EXP = {6: svdrot.se3_exp, 7: svdrot.sim3_exp}
LOG = {6: svdrot.se3_log, 7: svdrot.sim3_log}
ADJOINT = {6: svdrot.se3_adjoint, 7: svdrot.sim3_adjoint}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", EXP)
def test_exponential_and_adjoint_against_fifty_digits(n, dtype):
    x = twists(n, 7.0).to(dtype)
    pose = EXP[n](x)
    assert worst(flat(pose), each(exact.twist_exponential, x), sizes(x).tolist()) < UNITS
    # The adjoint of a pose that is right to some eps.
    assert worst(ADJOINT[n](pose), each(exact.adjoint, x), (2 * sizes(x)).tolist()) < UNITS


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", EXP)
def test_logarithm_of_the_exponential(n, dtype):
    """Of a pose that is rounded once, from fifty digits: to some eps of twice its size."""
    x = twists(n)
    exact_pose = [[float(v) for v in row] for row in each(exact.twist_exponential, x)]
    rows = torch.tensor(exact_pose, dtype=torch.float64).to(dtype)
    found = LOG[n](Transform(rows[:, :9].unflatten(1, (3, 3)), rows[:, 9:12], rows[:, 12]))
    kept = math.pi - x[:, :3].norm(dim=1) > UNITS * torch.finfo(dtype).eps  # there is one sign
    error = (found.double() - x).abs().amax(1) / (torch.finfo(dtype).eps * 2 * sizes(x))
    assert kept.sum() > 35 and error[kept].max() < UNITS


def test_half_turns_have_either_sign():
    x = torch.cat((math.pi * unit(normal(20, 3)), normal(20, 3, seed=1)), 1)
    pose = svdrot.se3_exp(x)
    back = svdrot.se3_exp(svdrot.se3_log(pose))
    assert (flat(back) - flat(pose)).abs().max() < 4 * UNITS * EPS
    assert (svdrot.se3_log(pose)[:, :3].norm(dim=1) - math.pi).abs().max() < UNITS * EPS


@pytest.mark.parametrize("n", EXP)
def test_the_laws_of_groups(n):
    a, b, c = (EXP[n](0.5 * normal(30, n, seed=k)) for k in range(3))
    one = Transform.identity(dtype=torch.float64)
    limit = 16 * UNITS * EPS
    assert (flat((a @ b) @ c) - flat(a @ (b @ c))).abs().max() < limit
    assert (flat(a @ one) - flat(a)).abs().max() == 0
    assert (flat(a @ a.inverse()) - flat(EXP[n](torch.zeros(1, n).double()))).abs().max() < limit
    x = 0.5 * normal(30, n, seed=4)
    inverse = EXP[n](x).inverse()
    assert (flat(EXP[n](-x)) - flat(inverse)).abs().max() < limit
    assert (flat(EXP[n](x) @ EXP[n](x)) - flat(EXP[n](2 * x))).abs().max() < limit


@pytest.mark.parametrize("n", EXP)
def test_the_adjoint_moves_twists_to_the_frame_after(n):
    pose, x = EXP[n](0.5 * normal(30, n)), 0.5 * normal(30, n, seed=1)
    image = (ADJOINT[n](pose) @ x[:, :, None])[:, :, 0]
    condition = (1 + image.norm(dim=1)) * ADJOINT[n](pose).norm(dim=(1, 2))
    error = (flat(pose @ EXP[n](x) @ pose.inverse()) - flat(EXP[n](image))).abs().amax(1)
    assert (error / condition).max() < UNITS * EPS
    other = EXP[n](0.5 * normal(30, n, seed=2))
    assert (ADJOINT[n](pose @ other) - ADJOINT[n](pose) @ ADJOINT[n](other)).abs().max() < 16 * UNITS * EPS


def test_the_adjoint_of_a_similarity_takes_rigid_motions_to_rigid_ones():
    pose, x = svdrot.sim3_exp(normal(30, 7)), normal(30, 6, seed=1)
    image = (svdrot.se3_adjoint(pose) @ x[:, :, None])[:, :, 0]
    error = flat(pose @ svdrot.se3_exp(x) @ pose.inverse()) - flat(svdrot.se3_exp(image))
    assert (error.abs().amax(1) / svdrot.se3_adjoint(pose).norm(dim=(1, 2))).max() < 4 * UNITS * EPS


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_jacobians_against_fifty_digits(dtype):
    x = twists(6, 7.0)[::2].to(dtype)
    size = sizes(x)
    assert worst(svdrot.se3_left_jacobian(x), each(exact.twist_left_jacobian, x), size.tolist()) < UNITS
    assert worst(svdrot.se3_right_jacobian(x), each(exact.twist_left_jacobian, -x), size.tolist()) < UNITS
    turns = x[:, :3].double().norm(dim=1) / (2 * math.pi)
    x = x[((turns - turns.round()).abs() > 0.02) | (turns < 0.5)]
    truth = each(exact.twist_left_jacobian_inverse, x)
    # The derivative of J⁻¹ is J⁻¹ dJ J⁻¹.
    largest = torch.tensor([max(1.0, *(abs(float(v)) for v in row)) for row in truth])
    condition = (sizes(x) * largest**2).tolist()
    assert worst(svdrot.se3_left_jacobian_inverse(x), truth, condition) < UNITS
    truth = each(exact.twist_left_jacobian_inverse, -x)
    assert worst(svdrot.se3_right_jacobian_inverse(x), truth, condition) < UNITS


def test_jacobians_are_the_derivatives_of_the_exponential_and_the_logarithm():
    """By differences of fourth order with a step of 1e-3, whose own error is some 1e-12."""
    x, step = normal(40, 6), unit(normal(40, 6, seed=1))
    pose = svdrot.se3_exp(x)

    def image(matrix):
        return (matrix @ step[:, :, None])[:, :, 0]

    left = exact.slope(lambda s: svdrot.se3_log(svdrot.se3_exp(x + s * step) @ pose.inverse()))
    assert (left - image(svdrot.se3_left_jacobian(x))).abs().max() < 1e-9
    right = exact.slope(lambda s: svdrot.se3_log(pose.inverse() @ svdrot.se3_exp(x + s * step)))
    assert (right - image(svdrot.se3_right_jacobian(x))).abs().max() < 1e-9
    principal = svdrot.se3_log(pose)
    far = math.pi - principal[:, :3].norm(dim=-1) > 0.05
    assert far.sum() > 30
    left = exact.slope(lambda s: svdrot.se3_log(svdrot.se3_exp(s * step) @ pose))
    assert (left - image(svdrot.se3_left_jacobian_inverse(principal)))[far].abs().max() < 1e-9
    right = exact.slope(lambda s: svdrot.se3_log(pose @ svdrot.se3_exp(s * step)))
    assert (right - image(svdrot.se3_right_jacobian_inverse(principal)))[far].abs().max() < 1e-9


def test_coefficients_are_twice_the_derivatives_of_those_of_taylor():
    mp = exact.mpmath
    for k in range(8):
        a = 2 * (-1) ** (k + 1) * (k + 1) / mp.factorial(2 * k + 4)
        b = 2 * (-1) ** (k + 1) * (k + 1) / mp.factorial(2 * k + 5)
        assert se3.A_SLOPE[k] == pytest.approx(float(a), rel=1e-15, abs=0)
        assert se3.B_SLOPE[k] == pytest.approx(float(b), rel=1e-15, abs=0)
        c = 2 * (k + 1) * abs(mp.bernoulli(2 * k + 4)) / mp.factorial(2 * k + 4)
        assert se3.C_SLOPE[k] == pytest.approx(float(c), rel=1e-15, abs=0)


FUNCTIONS = {
    "se3 exp": lambda x: svdrot.se3_exp(x[..., :6]).matrix,
    "sim3 exp": lambda x: svdrot.sim3_exp(x).matrix,
    "se3 log": lambda x: svdrot.se3_log(svdrot.se3_exp(x[..., :6])),
    "sim3 log": lambda x: svdrot.sim3_log(svdrot.sim3_exp(x)),
    "adjoint": lambda x: svdrot.sim3_adjoint(svdrot.sim3_exp(x)),
    "left": lambda x: svdrot.se3_left_jacobian(x[..., :6]),
    "right inverse": lambda x: svdrot.se3_right_jacobian_inverse(x[..., :6]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_those_of_differences(name):
    x = 0.7 * normal(5, 7)
    x[0] *= 1e-3
    x[1, 6] = 0
    x[2, :3] = 0.999 * unit(x[2, :3])
    x[3, :3] = 3.0 * unit(x[3, :3])
    x.requires_grad_()
    assert torch.autograd.gradcheck(FUNCTIONS[name], x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(FUNCTIONS[name], x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_two_derivatives_are_finite_at_singular_places(name, dtype):
    axis = unit(normal(3, seed=3))
    turns = torch.stack(
        (0 * axis, 1e-15 * axis, axis, math.pi * axis, torch.tensor([math.pi, 0, 0]).double())
    )
    x = torch.cat((turns, normal(5, 3), torch.tensor([0, 0, 1, 0, 1e-9])[:, None]), 1)
    x = torch.cat((x, torch.zeros(1, 7).double())).to(dtype).requires_grad_()
    value = FUNCTIONS[name](x)
    assert value.isfinite().all()
    (first,) = torch.autograd.grad((value * normal(*value.shape).to(dtype)).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first * normal(*first.shape, seed=1).to(dtype)).sum(), x)
    assert first.isfinite().all() and second.isfinite().all()


@pytest.mark.parametrize("name", ["se3 exp", "sim3 exp", "left", "right inverse", "sim3 log"])
def test_second_derivatives_lose_no_digits_near_zero(name):
    """As closed forms do: those in float32 are those in float64."""
    for length in (1e-4, 1e-2, 0.3, 0.9):
        x = (length * unit(normal(6, 7))).float()
        second = torch.func.vmap(torch.func.jacfwd(torch.func.jacrev(FUNCTIONS[name])))
        assert (second(x) - second(x.double())).abs().max() < 4 * UNITS * 2.0**-23


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_bad_rows_stay_in_their_place_in_every_dtype(dtype):
    x = 0.5 * normal(4, 7).to(dtype)
    bad = x.clone()
    bad[1, 4] = math.nan
    for name in ("se3_exp", "sim3_exp"):
        n = 6 if name == "se3_exp" else 7
        good, found = getattr(svdrot, name)(x[:, :n]), getattr(svdrot, name)(bad[:, :n])
        assert found.rotation.dtype == found.scale.dtype == dtype
        assert flat(found)[1].isnan().all() and torch.equal(flat(found)[[0, 2, 3]], flat(good)[[0, 2, 3]])
        back = getattr(svdrot, name.replace("exp", "log"))(found)
        assert back.dtype == dtype and back.isnan().all(1).tolist() == [False, True, False, False]
        assert (back - x[:, :n])[[0, 2, 3]].abs().max() < 16 * torch.finfo(dtype).eps


def test_a_rigid_logarithm_has_no_scale():
    pose = svdrot.sim3_exp(normal(3, 7))
    scale = torch.tensor([1.0, 1 + 32 * EPS, 1.1]).double()
    found = svdrot.se3_log(Transform(pose.rotation, pose.translation, scale))
    assert found.isnan().all(1).tolist() == [False, False, True]
    with pytest.raises(TypeError, match="`transform` must be a Transform"):
        svdrot.se3_log(torch.eye(4))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`transform` must have rotations"):
        svdrot.sim3_log(Transform.identity(2))
    with pytest.raises(ValueError, match="`twist` must have shape"):
        svdrot.se3_exp(torch.zeros(7))
