"""Geodesics and curves: what they pass through, how fast, and that no choice of frame changes them."""

import math

import pytest
import torch
from rotation_cases import HARD
from scipy.spatial.transform import Rotation, Slerp

from svdrot.interpolation import exp_map, interpolate_rotations, log_map, slerp
from svdrot.metrics import geodesic_distance
from svdrot.representations import axis_angle_to_matrix
from svdrot.rotations import is_rotation, random_rotation

# A few roundings of each of the two or, for curves, six geodesics.
ENTRY = {torch.float32: 4e-6, torch.float64: 8e-15}
each_dtype = pytest.mark.parametrize("dtype", ENTRY, ids=str)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0, dtype=torch.float64):
    return random_rotation(*shape, dtype=dtype, generator=seeded(seed))


def path(n=6, seed=3, dtype=torch.float64):
    """Knots at most a radian or so apart."""
    steps = axis_angle_to_matrix(torch.randn(n, 3, dtype=torch.float64, generator=seeded(seed)) * 0.6)
    knots = [steps[0]]
    for step in steps[1:]:
        knots.append(knots[-1] @ step)
    return torch.stack(knots).to(dtype)


TIMES = torch.tensor([0, 0.3, 1, 1.2, 2, 4], dtype=torch.float64)


@each_dtype
@pytest.mark.parametrize("case", HARD)
def test_logarithm_and_exponential_are_inverse(case, dtype):
    a, b = HARD[case].to(dtype), HARD["random"][: len(HARD[case])].to(dtype)
    for base, other in ((a, b), (b, a), (a, a), (torch.eye(3, dtype=dtype), a)):
        vector = log_map(base, other)
        torch.testing.assert_close(
            exp_map(base, vector), other.expand_as(base @ other), rtol=0, atol=ENTRY[dtype]
        )
        torch.testing.assert_close(
            vector.norm(dim=-1), geodesic_distance(base, other), rtol=0, atol=ENTRY[dtype]
        )


@each_dtype
@pytest.mark.parametrize("case", HARD)
def test_geodesics_are_those_of_scipy(case, dtype):
    a, b = HARD[case][:20].to(dtype), HARD["random"][: len(HARD[case][:20])].to(dtype)
    for share in (0.0, 0.25, 1.0):
        ours = slerp(a, b, share)
        assert is_rotation(ours).all()
        for i in range(len(a)):
            ends = Rotation.from_matrix(torch.stack((a[i], b[i])).double().numpy())
            theirs = torch.from_numpy(Slerp([0, 1], ends)(share).as_matrix())
            torch.testing.assert_close(ours[i].double(), theirs, rtol=0, atol=ENTRY[dtype])


@each_dtype
@pytest.mark.parametrize("case", HARD)
def test_derivatives_are_finite_everywhere(case, dtype):
    a, b = HARD[case].to(dtype), HARD["random"][: len(HARD[case])].to(dtype)
    half_turn = torch.diag(torch.tensor([1.0, -1, -1], dtype=dtype))
    weight = torch.randn(3, 3, dtype=dtype, generator=seeded())
    for other in (a, b, a @ half_turn):
        x, y = a.clone().requires_grad_(), other.clone().requires_grad_()
        t = torch.full((len(a),), 0.3, dtype=dtype, requires_grad=True)
        knots = torch.stack((x, y, x), -3)
        at = torch.tensor([0, 0.4, 1, 2], dtype=dtype, requires_grad=True)
        for value in (slerp(x, y, t), interpolate_rotations(knots, at), log_map(x, y)):
            assert value.isfinite().all()
            loss = (value * weight[: value.shape[-2], :]).sum() if value.ndim > 2 else value.sum()
            for gradient in torch.autograd.grad(loss, (x, y, t, at), allow_unused=True):
                assert gradient is None or gradient.isfinite().all()


def test_a_geodesic_has_constant_velocity_and_goes_on():
    a, b = drawn(1, 8), drawn(1, 8, seed=1)
    share = torch.linspace(-1, 2, 13, dtype=torch.float64)[:, None]
    curve = slerp(a, b, share)
    steps = log_map(curve[:-1], curve[1:])
    torch.testing.assert_close(steps, (log_map(a, b) / 4).expand_as(steps))


