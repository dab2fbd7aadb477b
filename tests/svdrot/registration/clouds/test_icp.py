"""ICP: the motion it finds, what it says where there is none to find, and its gradients."""

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

import svdrot
from svdrot.registration import KERNELS, Transform, kabsch
from svdrot.registration._motions import MOTIONS, Limits
from svdrot.registration.clouds import _steps
from svdrot.registration.clouds._clouds import Clouds
from svdrot.registration.clouds.icp import METHODS, Status, evaluate, icp
from svdrot.registration.clouds.surfaces import estimate_normals, plane_covariances
from svdrot.rotations import random_rotation

DATA = Path(__file__).parents[5] / "shared/data/registration"
double = {"dtype": torch.float64}
LIMITED = [("none", "planar"), ("tukey", "yaw")]
KINDS = ["yaw", "planar"]
AXES = {"z": None, "oblique": torch.tensor([1.0, -2.0, 3.0], **double)}
ROUNDING = 1e-13  # of tens of steps; measured: 1e-15


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def surface(n=1500, seed=0):
    """Points and normals of a bumpy closed surface without symmetry, about 2 across."""
    u = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator(seed), **double), dim=-1)

    def height(u):
        x, y, z = u.unbind(-1)
        return 1 + 0.25 * x * y + 0.2 * torch.sin(3 * z) + 0.15 * torch.cos(2 * x + y)

    with torch.enable_grad():
        u = u.requires_grad_()
        (slope,) = torch.autograd.grad(height(u).sum(), u)
        r = height(u).detach()[:, None]
        u = u.detach()
    slope = slope - (slope * u).sum(-1, keepdim=True) * u
    return r * u, torch.nn.functional.normalize(u - slope / r, dim=-1)


def motion(angle=0.1, length=0.05, seed=0, *batch):
    axis = torch.nn.functional.normalize(torch.randn(*batch, 3, generator=generator(seed), **double), dim=-1)
    shift = torch.nn.functional.normalize(
        torch.randn(*batch, 3, generator=generator(seed + 1), **double), dim=-1
    )
    one = torch.ones(batch, **double)
    return Transform(svdrot.axis_angle_to_matrix(angle * axis), length * shift, one)


def errors(found, truth):
    angle = svdrot.geodesic_distance(found.rotation.double(), truth.rotation)
    return angle, (found.translation.double() - truth.translation).norm(dim=-1)


def assert_found(found, truth, angle, length=None):
    a, l = errors(found, truth)
    assert (a <= angle).all() and (l <= (length or angle)).all(), (a, l)


# What it finds.


@pytest.mark.parametrize("method", METHODS)
def test_the_same_points_moved_are_brought_back_exactly(method):
    source, _ = surface()
    truth = motion()
    result = icp(source, truth.apply(source), max_distance=0.5, method=method, max_iterations=100)
    assert result.converged and result.reasons == ["converged"]
    assert result.fitness == 1 and result.rmse < 1e-9
    assert_found(result.transform, truth, 1e-9)
    assert result.correspondences.tolist() == list(range(len(source)))


@pytest.mark.parametrize("method", METHODS[1:])
def test_other_points_of_the_same_surface(method):
    """Planes slide where points stick: given the normals, other samples of the surface do as well."""
    (source, p), (target, q), truth = surface(), surface(3000, seed=7), motion()
    moved = truth.apply(target)
    result = icp(
        source,
        moved,
        max_distance=0.3,
        method=method,
        source_normals=p,
        target_normals=q @ truth.rotation.mT,
    )
    point_to_point = icp(source, moved, max_distance=0.3, method="point_to_point")
    assert result.converged
    assert_found(result.transform, truth, 4e-3)
    assert errors(result.transform, truth)[0] < errors(point_to_point.transform, truth)[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_points_in_memory_does_not_matter(method):
    """Rows of coordinates, transposed: as many keep their clouds."""
    (target, _), source = surface(400), motion().inverse().apply(surface(400)[0])
    columns = [x.T.contiguous().T for x in (source, target)]
    options = {"max_distance": 0.5, "method": method, "max_iterations": 3}
    found, wanted = icp(*columns, **options), icp(source, target, **options)
    torch.testing.assert_close(found.transform.matrix, wanted.transform.matrix, rtol=0, atol=1e-12)
    assert torch.equal(found.correspondences, wanted.correspondences)


@pytest.mark.parametrize("method", METHODS)
def test_an_exact_start_stays(method):
    source, _ = surface(300)
    truth = motion(1.0, 3.0)
    result = icp(source, truth.apply(source), init=truth, max_distance=0.5, method=method)
    assert result.converged and result.iterations == 1
    assert_found(result.transform, truth, 1e-12)
    matrix = icp(source, truth.apply(source), init=truth.matrix, max_distance=0.5, method=method)
    assert_found(matrix.transform, truth, 1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-20, 1, 1e12])
def test_units_and_frames_change_nothing(method, scale):
    source, _ = surface(600)
    target, _ = surface(900, seed=5)
    frame = motion(2.0, 1.0, seed=4)
    options = {"method": method, "max_iterations": 8, "angle_tolerance": 0.0}
    plain = icp(source, target, max_distance=0.4, **options)
    there = icp(
        scale * source,
        scale * frame.apply(target),
        init=frame_of(frame, scale),
        max_distance=0.4 * scale,
        **options,
    )
    expected = frame @ plain.transform
    assert_found(there.transform, frame_of(expected, scale), 1e-7, 1e-7 * scale)
    torch.testing.assert_close(there.fitness, plain.fitness)
    torch.testing.assert_close(there.rmse, scale * plain.rmse, rtol=1e-6, atol=0)


def frame_of(transform, scale):
    return Transform(transform.rotation, scale * transform.translation, transform.scale)


@pytest.mark.parametrize("method", METHODS)
def test_far_from_the_origin(method):
    source, _ = surface(600)
    truth = motion()
    away, there = torch.tensor([1e6, -2e6, 1e6], **double), torch.tensor([-1e6, 1e6, 3e6], **double)
    init = Transform(torch.eye(3, **double), there - away, torch.ones((), **double))
    result = icp(source + away, truth.apply(source) + there, init=init, max_distance=0.5, method=method)
    assert result.converged
    moved = result.transform.apply(source + away)
    assert (moved - truth.apply(source) - there).norm(dim=-1).max() < 1e-8


