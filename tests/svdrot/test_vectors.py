"""Directions and angles: fifty digits, what rotations between them must do, and where there are none."""

import math

import exact_geometry as exact
import pytest
import torch
from exact_geometry import UNITS, each, worst
from rotation_cases import HARD
from torch import Tensor

import svdrot

DTYPES = (torch.float32, torch.float64)
EPS = 2.0**-52


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def image(matrix: Tensor, v: Tensor) -> Tensor:
    return (matrix @ v[..., None])[..., 0]


def unit(v: Tensor) -> Tensor:
    return torch.nn.functional.normalize(v, dim=-1)


def pairs(count: int = 40) -> tuple[Tensor, Tensor]:
    """Any directions and lengths; nearly the same, nearly opposite, at right angles, and exactly each."""
    a, other = normal(count, 3), normal(count, 3, seed=1)
    tiny = torch.logspace(-15, -1, count, dtype=torch.float64)[:, None]
    across = torch.linalg.cross(a, other)
    near = [a, other, a + tiny * across, -a + tiny * across, across, a, -a, across + tiny * a]
    axes = torch.cat((torch.eye(3), -torch.eye(3))).double()
    starts = torch.cat((a.repeat(len(near), 1), axes.repeat_interleave(6, 0)))
    ends = torch.cat((torch.cat(near), axes.repeat(6, 1)))
    return starts, ends * (2.0 ** torch.arange(len(ends)).remainder(5) - 0.5)[:, None]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_angles_and_rotations_between_directions_against_fifty_digits(dtype):
    a, b = (x.to(dtype) for x in pairs())
    angles = each(exact.angle_between, a, b)
    assert worst(svdrot.angle_between(a, b), angles) < UNITS
    # Next to opposite vectors the axis is as uncertain as the direction of their sum.
    sines = [max(float(mp_sine), 0.0) for mp_sine in (exact.mpmath.sin(t[0]) for t in angles)]
    obtuse = torch.tensor([float(t[0]) for t in angles]) > math.pi / 2
    eps = torch.finfo(dtype).eps
    decided = ~obtuse | (torch.tensor(sines) > 16 * eps)
    condition = [1 / s if o else 1.0 for s, o, d in zip(sines, obtuse, decided, strict=True) if d]
    a, b = a[decided], b[decided]
    assert worst(svdrot.rotation_between(a, b), each(exact.rotation_between, a, b), condition) < UNITS


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_rotation_between_takes_one_to_the_other_and_is_smallest(dtype):
    a, b = (x.to(dtype) for x in pairs())
    rotation, eps = svdrot.rotation_between(a, b), torch.finfo(dtype).eps
    assert svdrot.is_rotation(rotation).all()
    r, a, b = rotation.double(), a.double(), b.double()
    assert (image(r, unit(a)) - unit(b)).abs().max() < UNITS * eps
    assert (svdrot.rotation_angle(r) - svdrot.angle_between(a, b)).abs().max() < 2 * UNITS * eps
    assert (svdrot.rotation_between(b, a) - r.mT).abs()[
        : len(a) // 8
    ].max() < 1e3 * eps  # away from opposites


def test_opposite_vectors_have_a_half_turn_that_depends_on_the_first():
    a = unit(normal(50, 3))
    half = svdrot.rotation_between(a, -a)
    assert (half - half.mT).abs().max() < UNITS * EPS
    assert (svdrot.rotation_angle(half) - math.pi).abs().max() < UNITS * EPS
    assert (half - svdrot.rotation_between(3 * a, -0.5 * a)).abs().max() < UNITS * EPS
    # To first order R a stays b, whatever of the two moves.
    a.requires_grad_()
    b = (-a.detach()).requires_grad_()
    moved = image(svdrot.rotation_between(a, b), a / a.norm(dim=-1, keepdim=True))
    weight = normal(50, 3, seed=2)
    by_a, by_b = torch.autograd.grad((moved * weight).sum(), (a, b))
    (expected,) = torch.autograd.grad((unit(b) * weight).sum(), b)
    assert by_a.abs().max() < 1e-14 and (by_b - expected).abs().max() < 1e-14


