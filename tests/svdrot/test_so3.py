"""SO(3) and Davenport's angles: fifty digits, derivatives of the exponential, and laws of what is split."""

import math

import exact_geometry as exact
import numpy as np
import pytest
import torch
from exact_geometry import UNITS, each, worst
from rotation_cases import HARD
from scipy.spatial.transform import Rotation
from torch import Tensor

import svdrot
from svdrot._formulas.geometry import so3

DTYPES = (torch.float32, torch.float64)
EPS = 2.0**-52


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(v: Tensor) -> Tensor:
    return torch.nn.functional.normalize(v, dim=-1)


def rotation_vectors() -> Tensor:
    """Any lengths: zero, tiny, on both sides of 1, at and near pi and 2 pi, and several turns."""
    tiny = torch.logspace(-15, -1, 20, dtype=torch.float64)
    lengths = [torch.zeros(1), tiny, 1 - tiny, 1 + tiny, math.pi - tiny, math.pi + tiny, torch.rand(20) * 6]
    lengths += [torch.tensor([math.pi, 5.0, 7.0, 12.0, 20.0]), 2 * math.pi - tiny[6:]]
    angle = torch.cat([x.double() for x in lengths])
    return torch.cat(
        (unit(normal(len(angle), 3)) * angle[:, None], torch.eye(3).double(), -3 * torch.eye(3).double())
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_jacobians_against_fifty_digits(dtype):
    v = rotation_vectors().to(dtype)
    lengths = v.double().norm(dim=-1).clamp(min=1)
    assert worst(svdrot.so3_left_jacobian(v), each(exact.left_jacobian, v), lengths.tolist()) < UNITS
    right = each(exact.left_jacobian, -v)
    assert worst(svdrot.so3_right_jacobian(v), right, lengths.tolist()) < UNITS
    off = (lengths / (2 * math.pi)).round() * 2 * math.pi - lengths  # from whole turns
    kept = (off.abs() > 1e2 * torch.finfo(dtype).eps) | (lengths < 4)
    v, lengths = v[kept], lengths[kept]
    truth = each(exact.left_jacobian_inverse, v)
    sizes = torch.tensor([max(abs(float(x)) for x in row) for row in truth])
    condition = (lengths * sizes.clamp(min=1) ** 2).tolist()
    assert worst(svdrot.so3_left_jacobian_inverse(v), truth, condition) < UNITS
    truth = each(exact.left_jacobian_inverse, -v)
    assert worst(svdrot.so3_right_jacobian_inverse(v), truth, condition) < UNITS


def test_jacobians_are_the_derivatives_of_the_exponential_and_the_logarithm():
    """By differences of fourth order with a step of 1e-3, whose own error is some 1e-12."""
    v, step = normal(40, 3), unit(normal(40, 3, seed=1))
    base = svdrot.axis_angle_to_matrix(v)

    def image(matrix):
        return (matrix @ step[:, :, None])[:, :, 0]

    left = exact.slope(
        lambda s: svdrot.matrix_to_axis_angle(svdrot.axis_angle_to_matrix(v + s * step) @ base.mT)
    )
    assert (left - image(svdrot.so3_left_jacobian(v))).abs().max() < 1e-9
    right = exact.slope(lambda s: svdrot.log_map(base, svdrot.axis_angle_to_matrix(v + s * step)))
    assert (right - image(svdrot.so3_right_jacobian(v))).abs().max() < 1e-9
    principal = svdrot.matrix_to_axis_angle(base)
    far = math.pi - principal.norm(dim=-1) > 0.05
    assert far.sum() > 30
    left = exact.slope(lambda s: svdrot.matrix_to_axis_angle(svdrot.axis_angle_to_matrix(s * step) @ base))
    assert (left - image(svdrot.so3_left_jacobian_inverse(principal)))[far].abs().max() < 1e-9
    right = exact.slope(lambda s: svdrot.matrix_to_axis_angle(svdrot.exp_map(base, s * step)))
    assert (right - image(svdrot.so3_right_jacobian_inverse(principal)))[far].abs().max() < 1e-9


@pytest.mark.parametrize("name", ["so3_left_jacobian", "so3_left_jacobian_inverse"])
def test_second_derivatives_lose_no_digits_near_zero(name):
    """As closed forms do, eps / angle²: those in float32 are those in float64."""
    function = getattr(svdrot, name)
    for length in (1e-4, 1e-2, 0.1, 0.3, 0.99):
        v = (length * unit(normal(8, 3))).float()
        second = torch.func.vmap(torch.func.jacfwd(torch.func.jacrev(function)))
        assert (second(v) - second(v.double())).abs().max() < UNITS * 2.0**-23


def test_coefficients_are_those_of_taylor():
    mp = exact.mpmath
    for k in range(10):
        assert so3.A_SERIES[k] == pytest.approx(float((-1) ** k / mp.factorial(2 * k + 2)), rel=1e-15, abs=0)
        assert so3.B_SERIES[k] == pytest.approx(float((-1) ** k / mp.factorial(2 * k + 3)), rel=1e-15, abs=0)
    for k, value in enumerate(so3.C_SERIES, 1):
        assert value == pytest.approx(float(abs(mp.bernoulli(2 * k)) / mp.factorial(2 * k)), rel=1e-15, abs=0)


def test_the_logarithm_of_the_exponential_near_half_turns():
    """To rounding of the matrix: rotation vectors are right to some eps on either side."""
    axis = unit(normal(30, 3))
    for off in (0.0, 1e-15, 1e-12, 1e-8, 1e-4, 1e-1):
        v = axis * (math.pi - off)
        back = svdrot.matrix_to_axis_angle(svdrot.axis_angle_to_matrix(v))
        same = torch.minimum(
            (back - v).abs().amax(-1), (back + v * (math.pi + off) / (math.pi - off)).abs().amax(-1)
        )
        assert same.max() < 4 * UNITS * EPS


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", HARD)
def test_swing_and_twist_against_fifty_digits_and_their_laws(case, dtype):
    rotation = HARD[case].to(dtype)[:24]
    eps = torch.finfo(dtype).eps
    axis = normal(len(rotation), 3).to(dtype)
    swing, twist = svdrot.swing_twist(rotation, axis)
    assert svdrot.is_rotation(twist, tolerance=UNITS * eps).all()
    r, s, t, a = rotation.double(), swing.double(), twist.double(), unit(axis.double())
    assert (s @ t - r).abs().max() < UNITS * eps
    assert ((t @ a[:, :, None])[..., 0] - a).abs().max() < UNITS * eps
    assert (svdrot.vee(s) * a).sum(-1).abs().max() < UNITS * eps  # the swing turns about something across
    tilt = svdrot.angle_between(a, (r @ a[:, :, None])[..., 0])
    condition = (1 / (tilt / 2).cos()).tolist()
    truth = each(exact.swing_twist, rotation, axis)
    assert worst(torch.cat((swing.flatten(1), twist.flatten(1)), 1), truth, condition) < 2 * UNITS


def test_swing_and_twist_where_the_axis_is_turned_around():
    axis = unit(normal(20, 3))
    across = unit(torch.linalg.cross(axis, normal(20, 3, seed=1)))
    half = svdrot.axis_angle_to_matrix(math.pi * across).requires_grad_()
    one = torch.eye(3, dtype=torch.float64).expand(20, 3, 3)
    swing, twist = svdrot.swing_twist(half, axis)
    assert torch.allclose(twist, one, rtol=0, atol=1e-15) and torch.allclose(swing, half, rtol=0, atol=1e-15)
    (gradient,) = torch.autograd.grad((swing * normal(20, 3, 3)).sum(), half)
    assert gradient.isfinite().all()
    swing, twist = svdrot.swing_twist(half, 0 * axis)
    assert torch.equal(twist, one) and torch.equal(swing, half)
    assert svdrot.swing_twist(half, 0 * axis + math.nan)[0].isnan().all()


def davenport_axes(count: int) -> Tensor:
    """The second axis perpendicular to both others, of any lengths; the last ones those of Euler angles."""
    second, others = normal(count, 3), normal(count, 2, 3, seed=1)
    around = torch.linalg.cross(second[:, None].expand(-1, 2, -1), others)
    axes = torch.stack((around[:, 0], second, around[:, 1]), 1)
    axes[-2:] = torch.stack((torch.eye(3), torch.eye(3)[[2, 0, 2]])).double()
    return axes


@pytest.mark.skipif(not hasattr(Rotation, "as_davenport"), reason="needs SciPy 1.11")
@pytest.mark.parametrize("order", ["intrinsic", "extrinsic"])
def test_davenport_angles_are_those_of_scipy(order):
    rotation = Rotation.random(40, random_state=0)
    for axes in davenport_axes(12):
        found = svdrot.matrix_to_davenport(torch.from_numpy(rotation.as_matrix()), axes, order)
        expected = rotation.as_davenport(unit(axes).numpy(), order)
        assert np.abs(found.numpy() - expected).max() < 1e-12
        expected = Rotation.from_davenport(unit(axes).numpy(), order, found.numpy()).as_matrix()
        assert np.abs(svdrot.davenport_to_matrix(found, axes, order).numpy() - expected).max() < 1e-14


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", ["intrinsic", "extrinsic"])
def test_davenport_angles_reconstruct_everywhere(order, dtype):
    axes, eps = davenport_axes(16).to(dtype), torch.finfo(dtype).eps
    for matrix in HARD.values():
        matrix = matrix[:, None].to(dtype)
        angles = svdrot.matrix_to_davenport(matrix, axes, order)
        back = svdrot.davenport_to_matrix(angles, axes, order)
        assert (
            back - matrix
        ).abs().max() < 4 * UNITS * eps  # there and back, and axes that are not quite across
        assert (angles[..., ::2].abs() <= math.pi + UNITS * eps).all()


@pytest.mark.parametrize("order", ["intrinsic", "extrinsic"])
def test_davenport_angles_against_fifty_digits(order):
    angles, axes = normal(12, 3), davenport_axes(12)

    def product(t, n):
        turns = [exact.rotation(n[3 * k : 3 * k + 3], t[k]) for k in range(3)]
        a, b, c = turns if order == "intrinsic" else turns[::-1]
        return exact.flat(a * b * c)

    assert worst(svdrot.davenport_to_matrix(angles, axes, order), each(product, angles, axes), 3.0) < UNITS


@pytest.mark.parametrize("order", ["intrinsic", "extrinsic"])
def test_the_middle_angle_about_a_repeated_axis_is_in_zero_to_pi(order):
    """Whatever rounding says of the side on which the third axis is of the first."""
    axes = davenport_axes(50)
    axes[:, 2] = axes[:, 0]
    middle = svdrot.matrix_to_davenport(HARD["random"][:50], axes, order)[:, 1]
    assert (middle >= -UNITS * EPS).all() and (middle <= math.pi + UNITS * EPS).all()


def test_axes_that_are_not_perpendicular_and_locked_ones():
    matrix = HARD["random"][:4]
    axes = torch.eye(3, dtype=torch.float64).repeat(4, 1, 1)
    axes[1, 0, 1], axes[2, 2], axes[3, 2, 1] = 1e-10, 0, -1e-10
    for order in ("intrinsic", "extrinsic"):
        found = svdrot.matrix_to_davenport(matrix, axes, order)
        assert found.isnan().all(-1).tolist() == [False, True, True, True]
        back = svdrot.davenport_to_matrix(found[:1], axes, order)
        assert back.isnan().all((-2, -1)).tolist() == [False, True, True, True]
        turns = torch.tensor([0.4, math.pi / 2, 0.3], dtype=torch.float64)
        locked = svdrot.davenport_to_matrix(turns, axes[0], order)
        locked.requires_grad_()
        angles = svdrot.matrix_to_davenport(locked, axes[0], order)
        assert angles[2] == 0
        (gradient,) = torch.autograd.grad(angles.sum(), locked)
        assert gradient.abs().max() < 10
    half = svdrot.matrix_to_davenport(matrix.half(), [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
    assert half.dtype == torch.float16 and half.isfinite().all()
    with pytest.raises(ValueError, match="`order` must be one of intrinsic, extrinsic"):
        svdrot.matrix_to_davenport(matrix, axes, "moving")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`axes` must have shape"):
        svdrot.matrix_to_davenport(matrix, [[1.0, 0.0, 0.0]])


AXES = davenport_axes(3)[0]
AXIS = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
OF_A_VECTOR = {
    "left": svdrot.so3_left_jacobian,
    "right": svdrot.so3_right_jacobian,
    "left inverse": svdrot.so3_left_jacobian_inverse,
    "right inverse": svdrot.so3_right_jacobian_inverse,
    "swing": lambda v: svdrot.swing_twist(svdrot.axis_angle_to_matrix(v), AXIS.to(v))[0],
    "twist": lambda v: svdrot.swing_twist(svdrot.axis_angle_to_matrix(v), AXIS.to(v))[1],
    "axis": lambda v: svdrot.swing_twist(svdrot.axis_angle_to_matrix(AXIS.to(v)), v)[0],
    "davenport": lambda v: svdrot.davenport_to_matrix(v, AXES.to(v)),
    "from davenport": lambda v: svdrot.matrix_to_davenport(
        svdrot.axis_angle_to_matrix(v), AXES.to(v), "extrinsic"
    ),
}


@pytest.mark.parametrize("name", OF_A_VECTOR)
def test_derivatives_are_those_of_differences(name):
    along = unit(normal(3, 3, seed=5))
    lengths = torch.tensor([[0.999], [1.001], [3.0]])
    v = torch.cat((normal(4, 3, seed=6), lengths * along, torch.full((1, 3), 1e-3))).requires_grad_()
    assert torch.autograd.gradcheck(OF_A_VECTOR[name], v, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(OF_A_VECTOR[name], v)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OF_A_VECTOR)
def test_two_derivatives_are_finite_at_singular_places(name, dtype):
    across = torch.tensor([2.0, 1.0, 0.0]).double()
    v = torch.stack(
        (0 * AXIS, 1e-15 * AXIS, unit(AXIS), math.pi * unit(AXIS), math.pi * unit(across), across, -AXIS)
    )
    v = v.to(dtype).requires_grad_()
    value = OF_A_VECTOR[name](v)
    assert value.isfinite().all()
    (first,) = torch.autograd.grad((value * normal(*value.shape).to(dtype)).sum(), v, create_graph=True)
    (second,) = torch.autograd.grad((first * normal(*first.shape, seed=1).to(dtype)).sum(), v)
    assert first.isfinite().all() and second.isfinite().all()