def test_a_scale_of_the_start_is_kept():
    source, _ = surface(600)
    truth = motion()
    init = Transform(torch.eye(3, **double), torch.zeros(3, **double), torch.tensor(2.0, **double))
    result = icp(source / 2, truth.apply(source), init=init, max_distance=0.5)
    assert result.transform.scale == 2
    assert (result.transform.apply(source / 2) - truth.apply(source)).abs().max() < 1e-8
    torch.testing.assert_close(result.source, source / 2)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_a_minimum(method):
    """No small motion lowers the weighted sum of squares, to first order, for the pairs of the last step."""
    source, _ = surface(400)
    target, _ = surface(700, seed=3)
    weights = torch.rand(400, generator=generator(), **double)
    result = icp(source, target, max_distance=0.5, method=method, weights=weights, max_iterations=200)
    assert result.converged
    p, q = estimate_normals(source), estimate_normals(target)

    def cost(omega, u):
        e = svdrot.axis_angle_to_matrix(omega)
        moved = (result.transform.apply(source)) @ e.mT + u
        rotation = e @ result.transform.rotation
        i = result.correspondences
        live = i < len(target)
        i = i.clamp(max=len(target) - 1)
        d, n, m = moved - target[i], p @ rotation.mT, q[i]
        if method == "point_to_point":
            square = d.square().sum(-1)
        elif method == "point_to_plane":
            square = (d * m).sum(-1) ** 2
        elif method == "symmetric":
            n = p @ result.transform.rotation.mT  # of both halves of the turn, to first order
            square = (d * (torch.where((n * m).sum(-1, keepdim=True) < 0, -n, n) + m)).sum(-1) ** 2
        else:
            n = p @ result.transform.rotation.mT
            c = 2 * torch.eye(3, **double) - 0.999 * (n[:, :, None] * n[:, None] + m[:, :, None] * m[:, None])
            square = (d * torch.linalg.solve(c, d)).sum(-1)
        return (weights * live * square).sum()

    zero = torch.zeros(3, **double)
    least = cost(zero, zero)
    for seed in range(20):
        omega, u = 1e-3 * torch.randn(2, 3, generator=generator(seed), **double)
        assert cost(omega, u) + cost(-omega, -u) > 2 * least
        slope = (cost(omega, u) - cost(-omega, -u)).abs()
        # Symmetric pairs turn half as far: its minimum differs to second order in the residuals.
        assert slope < (0.2 if method == "symmetric" else 2e-2) * (
            cost(omega, u) + cost(-omega, -u) - 2 * least
        )


@pytest.mark.parametrize("far", [0.0, 1e3])
@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("method", METHODS)
def test_kernels_take_the_steps_of_tensors(method, motion, far):
    """Of two items in three segments, with missing neighbors and weights, about another origin."""
    row = _steps.METHODS[method]
    n, m = 2 * _steps.SEGMENT + 100, 3000
    offset = torch.tensor([far, -far, far], **double)
    (x, a), (y, b) = surface(n), surface(m, seed=1)
    turn = random_rotation(2, generator=generator(3), **double)
    translation = torch.randn(2, 3, generator=generator(8), **double)
    indices = torch.randint(0, m + 300, (2, n), generator=generator(4)).clamp(max=m)
    found = indices < m
    weights = torch.rand(2, n, generator=generator(5), **double).round(decimals=1)
    counts = (torch.rand(2, m, generator=generator(6), **double) > 0.1).double()
    points, items = torch.stack((y, 2 * y)) + offset, torch.tensor([1, 0])
    chosen = points[items[:, None], indices.clamp(max=m - 1)]
    # Pairs of random points are no pairs: the source is put near the target.
    source = torch.where(found[..., None], chosen + 0.1 * x, torch.nan)
    normals = b.expand(2, m, 3).contiguous()
    forms = {
        None: lambda v: None,
        "normals": lambda v: v,
        "covariances": lambda v: _steps.pack(plane_covariances(v)),
    }
    own, theirs = forms[row.source](a.expand(2, n, 3)), forms[row.target](normals)
    origin = torch.randn(2, 3, generator=generator(7), **double) + offset
    axes = torch.nn.functional.normalize(torch.randn(2, 3, generator=generator(9), **double), dim=-1)
    limits = None if motion == "free" else Limits(motion, axes)
    given = (row, source, indices, weights, items, turn, translation, origin, points, counts, own, theirs)
    taken, given, residuals = _steps.take(*given, limits=limits)
    at = (items[:, None], indices.clamp(max=m - 1))
    turned = {None: None, "normals": a @ turn.mT}.get(row.source, None)
    pairs = _steps.Pairs(
        torch.where(found[..., None], source, 0),
        chosen,
        weights * found * counts[at],
        turned,
        theirs[at] if row.target == "normals" else None,
        _steps.turn_packed(turn, own) if row.source == "covariances" else None,
        theirs[at] if row.target == "covariances" else None,
        limits,
    )
    distances = torch.where(found, (source - chosen).norm(dim=-1), torch.inf)
    wanted = _steps.take_of_pairs(row, pairs, distances, turn, translation)
    sizes = torch.where(pairs.weights > 0, row.residual(pairs).abs(), torch.inf)
    torch.testing.assert_close(residuals, sizes, rtol=1e-9 * (1 + far), atol=1e-12 * (1 + far))
    assert torch.equal(given, weights)
    assert taken.enough.all() and taken.finite.all() and wanted.enough.all()
    assert (wanted.angle > (1e-3 if motion == "free" else 5e-5)).all()
    for field in fields(wanted):
        found, exact = (getattr(x, field.name).double() for x in (taken, wanted))
        # Of coordinates about 1 both ways lose what the coordinates far from the origin do.
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12 * (1 + far) * exact.abs().max())


def test_large_steps_of_kernels():
    """Turns by a radian and more, from one normal equation: the exponential beyond its polynomials."""
    source, _ = surface(500)
    pivot = source.mean(0)
    radius = (source - pivot).square().sum(-1).mean().sqrt()
    for size in (1e-9, 0.3, 1.0, 3.0):
        omega = size * torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5], **double), dim=0)
        d = -torch.linalg.cross(omega.expand(500, 3), source - pivot)
        row, eye = _steps.METHODS["generalized"], torch.eye(3, **double)
        cloud = (source - d)[
            None
        ]  # covariances are the same in all directions: the linear problem's least squares
        isotropic = _steps.pack(eye.expand(1, 500, 3, 3)).contiguous()
        taken, *_ = _steps.take(
            row,
            source[None],
            torch.arange(500)[None],
            torch.ones(1, 500, **double),
            torch.tensor([0]),
            eye[None],
            torch.zeros(1, 3, **double),
            torch.zeros(1, 3, **double),
            cloud,
            torch.ones(1, 500, **double),
            isotropic,
            isotropic,
        )
        wanted = svdrot.axis_angle_to_matrix(omega)
        torch.testing.assert_close(taken.rotation[0], wanted, rtol=0, atol=1e-13)
        torch.testing.assert_close(taken.radius[0], radius)


def test_the_same_in_every_run_and_with_two_threads():
    source, _ = surface(40_000)
    target = motion(0.02, 0.01).apply(surface(40_000, seed=1)[0])
    options = {"max_distance": 0.1, "max_iterations": 3}
    plain, again = (icp(source, target, **options).transform.matrix for _ in range(2))
    torch.set_num_threads(2)
    threaded = icp(source, target, **options).transform.matrix
    assert torch.equal(plain, again)
    torch.testing.assert_close(threaded, plain, rtol=0, atol=1e-14)


# Robust kernels.