@each_dtype
def test_curves_pass_through_their_knots(dtype):
    knots = path(dtype=dtype)
    for times in (None, TIMES.to(dtype)):
        at = torch.arange(6, dtype=dtype) if times is None else times
        curve = interpolate_rotations(knots, at, times)
        torch.testing.assert_close(curve, knots, rtol=0, atol=10 * ENTRY[dtype])
    between = interpolate_rotations(knots, torch.linspace(0, 4, 101, dtype=dtype), TIMES.to(dtype))
    assert is_rotation(between, tolerance=100 * torch.finfo(dtype).eps).all()


def test_curves_have_no_kinks():
    """The velocity jumps at no knot; that of geodesics does."""
    knots, h = path(), 1e-5

    def velocity(curve, t):
        return log_map(*curve(torch.tensor([t, t + h], dtype=torch.float64))) / h

    def smooth(at):
        return interpolate_rotations(knots, at, TIMES)

    for i in range(1, 5):
        t = TIMES[i].item()
        before, after = velocity(smooth, t - h), velocity(smooth, t)
        assert (before - after).norm() < 1e-2
        turn = log_map(knots[i - 1], knots[i]) / (TIMES[i] - TIMES[i - 1])
        assert (turn - log_map(knots[i], knots[i + 1]) / (TIMES[i + 1] - TIMES[i])).norm() > 0.3


def test_steady_turns_are_reproduced_and_two_knots_give_the_geodesic():
    axis = torch.tensor([1.0, -2, 0.5], dtype=torch.float64) / 3
    start = drawn()
    at = torch.linspace(0, 4, 33, dtype=torch.float64)
    knots = exp_map(start, axis * TIMES[:, None])
    torch.testing.assert_close(interpolate_rotations(knots, at, TIMES), exp_map(start, axis * at[:, None]))
    a, b = drawn(2, seed=1)
    share = torch.linspace(0, 1, 9, dtype=torch.float64)
    curve = interpolate_rotations(torch.stack((a, b)), share)
    torch.testing.assert_close(curve, slerp(a, b, share))


def test_curves_turn_with_their_knots_and_run_backwards():
    knots, q = path(), drawn(2, seed=5)
    at = torch.linspace(0, 4, 17, dtype=torch.float64)
    curve = interpolate_rotations(knots, at, TIMES)
    turned = interpolate_rotations(q[0] @ knots @ q[1], at, TIMES)
    torch.testing.assert_close(turned, q[0] @ curve @ q[1])
    backwards = interpolate_rotations(knots.flip(0), -at, -TIMES.flip(0))
    torch.testing.assert_close(backwards, curve)


def test_a_curve_is_closer_to_a_smooth_motion_than_geodesics():
    """Knots of a smooth motion: the error falls with the cube of the step, that of geodesics with the
    square."""

    def motion(t):
        angles = torch.stack((t.sin(), (1.3 * t).cos(), 0.5 * t), -1)
        return axis_angle_to_matrix(angles)

    at = torch.linspace(0, 6, 400, dtype=torch.float64)
    errors = []
    for n in (13, 25, 49):
        steps = 1 + 2 * (torch.arange(n, dtype=torch.float64) % 2)  # uneven: 3 after 1
        times = 6 * (steps.cumsum(0) - 1) / (steps.sum() - 1)
        curve = interpolate_rotations(motion(times), at, times)
        errors.append(geodesic_distance(curve, motion(at)).max())
    assert errors[1] < errors[0] / 5 and errors[2] < errors[1] / 5
    assert errors[2] < 1e-3


def test_outside_of_the_knots_is_nan_and_bad_knots_stay_local():
    knots = path()
    at = torch.tensor([-0.1, 0, 4, 4.1], dtype=torch.float64)
    curve = interpolate_rotations(knots, at, TIMES)
    assert curve.isnan().all((-2, -1)).tolist() == [True, False, False, True]
    spoiled = knots.clone()
    spoiled[0, 1, 1] = torch.nan
    at = torch.tensor([0.1, 1.1, 3.0], dtype=torch.float64)
    curve = interpolate_rotations(spoiled, at, TIMES)
    assert curve.isnan().any((-2, -1)).tolist() == [True, False, False]
    torch.testing.assert_close(curve[1:], interpolate_rotations(knots, at, TIMES)[1:])


