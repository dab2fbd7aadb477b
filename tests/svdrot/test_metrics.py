"""Distances between rotations: known angles, invariance, and derivatives at 0 and pi."""

import pytest
import torch
from rotation_cases import HARD
from scipy.spatial.transform import Rotation

from svdrot.metrics import chordal_distance, geodesic_distance
from svdrot.representations import axis_angle_to_matrix

# torch.func and forward-mode AD import torch's own decompositions, which still call torch.jit.script (2.13).

# Radians, over the whole range: 4 eps at worst from the metric, 6 more from the rounding of two rotations.
ANGLE = {torch.float32: 1.2e-6, torch.float64: 2.3e-15}
METRICS = [geodesic_distance, chordal_distance]
each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)
each_dtype = pytest.mark.parametrize("dtype", ANGLE, ids=str)


def directions(count, dtype=torch.float64):
    v = torch.randn(count, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return v / v.norm(dim=-1, keepdim=True)


def largest(difference):
    return difference.abs().max().item()


@each_dtype
@pytest.mark.parametrize("case", HARD)
def test_geodesic_distance_is_the_angle_of_the_relative_rotation(case, dtype):
    a, b = HARD[case].to(dtype), HARD["random"][: len(HARD[case])].to(dtype)
    eye = torch.eye(3, dtype=dtype)
    for first, second in ((a, b), (b, a), (a, eye), (a, a)):
        relative = first.double().mT @ second.double().expand_as(first)
        truth = torch.from_numpy(Rotation.from_matrix(relative.numpy()).magnitude())
        assert largest(geodesic_distance(first, second) - truth) < ANGLE[dtype]


@each_dtype
def test_small_angles_keep_their_digits(dtype):
    """Relative error: acos((tr Q - 1) / 2) has none right below sqrt(eps)."""
    angle = torch.logspace(-18, 0, 200, dtype=torch.float64)
    matrix = axis_angle_to_matrix(directions(200) * angle[:, None]).to(dtype)
    distance = geodesic_distance(torch.eye(3, dtype=dtype), matrix).double()
    assert largest(distance / angle - 1) < ANGLE[dtype]


@each_dtype
def test_distances_are_metrics_that_no_rotation_changes(dtype):
    a, b, c = (HARD[case][:48].to(dtype) for case in ("random", "near_half_turn", "small"))
    for metric in METRICS:
        assert largest(metric(a, b) - metric(b, a)) < ANGLE[dtype]
        assert (metric(a, c) <= metric(a, b) + metric(b, c) + ANGLE[dtype]).all()
        assert largest(metric(c @ a, c @ b) - metric(a, b)) < 4 * ANGLE[dtype]
        assert largest(metric(a @ c, b @ c) - metric(a, b)) < 4 * ANGLE[dtype]
    assert (chordal_distance(a, a) == 0).all()


@each_dtype
@pytest.mark.parametrize("case", HARD)
def test_chordal_distance_is_a_sine_of_half_the_angle(case, dtype):
    a, b = HARD[case].to(dtype), HARD["random"][: len(HARD[case])].to(dtype)
    expected = 2 * 2**0.5 * (geodesic_distance(a, b) / 2).sin()
    assert largest(chordal_distance(a, b) - expected) < 2 * ANGLE[dtype]


def turned(axis, angle):
    return axis_angle_to_matrix(axis * angle[..., None])


@each_dtype
def test_distance_grows_at_unit_speed_along_a_geodesic(dtype):
    """d/dt angle(I, exp(t axis)) = 1 right up to half a turn and -1 right after it, for every axis."""
    # The slope is the inner product of two axes: of the relative rotation, known to eps / (pi - t), and of
    # the motion. At 1e-3 from pi that is a thousand roundings.
    offset = torch.logspace(-3, 0.4, 50, dtype=torch.float64)
    axis, eye = directions(50).to(dtype), torch.eye(3, dtype=dtype)
    for angle, slope in ((offset, 1), (torch.pi - offset, 1), (torch.pi + offset, -1)):
        t = angle.to(dtype).requires_grad_()
        (speed,) = torch.autograd.grad(geodesic_distance(eye, turned(axis, t)).sum(), t)
        assert largest(speed - slope) < 1000 * ANGLE[dtype]
        t = angle.to(dtype).requires_grad_()
        (speed,) = torch.autograd.grad(chordal_distance(eye, turned(axis, t)).sum(), t)
        assert largest(speed - 2**0.5 * (t.detach() / 2).cos()) < 10 * ANGLE[dtype]


@each_dtype
@each_metric
def test_gradients_are_finite_and_bounded_everywhere(metric, dtype):
    for case, matrix in HARD.items():
        a = matrix.to(dtype, copy=True).requires_grad_()
        for b in (torch.eye(3, dtype=dtype), matrix.to(dtype), HARD["half_turn_about_axes"][:1].to(dtype)):
            (gradient,) = torch.autograd.grad(metric(a, b).sum(), a)
            assert gradient.isfinite().all(), case
            # |d angle| = |dR| / sqrt(2) along the rotations; atan2 adds as much across them near pi.
            assert gradient.flatten(1).norm(dim=-1).max() < 1.5, case


@each_dtype
def test_gradient_is_zero_where_there_is_no_direction(dtype):
    eye = torch.eye(3, dtype=dtype)
    for b in (eye, *HARD["half_turn_about_axes"].to(dtype)):
        a = eye.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(geodesic_distance(a, b), a)
        assert torch.equal(gradient, torch.zeros_like(a))
    a = eye.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(chordal_distance(a, eye), a)
    assert torch.equal(gradient, torch.zeros_like(a))


@each_dtype
@each_metric
def test_second_derivatives_are_finite_everywhere(metric, dtype):
    for case, matrix in HARD.items():
        hessian = torch.func.vmap(torch.func.hessian(metric), in_dims=(0, None))
        assert hessian(matrix.to(dtype), torch.eye(3, dtype=dtype)).isfinite().all(), case
        twice = torch.func.jacrev(torch.func.jacrev(metric))
        assert twice(matrix[0].to(dtype), matrix[0].to(dtype)).isfinite().all(), case


@each_metric
def test_derivatives(metric):
    a = torch.cat((HARD["random"][:2], HARD["small"][-1:], HARD["near_half_turn"][-1:])).requires_grad_()
    b = torch.eye(3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(metric, (a, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(metric, (a, b))


@each_metric
def test_half_precision_and_autocast(metric):
    a, b = HARD["random"][:32], HARD["random"][32:]
    for dtype in (torch.float16, torch.bfloat16):
        low_a, low_b = a.to(dtype), b.to(dtype)
        exact = metric(low_a.double(), low_b.double())
        assert metric(low_a, low_b).dtype == dtype
        assert torch.equal(metric(low_a, low_b), metric(low_a.float(), low_b.float()).to(dtype))
        assert largest(metric(low_a, low_b.float()) - exact) < ANGLE[torch.float32]
        assert metric(low_a, b).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert metric(low_a, low_b).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert largest(metric(a.float(), b.float()) - metric(a, b)) < ANGLE[torch.float32]


@each_metric
def test_batch_shapes(metric):
    a, b = HARD["random"][:4], HARD["small"][:3]
    table = metric(a[:, None], b)
    assert table.shape == (4, 3)
    assert torch.equal(table[2, 1], metric(a[2], b[1]))
    assert metric(a[:0], b[0]).shape == (0,)
    assert torch.equal(torch.func.vmap(metric, in_dims=(0, None))(a, b[0]), table[:, 0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@each_metric
def test_a_bad_element_is_nan_alone(metric, bad):
    a, b = HARD["random"][:4], torch.eye(3, dtype=torch.float64)
    for position in range(9):
        broken = a.clone()
        broken[1].view(-1)[position] = bad
        broken.requires_grad_()
        distance = metric(broken, b)
        (gradient,) = torch.autograd.grad(distance.sum(), broken)
        assert distance.isnan().tolist() == [False, True, False, False]
        assert torch.equal(distance[[0, 2, 3]], metric(a, b)[[0, 2, 3]])
        assert gradient[[0, 2, 3]].isfinite().all()


def test_geodesic_distance_compiles_whole():
    a, b = HARD["random"][:4].clone().requires_grad_(), torch.eye(3, dtype=torch.float64)
    distance = torch.compile(geodesic_distance, fullgraph=True, backend="aot_eager")(a, b)
    assert torch.equal(distance, geodesic_distance(a, b))
    ours, theirs = (torch.autograd.grad(d.sum(), a)[0] for d in (distance, geodesic_distance(a, b)))
    torch.testing.assert_close(ours, theirs)


@each_metric
def test_wrong_arguments_are_named(metric):
    eye = torch.eye(3)
    with pytest.raises(ValueError, match=r"`a` must have shape \(\.\.\., 3, 3\); got \(3, 2\)"):
        metric(eye[:, :2], eye)
    with pytest.raises(ValueError, match=r"`b` must have shape \(\.\.\., 3, 3\); got \(9,\)"):
        metric(eye, eye.flatten())
    with pytest.raises(TypeError, match="`b` must be floating point"):
        metric(eye, eye.long())