@pytest.mark.parametrize("kernel", ["none", "trimmed", *KERNELS])
def test_outliers(kernel):
    """A fifth of the target is displaced: all kernels come closer than none, and redescending ones close."""
    source, _ = surface(1500)
    truth = motion(0.05, 0.03)
    target = truth.apply(source)
    target[::5] += torch.tensor([0.03, 0.01, -0.02], **double)
    options = {"max_distance": 0.3, "method": "point_to_point", "max_iterations": 100}
    plain = errors(icp(source, target, **options).transform, truth)[1]
    found = errors(icp(source, target, kernel=kernel, **options).transform, truth)[1]
    if kernel == "none":
        assert found == plain > 1e-3
    elif kernel == "huber":
        assert found < 0.7 * plain
    else:
        assert found < 0.1 * plain


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_95_per_cent_efficient(kernel):
    """(E psi')² / E psi² of psi(r) = r w(r), for a standard Gaussian."""
    row = KERNELS[kernel]
    r = torch.linspace(-12, 12, 200_001, **double).requires_grad_()
    psi = r * row.weight((r / row.tuning).square())
    (slope,) = torch.autograd.grad(psi.sum(), r)
    density = torch.exp(-(r.detach() ** 2) / 2) / math.sqrt(2 * math.pi) * 24 / 200_000
    efficiency = (slope * density).sum() ** 2 / (psi.detach() ** 2 * density).sum()
    assert efficiency == pytest.approx(0.95, abs=2e-3)


def test_explicit_scales_and_shares():
    r = torch.tensor([[0.0, 1.0, 2.0, 3.0, 100.0]], **double)
    live = torch.tensor([[True, True, True, True, False]])
    assert _steps.robust_weights("trimmed", r, live, 0.5).tolist() == [[1, 1, 0, 0, 0]]
    assert _steps.robust_weights("huber", r, live, 2.0)[0, 3] == pytest.approx(2 / 3)
    assert _steps.robust_weights("tukey", r, live, 2.0)[0].tolist() == [1, 0.5625, 0, 0, 0]
    automatic = _steps.robust_weights("huber", r, live, None)[0]
    assert automatic[3] == pytest.approx(1.345 * 1.4826 / 3)
    exact = _steps.robust_weights("tukey", torch.zeros(1, 4, **double), live[:, :4], None)
    assert exact.tolist() == [[1, 1, 1, 1]]


# Batches and bad data.


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_items_whatever_is_wrong_with_one(method):
    source, _ = surface(300)
    truth = motion(0.1, 0.05, 0, 4)
    targets = truth.apply(source).clone()
    sources = source.repeat(4, 1, 1)
    sources[1, 7], sources[1, 30, 1], targets[1, 100] = torch.nan, torch.inf, torch.nan
    targets[2] = torch.nan
    targets[3] += 100
    options = {"max_distance": 0.5, "method": method}
    together = icp(sources, targets, **options)
    assert together.status.tolist() == [0, 0, Status.EMPTY, Status.NO_OVERLAP]
    assert together.converged.tolist() == [True, True, False, False]
    assert together.fitness[2:].tolist() == [0, 0] and together.rmse[2:].isnan().all()
    for i in range(4):
        alone = icp(sources[i], targets[i], **options)
        torch.testing.assert_close(together.transform.matrix[i], alone.transform.matrix, rtol=0, atol=1e-12)
        assert together.iterations[i] == alone.iterations
        assert torch.equal(together.correspondences[i], alone.correspondences)
    first = Transform(
        *(getattr(together.transform, name)[:2] for name in ("rotation", "translation", "scale"))
    )
    wanted = Transform(truth.rotation[:2], truth.translation[:2], truth.scale[:2])
    # Where points lack their partners, others pull.
    assert_found(first, wanted, torch.tensor([1e-6, 2e-3], **double))
    eye = torch.eye(4, **double)
    torch.testing.assert_close(together.transform.matrix[2:], eye.expand(2, 4, 4), rtol=0, atol=1e-12)


def test_lists_masks_and_weights_leave_out_the_same():
    source, _ = surface(300)
    truth = motion()
    target = truth.apply(source)[20:]
    options = {"max_distance": 0.2, "method": "point_to_point", "max_iterations": 5, "angle_tolerance": 0.0}
    plain = icp(source[:250], target, **options)
    lists = icp([source, source[:250]], [target[:100], target], **options)
    torch.testing.assert_close(lists.transform.matrix[1], plain.transform.matrix)
    bad = source.clone()
    bad[250:] = 0.3
    masked = icp(bad, target, source_mask=torch.arange(300) < 250, **options)
    torch.testing.assert_close(masked.transform.matrix, plain.transform.matrix)
    assert masked.fitness == plain.fitness and (masked.correspondences[250:] == len(target)).all()
    weighted = icp(bad, target, weights=(torch.arange(300) < 250).double(), **options)
    torch.testing.assert_close(weighted.transform.matrix, plain.transform.matrix)
    hidden = icp(source[:250], truth.apply(source), target_mask=torch.arange(300) >= 20, **options)
    torch.testing.assert_close(hidden.transform.matrix, plain.transform.matrix)
    assert (hidden.correspondences[hidden.correspondences < 300] >= 20).all()


def test_half_weights_are_the_same_as_one_point():
    source, _ = surface(200)
    target, _ = surface(400, seed=1)
    options = {"max_distance": 0.4, "method": "point_to_point", "max_iterations": 4, "angle_tolerance": 0.0}
    weights = torch.ones(250, **double)
    weights[:50] = weights[200:] = 0.5
    twice = icp(torch.cat((source, source[:50])), target, weights=weights, **options)
    torch.testing.assert_close(twice.transform.matrix, icp(source, target, **options).transform.matrix)


@pytest.mark.parametrize("method", METHODS)
def test_planes_and_lines_leave_directions_open(method):
    """Planes are free in three directions for distances to them, and point pairs of a line in one."""
    flat = torch.rand(400, 3, generator=generator(), **double) * torch.tensor([1.0, 1.0, 0.0])
    rotation = random_rotation(generator=generator(2), **double)
    lifted = (flat + torch.tensor([0, 0, 0.05])) @ rotation.mT
    up = torch.tensor([0.0, 0, 1], **double).expand(400, 3) @ rotation.mT
    result = icp(
        flat @ rotation.mT, lifted, max_distance=0.3, method=method, source_normals=up, target_normals=up
    )
    assert (result.transform.apply(flat @ rotation.mT)[:, None] * up).sum(-1).max() < 10
    height = (result.transform.apply(flat @ rotation.mT) - lifted) @ rotation[:, 2]
    assert height.abs().max() < 1e-6
    if method != "point_to_point":
        assert result.status == Status.UNOBSERVABLE and not result.converged
        assert result.unobservable.tolist() == [True] * 3 + [False] * 3
        free = result.directions[:, :3]
        # Translations in the plane, and the turn about its normal.
        assert (free[3:].T @ rotation[:, 2]).abs().max() < 1e-6
        assert (free[:3] - rotation[:, 2:] @ (rotation[:, 2:].T @ free[:3])).abs().max() < 1e-6
    else:
        assert result.status != Status.UNOBSERVABLE
    line = torch.linspace(0, 1, 50, **double)[:, None] * torch.tensor([[1.0, 2.0, -1.0]])
    thin = icp(line, line + 0.01, max_distance=0.3, method=method)
    assert thin.transform.matrix.isfinite().all() and not thin.converged
    assert thin.status == (Status.UNOBSERVABLE if method == "point_to_point" else Status.NO_OVERLAP)
    if method == "point_to_point":
        assert thin.unobservable.sum() == 1