def test_batches_transforms_and_precisions():
    knots = torch.stack((path(), path(seed=8)))
    at = torch.linspace(0, 5, 7, dtype=torch.float64)
    curve = interpolate_rotations(knots, at)
    for single, expected in zip(knots, curve, strict=True):
        torch.testing.assert_close(interpolate_rotations(single, at), expected)
    torch.testing.assert_close(torch.func.vmap(lambda k: interpolate_rotations(k, at))(knots), curve)
    compiled = torch.compile(interpolate_rotations, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(knots, at), curve)
    assert interpolate_rotations(knots.half(), at.half()).dtype == torch.float16
    assert slerp(knots.bfloat16(), knots.bfloat16(), 0.5).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        low = interpolate_rotations(knots.float(), at.float())
    torch.testing.assert_close(low, curve.float(), rtol=0, atol=1e-5)
    assert exp_map(knots.float(), torch.zeros(3)).dtype == torch.float32
    assert torch.autograd.gradcheck(
        lambda k: interpolate_rotations(k, at), knots.requires_grad_(), fast_mode=True
    )


@pytest.mark.parametrize("times", [[4.0, 3, 2, 1, 0], [0.0, 1, 1, 2, 4]])
def test_times_that_do_not_ascend_have_no_curve(times):
    knots = random_rotation(5, generator=torch.Generator().manual_seed(0))
    assert interpolate_rotations(knots, torch.linspace(0, 4, 9), torch.tensor(times)).isnan().all()


def test_wrong_arguments_are_named():
    eye, at = torch.eye(3), torch.zeros(2)
    with pytest.raises(ValueError, match=r"`rotations` must have shape \(\.\.\., N, 3, 3\) with N >= 2"):
        interpolate_rotations(eye, at)
    with pytest.raises(ValueError, match=r"`at` must have shape \(T,\); got \(2, 2\)"):
        interpolate_rotations(eye.expand(4, 3, 3), torch.zeros(2, 2))
    with pytest.raises(
        ValueError, match=r"`times` must have shape \(4,\), as many as `rotations`; got \(3,\)"
    ):
        interpolate_rotations(eye.expand(4, 3, 3), at, torch.arange(3.0))
    with pytest.raises(ValueError, match=r"`vector` must have shape \(\.\.\., 3\); got \(2,\)"):
        exp_map(eye, at)
    with pytest.raises(ValueError, match="`end` must have shape"):
        slerp(eye, at, 0.5)
    for bad in ((None, eye), (eye, [1.0])):
        with pytest.raises(TypeError, match=r"`(start|end)` must be a tensor"):
            slerp(*bad, 0.5)
    with pytest.raises(TypeError, match="`share` must be floating point"):
        slerp(eye, eye, torch.tensor(1))
    with pytest.raises(TypeError, match="`share` must be a tensor or a number; got list"):
        slerp(eye, eye, [0.5])  # pyright: ignore[reportArgumentType]
    four = eye.expand(4, 3, 3)
    for call in (
        lambda: slerp(four, four[:3], 0.5),
        lambda: slerp(four, eye, torch.rand(3)),
        lambda: log_map(four, four[:3]),
        lambda: exp_map(four, torch.zeros(3, 3)),
    ):
        with pytest.raises(ValueError, match=r"must broadcast; got \(4,\) of `\w+`, .*\(3,\) of `\w+`"):
            call()
    assert math.isclose(log_map(eye, eye).norm().item(), 0)


def test_times_outside_have_no_part_in_gradients():
    knots = random_rotation(4, dtype=torch.float64).requires_grad_()
    found = interpolate_rotations(knots, torch.tensor([0.5, 9.0, math.nan], dtype=torch.float64))
    assert found[0].isfinite().all() and found[1:].isnan().all()
    alone = interpolate_rotations(knots, torch.tensor([0.5], dtype=torch.float64))
    pair = [torch.autograd.grad(x[0].sum(), knots)[0] for x in (found, alone)]
    torch.testing.assert_close(*pair)
    shares = torch.tensor([0.5, math.nan, math.inf], dtype=torch.float64)
    turned = slerp(knots[0], knots[1], shares)
    assert turned[0].isfinite().all() and turned[1:].isnan().all()
    assert torch.autograd.grad(turned[0].sum(), knots)[0].isfinite().all()


def test_many_knots_at_times_of_half_precision():
    knots = random_rotation(300)
    found = interpolate_rotations(knots, torch.tensor([5.5, 256.0], dtype=torch.bfloat16))
    torch.testing.assert_close(found[1], knots[256])
    assert found.isfinite().all()