VIEWS = normal(60, 3, 3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_views_against_fifty_digits(dtype):
    eye, target, up = VIEWS.to(dtype).unbind(1)
    up[:20] = (target - eye)[:20] + 10.0 ** -torch.arange(20).remainder(5).to(dtype)[:, None] * up[:20]
    forward = (target - eye).double()
    sines = torch.linalg.cross(unit(forward), unit(up.double())).norm(dim=-1)
    lengths = torch.stack((eye, target)).double().norm(dim=-1).amax(0) / forward.norm(dim=-1)
    condition = (lengths / sines).clamp(min=1).tolist()
    assert worst(svdrot.look_at(eye, target, up), each(exact.look_at, eye, target, up), condition) < UNITS


@pytest.mark.parametrize("convention", ["opencv", "opengl"])
def test_a_camera_sees_its_target_in_the_middle_and_up_above(convention):
    eye, target, up = VIEWS.unbind(1)
    rotation = svdrot.look_at(eye, target, up, convention)
    assert svdrot.is_rotation(rotation).all()
    x, y, z = image(rotation, target - eye).unbind(-1)
    side = 1 if convention == "opencv" else -1
    assert x.abs().max() < 1e-14 and y.abs().max() < 1e-14
    torch.testing.assert_close(z, side * (target - eye).norm(dim=-1))
    x, y, _ = image(rotation, up).unbind(-1)
    assert x.abs().max() < 1e-14 and (side * y < 0).all()
    # Along the view, or with no up, any other; no view is the identity.
    for no_up in (target - eye, eye - target, 0 * up):
        assert svdrot.is_rotation(svdrot.look_at(eye, target, no_up, convention)).all()
    one = torch.eye(3, dtype=torch.float64).expand(60, 3, 3)
    assert torch.equal(svdrot.look_at(eye, eye, up, convention), one)
    with pytest.raises(ValueError, match="`convention` must be one of opencv, opengl"):
        svdrot.look_at(eye, target, up, "vulkan")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", HARD)
def test_angles_of_rotations_against_fifty_digits(case, dtype):
    matrix = HARD[case].to(dtype)
    assert worst(svdrot.rotation_angle(matrix), each(exact.rotation_angle, matrix)) < UNITS


def test_hat_and_vee():
    v, w = normal(20, 3), normal(20, 3, seed=1)
    assert torch.equal(svdrot.vee(svdrot.hat(v)), v)
    torch.testing.assert_close(image(svdrot.hat(v), w), torch.linalg.cross(v, w), rtol=0, atol=1e-14)
    matrix = normal(20, 3, 3)
    skew = (matrix - matrix.mT) / 2
    torch.testing.assert_close(svdrot.hat(svdrot.vee(matrix)), skew, rtol=0, atol=1e-15)
    axis_angle = unit(v) * 3
    expected = unit(v) * math.sin(3)
    torch.testing.assert_close(
        svdrot.vee(svdrot.axis_angle_to_matrix(axis_angle)), expected, rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_wrapped_angles(dtype):
    angle = torch.cat((normal(100), 1e3 * normal(100), 1e8 * normal(100), torch.arange(-4, 5) * math.pi)).to(
        dtype
    )
    angle.requires_grad_()
    wrapped = svdrot.wrap_angle(angle)
    truth = [t for t, x in zip(each(exact.wrap, angle.detach()), angle, strict=True)]
    eps = torch.finfo(dtype).eps
    off = torch.tensor([float(a - t[0]) for a, t in zip(exact.numbers(wrapped.detach()), truth, strict=True)])
    assert (
        torch.minimum(off.abs(), (off.abs() - 2 * math.pi).abs()).max() < 4 * UNITS * eps
    )  # pi is as good as -pi
    pi = torch.tensor(math.pi, dtype=dtype)
    assert (wrapped.abs() <= pi).all()
    inside = angle.abs() <= pi
    assert torch.equal(wrapped[inside], angle[inside]) and inside.sum() > 90
    (gradient,) = torch.autograd.grad(wrapped.sum(), angle)
    assert (gradient == 1).all()


def test_means_on_the_circle():
    generator = torch.Generator().manual_seed(0)
    center, off = 6 * normal(50, 1), normal(50, 8, seed=1)
    w = torch.rand(50, 8, dtype=torch.float64, generator=generator)
    angle = center + 0.3 * off + 2 * math.pi * torch.randint(-2, 3, (50, 8), generator=generator)
    mean = svdrot.circular_mean(angle, w)
    # The sum of squared chords is least there: the mean sine of what is left is zero.
    assert ((angle - mean[:, None]).sin() * w).sum(-1).abs().max() < 1e-13
    assert ((angle - mean[:, None]).cos() * w).sum(-1).min() > 0 and mean.abs().max() <= math.pi
    about = svdrot.axis_angle_to_quaternion(torch.nn.functional.pad(angle[..., None], (2, 0)))
    turned = svdrot.axis_angle_to_matrix(torch.nn.functional.pad(mean[:, None], (2, 0)))
    assert svdrot.quaternion_mean(about, w).shape == (50, 4) and svdrot.is_rotation(turned).all()
    angle[:, 0], w[:, 0] = torch.nan, 0
    expected = svdrot.circular_mean(angle[:, 1:], w[:, 1:])
    torch.testing.assert_close(svdrot.circular_mean(angle, w), expected, rtol=0, atol=1e-14)
    angle[1, 1], w[2, 2] = torch.inf, -1
    assert svdrot.circular_mean(angle, w).isnan().nonzero()[:, 0].tolist() == [1, 2]
    assert (svdrot.circular_mean(angle[:, :0]) == 0).all() and svdrot.circular_mean(angle, 0 * w.abs())[
        0
    ] == 0
    with pytest.raises(ValueError, match=r"`weights` must have shape \(\.\.\., 8\)"):
        svdrot.circular_mean(angle, w[:, 1:])


A = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)
SINGULAR = torch.stack((A, -A, 0 * A, -A + 1e-9 * A.flip(0), A + 1e-20, 1e-15 * A, torch.eye(3).double()[0]))
OF_A_VECTOR = {
    "angle_between": lambda v: svdrot.angle_between(A.to(v), v),
    "rotation_between": lambda v: svdrot.rotation_between(A.to(v), v),
    "rotation_between, from": lambda v: svdrot.rotation_between(v, A.to(v)),
    "look_at, eye": lambda v: svdrot.look_at(v, A.to(v), torch.tensor([0.0, 1.0, 0.0]).to(v)),
    "look_at, up": lambda v: svdrot.look_at(0 * v.detach(), A.to(v), v, "opengl"),
    "circular_mean": svdrot.circular_mean,
    "wrap_angle": svdrot.wrap_angle,
    "rotation_angle": lambda v: svdrot.rotation_angle(svdrot.axis_angle_to_matrix(v)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OF_A_VECTOR)
def test_two_derivatives_are_finite_at_singular_places(name, dtype):
    v = SINGULAR.to(dtype).requires_grad_()
    value = OF_A_VECTOR[name](v)
    assert value.isfinite().all()
    (first,) = torch.autograd.grad((value * normal(*value.shape).to(dtype)).sum(), v, create_graph=True)
    assert first.isfinite().all()
    if first.requires_grad:
        (second,) = torch.autograd.grad((first * normal(*first.shape, seed=1).to(dtype)).sum(), v)
        assert second.isfinite().all()


@pytest.mark.parametrize("name", OF_A_VECTOR)
def test_derivatives_are_those_of_differences(name):
    v = torch.cat((normal(4, 3), A[None] + 0.05 * A.flip(0), -A[None] + 0.3 * A.flip(0)))
    v.requires_grad_()
    assert torch.autograd.gradcheck(OF_A_VECTOR[name], v, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(OF_A_VECTOR[name], v)


def test_the_rotation_between_equal_directions_is_smooth():
    a, b = A.clone().requires_grad_(), (2 * A).requires_grad_()
    assert torch.autograd.gradcheck(svdrot.rotation_between, (a, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(svdrot.rotation_between, (a, b))


def test_a_nan_stays_in_its_row():
    a, b = normal(5, 3), normal(5, 3, seed=1)
    b[2, 0] = torch.nan
    for f in (svdrot.angle_between, svdrot.rotation_between, lambda a, b: svdrot.look_at(a, b, A)):
        assert f(a, b).flatten(1 if f(a, b).ndim > 1 else 0).isnan().reshape(5, -1).all(1).tolist() == [
            k == 2 for k in range(5)
        ]