def free_shape(kind, n, seed):
    """Points of a surface that some motions lay on itself, and of which coordinates its middle is held."""
    u, v = torch.rand(2, n, generator=generator(seed), **double)
    if kind == "plane":
        return torch.stack((u, 0.7 * v, 0 * u), -1), (0, 0, 1)
    if kind == "cylinder":
        return torch.stack((0.3 * (math.tau * u).cos(), 0.3 * (math.tau * u).sin(), v), -1), (1, 1, 0)
    z = torch.randn(n, 3, generator=generator(seed), **double)
    return 0.5 * z / z.norm(dim=-1, keepdim=True), (1, 1, 1)


@pytest.mark.parametrize("sigma", [0.0, 0.002, 0.01])
@pytest.mark.parametrize(("kind", "free"), [("plane", 3), ("cylinder", 2), ("sphere", 3)])
@pytest.mark.parametrize("method", METHODS[1:])
def test_noise_holds_nothing(method, kind, free, sigma):
    """Noise of normals makes a wall look stiff along itself. Nothing is moved there, and it is told."""
    (source, held), (target, _) = (free_shape(kind, 1500, seed) for seed in (0, 1))
    source, target = (
        x + sigma * torch.randn(x.shape, generator=generator(seed), **double)
        for x, seed in ((source, 2), (target, 3))
    )
    turn = random_rotation(generator=generator(4), **double)
    shift = torch.tensor([0.03, 0.02, 0.01], **double)
    start = source @ turn.mT + shift
    found = icp(start, target @ turn.mT, max_distance=0.1, method=method)
    assert found.status == Status.UNOBSERVABLE and found.unobservable.sum() == free
    variances = torch.linalg.eigvalsh(found.covariance)
    assert (variances > 1e-9 * variances[-1]).sum() == 6 - free
    went = ((found.transform.apply(start) - start) @ turn).mean(0)
    wanted = -(shift @ turn) * torch.tensor(held)
    # Means of 1,500 heights of either cloud, of whose normals each direction has a third at least; and what
    # planes through neighbors cut off a round surface.
    assert (went - wanted).abs().max() < 5 * sigma * (2 * 3 / 1500) ** 0.5 + 5e-4


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("motion_", ["free", "planar"])
def test_floors_that_slide_are_brought_back(motion_, method):
    """Noise may carry a floor off the other: it begins where it was, and its height is found."""
    u = 2 * torch.rand(2, 2, 600, generator=generator(5), **double) - 1
    z = 0.01 * torch.randn(2, 600, generator=generator(6), **double)
    source, target = torch.cat((u.mT, z[..., None]), -1)
    lift = torch.tensor([0.0, 0.0, 0.02 if motion_ == "free" else 0.0], **double)
    found = icp(source, target + lift, max_distance=0.3, method=method, motion=motion_)
    assert found.status == Status.UNOBSERVABLE and found.fitness > 0.95
    assert (found.transform.translation - lift).abs().max() < 5 * 0.01 * (2 / 600) ** 0.5


@pytest.mark.parametrize("method", METHODS[1:])
def test_few_pairs_are_not_judged(method):
    """Of 150 points normals cannot tell noise from shape, and what fits stays."""
    source, target = surface(150)[0], surface(150, seed=7)[0]
    shift = torch.tensor([0.05, 0.03, 0.02], **double)
    found = icp(source, target + shift, max_distance=0.4, method=method)
    assert (found.transform.translation - shift).norm() < (shift).norm() / 2
    # Where nothing is left over but rounding, any other pose is far, and where nothing is, unknown.
    far = kabsch(source, source).normalized_error(motion())
    assert far.isnan() or far > 1e6
    with pytest.raises(TypeError, match="`transform`"):
        found.normalized_error(torch.eye(4))
    with pytest.raises(ValueError, match="`init` must have positive scales"):
        icp(source, target, max_distance=0.4, init=Transform(torch.eye(3), torch.zeros(3), torch.tensor(0.0)))


@pytest.mark.parametrize("method", METHODS[1:])
def test_covariance_is_that_of_the_errors(method):
    """Of pairs of samples of one surface; a share of the squared errors beyond what is expected is bias."""
    squares = []
    for seed in range(30):
        source, target = (surface(1500, seed=2 * seed + k)[0] for k in (0, 1))
        source, target = (
            x + 0.01 * torch.randn(x.shape, generator=generator(100 + 2 * seed + k), **double)
            for k, x in enumerate((source, target))
        )
        truth = motion(0.05, 0.02, seed)
        found = icp(source, truth.apply(target), max_distance=0.2, method=method, kernel="tukey")
        assert found.normalized_error(found.transform) < 1e-3
        squares.append(found.normalized_error(truth).item() ** 2)
    # Chi-squared of six has its median at 5.35; of thirty the median is within a quarter of that, mostly.
    assert 0.2 * 5.35 < sorted(squares)[15] < 2.5 * 5.35


def test_covariance_of_a_batch_is_that_of_its_items():
    source, target = surface(400)[0], surface(500, seed=1)[0]
    batch = icp(torch.stack((source, source * torch.nan)), target, max_distance=0.4)
    alone = icp(source, target, max_distance=0.4)
    torch.testing.assert_close(batch.covariance[0], alone.covariance)
    assert batch.covariance.shape == (2, 6, 6) and batch.covariance[1].isnan().all()
    assert batch.center.shape == (2, 3) and batch.normalized_error(motion()).shape == (2,)
    moved = motion(2.0, 3.0, seed=5)  # of both clouds: other voxels, and the twist turns with the target
    there = icp(moved.apply(source), moved.apply(target), max_distance=0.4)
    assert (there.center - moved.apply(alone.center[None])[0]).norm() < 0.1
    ratio = there.normalized_error(moved @ motion() @ moved.inverse()) / alone.normalized_error(motion())
    assert 0.7 < ratio < 1.4


@pytest.mark.parametrize("method", METHODS)
def test_too_few_points(method):
    source, _ = surface(300)
    for n, m in ((0, 5), (5, 0), (0, 0), (1, 1), (2, 300)):
        result = icp(source[:n], source[:m] + 1e-3, max_distance=0.5, method=method)
        assert not result.converged and result.transform.matrix.isfinite().all()
        assert result.correspondences.shape == (n,)
        wanted = {Status.EMPTY} if n * m == 0 else {Status.NO_OVERLAP, Status.UNOBSERVABLE}
        assert result.status.item() in wanted
    assert icp(source[None][:0], source, max_distance=1.0, method=method).transform.matrix.shape == (0, 4, 4)
    bad = icp(source, source, init=torch.full((4, 4), torch.nan), max_distance=0.5, method=method)
    assert bad.status == Status.NOT_FINITE and bad.transform.matrix[:3].isnan().any()


# Clouds of the plane.


def floor_plan(n, seed, sigma=0.005):
    """Points of walls and a table, seen from above, (n, 2)."""
    corners = torch.tensor([(0, 0), (4, 0), (4, 2), (2.5, 2), (2.5, 3), (0, 3), (0, 0)], **double)
    ends = torch.cat(
        (torch.stack((corners[:-1], corners[1:]), 1), torch.tensor([[(1, 1), (1.5, 1.4)]], **double))
    )
    t, wall = torch.rand(n, 1, generator=generator(seed), **double), torch.arange(n) % len(ends)
    points = (1 - t) * ends[wall, 0] + t * ends[wall, 1]
    return points + sigma * torch.randn(n, 2, generator=generator(seed + 100), **double)


def turned_in_plane(angle, *shift):
    c, s = math.cos(angle), math.sin(angle)
    return Transform(
        torch.tensor([[c, -s], [s, c]], **double), torch.tensor(shift, **double), torch.ones((), **double)
    )


@pytest.mark.parametrize("method", METHODS)
def test_clouds_of_the_plane(method):
    source, target, truth = floor_plan(700, 0), floor_plan(700, 1), turned_in_plane(0.15, 0.1, -0.05)
    target = truth.apply(target)
    found = icp(source, target, max_distance=0.4, method=method, kernel="tukey")
    assert found.converged and found.transform.rotation.shape == (2, 2) and found.source.shape == (700, 2)
    # A hundred points on each wall, 5 mm off it; points of pairs lie up to half a spacing beside each other.
    wanted = 0.005 if method == "point_to_point" else 5 * 0.005 * (2 / 100) ** 0.5 / 2
    moved = found.transform.apply(source) - truth.apply(source)
    assert moved.norm(dim=1).max() < wanted
    assert errors_of(found.transform.rotation) < 1e-12
    # As in space at height 0, and as a list, from a matrix.
    raised = [torch.nn.functional.pad(x, (0, 1)) for x in (source, target)]
    if method == "point_to_point":
        space = icp(*raised, max_distance=0.4, method=method, kernel="tukey", motion="planar")
        torch.testing.assert_close(space.transform.matrix[:2, :2], found.transform.rotation)
    lists = icp([source[:500], source], [target, target], max_distance=0.4, method=method, kernel="tukey",
                init=torch.eye(3), scales=None)  # fmt: skip
    torch.testing.assert_close(lists.transform.matrix[1], found.transform.matrix, rtol=0, atol=1e-9)
    for covariances in ({}, {"source_covariances": torch.eye(2).expand(700, 2, 2)}):
        start = icp(
            source, target, max_distance=0.4, method=method, init=truth, max_iterations=0, **covariances
        )
        torch.testing.assert_close(start.transform.matrix, truth.matrix)


def errors_of(rotation):
    return (rotation @ rotation.mT - torch.eye(2, **double)).abs().max()


@pytest.mark.parametrize("sigma", [0.0, 0.005])
@pytest.mark.parametrize("method", METHODS[1:])
def test_walls_and_circles_of_the_plane_are_open(method, sigma):
    u = torch.rand(2, 400, generator=generator(3), **double)
    noise = sigma * torch.randn(2, 400, 2, generator=generator(4), **double)
    for cloud in (torch.stack((u, 0 * u), -1), torch.stack(((math.tau * u).cos(), (math.tau * u).sin()), -1)):
        source, target = cloud + noise
        found = icp(source + 0.03, target, max_distance=0.2, method=method)
        assert found.status == Status.UNOBSERVABLE and found.unobservable.sum() == 1


def test_what_clouds_of_the_plane_cannot_have_is_refused():
    plan = floor_plan(50, 0)
    for error, options in (
        ("`motion`", {"motion": "yaw"}),
        ("`init`", {"init": torch.eye(4)}),
        ("`source_normals`", {"source_normals": torch.ones(50, 3)}),
        ("`target_covariances`", {"target_covariances": torch.ones(50, 3, 3)}),
    ):
        with pytest.raises(ValueError, match=error):
            icp(plan, plan, max_distance=0.1, **options)
    with pytest.raises(ValueError, match="`target` must have shape"):
        icp(plan, surface(50)[0], max_distance=0.1)
    assert icp(plan, plan, max_distance=0.1).covariance.isnan().all()  # of surfaces in space alone


# Scales, history, information.


def test_scales_take_a_start_that_one_scale_does_not():
    source, _ = surface(3000)
    target, _ = surface(3000, seed=2)
    truth = motion(1.2, 0.3)
    target = truth.apply(target)
    fine = icp(source, target, max_distance=0.03, max_iterations=30)
    assert errors(fine.transform, truth)[0] > 0.3
    scales = ((0.2, 1.0, 30), (0.1, 0.3, 20), (None, 0.1, 20))
    result = icp(source, target, scales=scales)
    assert_found(result.transform, truth, 0.01)
    assert [i.scale for i in result.history] == sorted(i.scale for i in result.history)
    assert {i.scale for i in result.history} == {0, 1, 2}
    assert result.source.shape == source.shape
    assert icp(source, target, scales=[(0.2, 1.0, 3)]).source.shape[0] < 1000
    fitness, rmse, pairs = evaluate(source, target, result.transform, 0.1)
    assert fitness == result.fitness and torch.equal(pairs, result.correspondences)
    torch.testing.assert_close(rmse, result.rmse, rtol=1e-12, atol=0)


@pytest.mark.parametrize("voxel", [0.1, 0.01])
def test_normals_at_a_scale_are_those_of_one_surface(voxel):
    """Patches of nine points, turned at random and ten spacings apart, and some points alone."""
    grid = torch.cartesian_prod(*2 * (torch.tensor([-0.1, 0.0, 0.1], **double),))
    patch = torch.cat((grid, torch.zeros(9, 1, **double)), 1)
    turn = random_rotation(30, generator=generator(), **double)
    corners = torch.cartesian_prod(*3 * (torch.arange(4, **double),))
    patches = (patch @ turn.mT + corners[:30, None]).flatten(0, 1)
    cloud = Clouds.of("source", torch.cat((patches, corners[30:])), None, None, None, None).flattened(
        torch.Size()
    )
    ready = cloud.ready("normals", 20, voxel)
    assert ready.known is not None
    cosine = (ready.known[0, :270] * turn[:, :, 2].repeat_interleave(9, 0)).sum(-1)
    torch.testing.assert_close(cosine.abs(), torch.ones(270, **double))
    assert (ready.weights[0, :270] == 1).all() and (ready.weights[0, 270:] == 0).all()


def test_history_and_progress():
    source, _ = surface(300)
    targets = torch.stack((source, motion().apply(source)))
    heard = []
    result = icp(source, targets, max_distance=0.5, progress=heard.append)
    assert heard == result.history and len(heard) == result.iterations.max() > result.iterations[0] == 1
    assert [i.number for i in heard] == list(range(len(heard)))
    assert heard[0].fitness.shape == (2,) and heard[0].angle[0] == 0
    assert heard[1].rmse[0].isnan() and heard[1].rmse[1] < heard[0].rmse[1]
    assert heard[-1].length[1] <= 1e-4 * 0.5
    stopped = icp(source, targets[1], max_distance=0.5, max_iterations=2)
    assert stopped.status == Status.ITERATIONS and stopped.iterations == 2
    none = icp(source, targets[1], max_distance=0.5, max_iterations=0)
    assert none.iterations == 0 and none.fitness == 1 and not none.stiffness.any()


def test_information_predicts_the_scatter_of_the_result():
    """Noise of the target along its normals: the pose scatters as the inverse of the information says."""
    source, normals = surface(500)
    found = []
    sigma = 1e-3
    for seed in range(60):
        noise = sigma * torch.randn(500, 1, generator=generator(seed), **double)
        result = icp(source, source + noise * normals, max_distance=0.1, target_normals=normals)
        omega = svdrot.matrix_to_axis_angle(result.transform.rotation)
        center = result.pivot
        moved = (result.transform.rotation @ center) + result.transform.translation - center
        found.append(torch.cat((omega, moved)))
    found = torch.stack(found) / sigma
    energy = (found * (found @ result.information)).sum(-1)
    # Chi squared with six degrees of freedom: its mean is 6 with a standard deviation of 0.45.
    assert energy.mean().item() == pytest.approx(6, abs=1.3)


# Motions about an axis.


def unit(axis):
    axis = torch.tensor([0.0, 0.0, 1.0], **double) if axis is None else axis
    return axis / axis.norm()


def allowed(kind, axis, angle=0.1):
    """A motion of the kind."""
    a, shift = unit(axis), torch.tensor([0.05, -0.03, 0.04], **double)
    shift = shift - (shift @ a) * a if kind == "planar" else shift
    return Transform(svdrot.axis_angle_to_matrix(angle * a), shift, torch.ones((), **double))


def assert_about(found, kind, axis):
    a = unit(axis)
    torch.testing.assert_close(
        found.rotation @ a, a.expand(*found.scale.shape, 3), rtol=0, atol=ROUNDING, check_dtype=False
    )
    if kind == "planar":
        assert ((found.translation @ a).abs() < ROUNDING).all()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_motion_about_the_axis_is_found_exactly(method, kind, axis):
    target, _ = surface()
    truth = allowed(kind, AXES[axis])
    source = truth.inverse().apply(target)
    found = icp(source, target, max_distance=0.5, method=method, motion=kind, axis=AXES[axis])
    assert found.converged
    torch.testing.assert_close(found.transform.matrix, truth.matrix, rtol=0, atol=1e-9)
    assert_about(found.transform, kind, AXES[axis])


@pytest.mark.parametrize("kernel", ["none", "tukey"])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_tilt_is_not_followed(method, kind, axis, kernel):
    """Of clouds that another motion would fit, over scales, in a batch of which the items end one by one."""
    target, _ = surface(seed=2)
    truth = motion(0.05, 0.03, 4, 3)
    source = truth.inverse().apply(target)
    options = {"scales": [(0.2, 0.5, 15), (None, 0.3, 40)], "method": method, "kernel": kernel}
    found = icp(source, target, motion=kind, axis=AXES[axis], **options)
    assert_about(found.transform, kind, AXES[axis])
    free = icp(source, target, **options)
    assert (free.rmse < 1e-2 * found.rmse).all()
    for i in range(3):
        alone = icp(source[i], target, motion=kind, axis=AXES[axis], **options)
        torch.testing.assert_close(alone.transform.matrix, found.transform.matrix[i], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_end_is_the_best_motion_for_its_pairs(kind):
    source, target = surface(800)[0], surface(1200, seed=3)[0]
    found = icp(
        source, target, max_distance=0.5, method="point_to_point", motion=kind, axis=AXES["oblique"],
        max_iterations=200, angle_tolerance=1e-9, length_tolerance=1e-9,
    )  # fmt: skip
    assert found.converged
    live = found.correspondences < len(target)
    pairs = source[live], target[found.correspondences[live]]
    best = kabsch(*pairs, motion=kind, axis=AXES["oblique"])
    torch.testing.assert_close(found.transform.matrix, best.matrix, rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_motions_begin_at_the_start(kind, method):
    """Its tilt, height and scale are kept."""
    target, _ = surface()
    start = Transform(
        *(getattr(motion(0.4, 0.5, 7), p) for p in ("rotation", "translation")), torch.tensor(2.0)
    )
    truth = allowed(kind, AXES["oblique"]) @ start
    source = truth.inverse().apply(target)
    found = icp(
        source, target, max_distance=0.5, init=start, method=method, motion=kind, axis=AXES["oblique"]
    ).transform
    assert found.scale == 2
    torch.testing.assert_close(found.matrix, truth.matrix, rtol=0, atol=1e-8)
    done = (
        Transform(found.rotation, found.translation, found.scale / 2)
        @ Transform(start.rotation, start.translation, start.scale / 2).inverse()
    )
    assert_about(done, kind, AXES["oblique"])


@pytest.mark.parametrize("method", METHODS)
def test_what_the_axis_rules_out_is_not_open(method):
    """A floor leaves three open, whether its own tilts and height are allowed or not; a corner none."""
    x, y = torch.rand(2, 600, generator=generator(), **double)
    floor = torch.stack((x, y, 0 * x), -1)
    corner = torch.cat((floor, torch.stack((x, 0 * x, y), -1), torch.stack((0 * x, x, y), -1)))
    tolerances = {"max_distance": 0.1, "method": method, "source_normals": None}
    if method in ("point_to_plane", "symmetric"):  # pairs of the others decide everything
        open_ = icp(floor, floor, motion="planar", **tolerances)
        assert open_.status == Status.UNOBSERVABLE and open_.unobservable.sum() == 3
        open_ = icp(floor, floor, motion="yaw", **tolerances)
        assert open_.status == Status.UNOBSERVABLE and open_.unobservable.sum() == 3
    found = icp(corner, corner, motion="planar", **tolerances)
    assert found.converged and not found.unobservable.any()
    assert (found.stiffness[:3] == 0).all() and (found.stiffness[3:] > 1e-3).all()
    # First the directions that are not allowed, tilts and height; then those that are.
    ruled_out = torch.zeros(6, **double).index_fill(0, torch.tensor([0, 1, 5]), 1)
    held = found.directions[:, :3].square().sum(-1)
    torch.testing.assert_close(held, ruled_out, rtol=0, atol=1e-12)
    assert (found.information[[0, 1, 5]] == 0).all() and (found.information.diagonal()[2:5] > 0).all()
    assert found.motion == "planar" and torch.equal(found.axis, unit(None))


def test_a_wall_on_the_floor_slides_along_itself():
    x, y = torch.rand(2, 600, generator=generator(), **double)
    wall = torch.stack((x, 0 * x, y), -1)
    found = icp(wall + torch.tensor([0, 0.03, 0.02]), wall, max_distance=0.1, motion="planar")
    assert found.status == Status.UNOBSERVABLE and found.unobservable.sum() == 1
    torch.testing.assert_close(found.transform.translation, torch.tensor([0, -0.03, 0], **double))
    along = found.directions[:, 3]  # the first that is allowed
    torch.testing.assert_close(along.abs(), torch.eye(6, **double)[3], rtol=0, atol=1e-6)


def test_clouds_of_the_plane_are_clouds_of_space():
    xy = torch.rand(300, 2, generator=generator(), **double)
    flat = torch.nn.functional.pad(xy, (0, 1))
    truth = allowed("planar", None, 0.02)
    truth = Transform(truth.rotation, 0.2 * truth.translation, truth.scale)
    found = icp(truth.inverse().apply(flat), flat, max_distance=0.1, method="point_to_point", motion="planar")
    assert found.converged
    torch.testing.assert_close(found.transform.matrix, truth.matrix, rtol=0, atol=1e-9)


def test_each_item_may_have_its_axis_and_none_is_bad_for_another():
    target, _ = surface(800)
    axes = torch.stack((unit(None), unit(AXES["oblique"]), torch.zeros(3, **double)))
    truths = [allowed("planar", axes[0]), allowed("planar", axes[1]), allowed("planar", axes[0])]
    sources = torch.stack([truth.inverse().apply(target) for truth in truths])
    found = icp(sources, target, max_distance=0.5, motion="planar", axis=axes)
    assert found.converged.tolist() == [True, True, False] and found.status[2] == Status.NOT_FINITE
    for i in range(2):
        torch.testing.assert_close(found.transform.matrix[i], truths[i].matrix, rtol=0, atol=1e-9)
    assert torch.equal(found.transform.matrix[2], torch.eye(4, **double))
    assert found.axis.shape == (3, 3)
    both = icp(sources[0], target, max_distance=0.5, motion="yaw", axis=axes[:2])
    assert both.converged.shape == (2,) and both.converged[0]
    torch.testing.assert_close(both.transform.matrix[0], truths[0].matrix, rtol=0, atol=1e-9)


def test_points_on_the_axis_leave_the_turn_open():
    line = torch.linspace(0, 1, 50, **double)[:, None] * unit(AXES["oblique"])
    shift = torch.tensor([0.01, 0.0, 0.0], **double)
    found = icp(
        line + shift, line, max_distance=0.05, method="point_to_point", motion="yaw", axis=AXES["oblique"]
    )
    assert found.status == Status.UNOBSERVABLE and found.unobservable.sum() == 1
    torch.testing.assert_close(found.transform.rotation, torch.eye(3, **double), rtol=0, atol=1e-12)


def test_refusals_of_motions():
    cloud = torch.rand(50, 3, generator=generator())
    with pytest.raises(ValueError, match="`motion` must be one of free, yaw, planar; got 'roll'"):
        icp(cloud, cloud, max_distance=0.1, motion="roll")
    with pytest.raises(ValueError, match="`axis` is that of a motion"):
        icp(cloud, cloud, max_distance=0.1, axis=torch.ones(3))
    with pytest.raises(ValueError, match=r"`axis` must have shape \(..., 3\)"):
        icp(cloud, cloud, max_distance=0.1, motion="yaw", axis=torch.ones(4))
    two = cloud.expand(2, 50, 3)
    with pytest.raises(ValueError, match=r"must broadcast; got .* \(3,\) of `axis`"):
        icp(two, two, max_distance=0.1, motion="yaw", axis=torch.ones(3, 3))
    with pytest.raises(TypeError, match="`axis` must be a tensor"):
        icp(cloud, cloud, max_distance=0.1, motion="yaw", axis=(0, 0, 1))


# Gradients.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("kernel", "motion"), [("none", "free"), ("tukey", "free"), *LIMITED])
def test_gradients_are_those_of_the_last_step(method, kernel, motion):
    """Against differences of that step, with pairs, normals, robust weights and its start held fixed."""
    source, p = surface(40)
    target, q = surface(60, seed=1)
    weights = 0.5 + torch.rand(40, generator=generator(), **double)
    options = {"max_distance": 0.8, "method": method, "kernel": kernel, "angle_tolerance": 0.0}
    options |= {"motion": motion, "axis": None if motion == "free" else torch.ones(3)}
    options |= {
        "source_normals": p,
        "target_normals": q,
        "kernel_parameter": None if kernel == "none" else 3.0,
    }
    inputs = [x.clone().requires_grad_() for x in (source, target, weights)]
    result = icp(*inputs[:2], weights=inputs[2], max_iterations=4, **options)
    torch.testing.assert_close(
        result.transform.matrix,
        icp(source, target, weights=weights, max_iterations=4, **options).transform.matrix,
    )
    before = icp(source, target, weights=weights, max_iterations=3, **options)

    def last(x, y, w):
        """One step from where the third ended; differences of 1e-6 change no pair."""
        fixed = robust_of_the_last(method, kernel, source, target, p, q, before)
        step = icp(
            x,
            y,
            weights=w * fixed,
            init=before.transform,
            max_iterations=1,
            **(options | {"kernel": "none", "kernel_parameter": None}),
        )
        return step.transform.matrix[:3].flatten()

    g = torch.randn(12, generator=generator(5), **double)
    gradients = torch.autograd.grad((result.transform.matrix[:3].flatten() * g).sum(), inputs)
    values = [x.detach() for x in inputs]
    for i, gradient in enumerate(gradients):
        for seed in range(3):
            direction = torch.randn(gradient.shape, generator=generator(seed), **double)
            h = 1e-6 * direction
            ahead, behind = ([v + s * h if i == j else v for j, v in enumerate(values)] for s in (1, -1))
            difference = ((last(*ahead) - last(*behind)) * g).sum() / 2e-6
            torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-5, atol=1e-7)


def robust_of_the_last(method, kernel, source, target, p, q, before):
    if kernel == "none":
        return 1
    r, t = before.transform.rotation, before.transform.translation
    i = before.correspondences
    live = i < len(target)
    i = i.clamp(max=len(target) - 1)
    moved, n = source @ r.mT + t, p @ r.mT
    d = moved - target[i]
    a = {
        "point_to_point": lambda: d.norm(dim=-1),
        "point_to_plane": lambda: (d * q[i]).sum(-1),
        "symmetric": lambda: (d * (torch.where((n * q[i]).sum(-1, keepdim=True) < 0, -n, n) + q[i])).sum(-1),
        "generalized": lambda: (
            (
                d
                * torch.linalg.solve(
                    2 * torch.eye(3, **double)
                    - 0.999 * (n[:, :, None] * n[:, None] + q[i][:, :, None] * q[i][:, None]),
                    d,
                )
            )
            .sum(-1)
            .sqrt()
        ),
    }[method]()
    return _steps.robust_weights(kernel, a[None], live[None], None if kernel == "none" else 3.0)[0].clamp(
        min=1e-300
    )


def test_gradients_through_voxels_and_of_what_does_not_converge():
    source, _ = surface(500)
    sources = torch.stack((source, torch.full_like(source, torch.nan))).requires_grad_()
    result = icp(sources, motion().apply(source), scales=[(0.2, 0.5, 5)])
    (gradient,) = torch.autograd.grad(result.transform.matrix[..., :3, :].sum(), sources)
    assert gradient.isfinite().all() and gradient[0].any() and not gradient[1].any()


# Arguments.


@pytest.mark.parametrize("method", METHODS)
def test_ten_copies_of_each_point_are_one(method):
    target, truth = surface(800)[0], motion(0.03, 0.02)
    source = truth.inverse().apply(target)
    found = icp(source.repeat_interleave(10, 0), target.repeat(10, 1), max_distance=0.5, method=method)
    assert found.converged
    assert_found(found.transform, truth, 1e-6)


@pytest.mark.parametrize("value", [1e12, 1e30, 1e100])
def test_points_that_stand_for_nothing_there_cost_no_digits(value):
    target, truth = surface(800)[0], motion(0.03, 0.02)
    source = truth.inverse().apply(target)
    source[::7], target[::7] = value, -value
    found = icp(source, target, max_distance=0.1)
    assert found.converged
    assert_found(found.transform, truth, 1e-6)


@pytest.mark.parametrize("decimals, scale", [(2, 1), (3, 1), (6, 1), (4, 1.5), (16, 1.001)])
def test_a_start_of_few_decimals_is_a_rotation(decimals, scale):
    target, truth = surface(800)[0], motion(0.3, 0.1)
    whole = Transform(truth.rotation, truth.translation, torch.tensor(float(scale), **double))
    source = whole.inverse().apply(target)
    start = whole.matrix.round(decimals=decimals)
    found = icp(source, target, init=start, max_distance=0.3)
    assert found.converged and svdrot.is_rotation(found.transform.rotation)
    kept = 1 if scale == 1 else svdrot.Transform.from_matrix(start).scale
    assert torch.allclose(found.transform.scale, torch.as_tensor(kept, **double), rtol=1e-12)
    if scale == 1:
        assert_found(found.transform, truth, 1e-6)


def test_refusals():
    source, _ = surface(50)
    options = {"max_distance": 1.0}
    for words, arguments in {
        "`method`": options | {"method": "points"},
        "`kernel`": options | {"kernel": "l1"},
        "`kernel_parameter`": options | {"kernel": "trimmed", "kernel_parameter": 1.5},
        "Either": {},
        "`scales`": {"scales": []},
        "`voxel`": {"scales": [(0.0, 1.0, 5)]},
        "`scales` must hold": {"scales": "coarse"},
        "`max_distance`": {"max_distance": math.nan},
        "`max_iterations`": options | {"max_iterations": -1},
        "`weights`": options | {"weights": torch.ones(49)},
        "`source_mask`": options | {"source_mask": torch.ones(49, dtype=torch.bool)},
        "`target_normals`": options | {"target_normals": torch.ones(50, 2)},
        "`init`": options | {"init": torch.eye(3)},
        "rotation": options | {"init": Transform.identity(2)},
        "`init` must hold rotations; got a matrix that is 0.": options
        | {"init": torch.eye(4) + 0.1 * torch.eye(4).roll(1, 0)},
    }.items():
        with pytest.raises(ValueError, match=words):
            icp(source, source, **arguments)
    with pytest.raises(ValueError, match="broadcast"):
        icp(source.expand(2, 50, 3), source.expand(3, 50, 3), **options)
    with pytest.raises(ValueError, match="list"):
        icp([source], [source], weights=torch.ones(1, 50), **options)
    with pytest.raises(ValueError, match=r"\(2,\) of `source_mask`, \(3,\) of `weights`"):
        mask = torch.ones(2, 50, dtype=torch.bool)
        icp(source, source, source_mask=mask, weights=torch.ones(3, 50), **options)
    for words, arguments in {
        "`source`": {"source": source.long()},
        "`target` must be a tensor or a list": {"target": None},
        "`target_mask` must be a boolean": {"target_mask": torch.ones(50)},
        "`source_normals` must be a tensor": {"source_normals": [source]},
        "`init` must be a transform": {"init": np.eye(4)},
    }.items():
        with pytest.raises(TypeError, match=words):
            icp(**({"source": source, "target": source} | options | arguments))


def test_what_belongs_to_a_cloud_may_have_more_batch_dimensions():
    source, normals = surface(300)
    target = motion().apply(source)
    weights = torch.rand(2, 300, generator=generator(), **double)
    turned = (normals @ motion().rotation.mT).expand(3, 1, 300, 3)
    together = icp(source, target, max_distance=0.5, weights=weights, target_normals=turned)
    assert together.transform.rotation.shape == (3, 2, 3, 3)
    for k in range(2):
        one = icp(source, target, max_distance=0.5, weights=weights[k], target_normals=turned[0, 0])
        torch.testing.assert_close(together.transform.matrix[2, k], one.transform.matrix)


@pytest.mark.parametrize("weight", [-1.0, 0.0, math.nan])
def test_points_without_weight_do_not_count(weight):
    source, _ = surface(50)
    result = icp(source, source, max_distance=1.0, weights=torch.full((50,), weight))
    assert result.status == Status.EMPTY and result.reasons == ["a cloud has no finite point that counts"]


def test_single_precision_comes_back_as_it_came():
    source, _ = surface(300)
    result = icp(source.float(), motion().apply(source).float(), max_distance=0.5)
    assert result.transform.matrix.dtype == result.rmse.dtype == torch.float32
    assert_found(result.transform, motion(), 1e-5)


# Scans.


def kitchen():
    file = DATA / "kitchen_3dmatch_0_1/pair_voxel1cm.npz"
    if not file.exists():
        pytest.skip(f"{file} is missing")
    with np.load(file) as pair:
        clouds = [torch.from_numpy(pair[name]).double() for name in ("src", "ref")]
    truth = torch.from_numpy(np.loadtxt(file.with_name("T_ref_src.txt")))
    return *clouds, Transform(
        svdrot.special_orthogonalize(truth[:3, :3]), truth[:3, 3], torch.ones(()).double()
    )


@pytest.mark.parametrize("method", ["generalized", "symmetric"])
def test_a_kitchen_from_50_degrees_away(method):
    source, target, truth = kitchen()
    result = icp(source, target, scales=[(0.1, 0.6, 30), (0.05, 0.3, 50)], method=method)
    assert result.converged
    assert_found(result.transform, truth, math.radians(0.5), 0.02)


def test_a_laser_scan():
    from svdrot.io.points import read_points

    folder = DATA / "lidar_small_gicp"
    if not folder.exists():
        pytest.skip(f"{folder} is missing")
    source, target = (read_points(folder / f"{name}.ply") for name in ("source", "target"))
    truth = Transform.from_matrix(torch.from_numpy(np.loadtxt(folder / "T_target_source.txt")))
    result = icp(
        source, target, scales=[(1.0, 2.0, 20), (0.5, 1.0, 20), (0.25, 0.5, 20)], method="generalized"
    )
    assert result.converged
    assert_found(result.transform, truth, math.radians(0.3), 0.04)


def test_an_empty_batch_in_voxels():
    found = icp(torch.zeros(0, 5, 3), torch.zeros(0, 5, 3), scales=[(0.5, 1.0, 2)], method="point_to_point")
    assert found.transform.rotation.shape == (0, 3, 3)
