"""Errors of pairs of image points and points from rays: what they are by definition, and singular places."""

import math

import pytest
import torch
from torch import Tensor

import svdrot
from svdrot import Transform
from svdrot.epipolar import (
    algebraic_error,
    essential_from_pose,
    sampson_error,
    symmetric_epipolar_error,
    triangulate,
)

EPS = 2.0**-52
ERRORS = {
    "algebraic": algebraic_error,
    "sampson": sampson_error,
    "symmetric": symmetric_epipolar_error,
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_one(x: Tensor) -> Tensor:
    return torch.cat((x, torch.ones_like(x[..., :1])), -1)


def test_errors_are_what_they_are_called():
    m, a, b = normal(5, 3, 3), normal(5, 20, 2, seed=1), normal(5, 20, 2, seed=2)
    x, y = with_one(a), with_one(b)
    line, back = x @ m.mT, y @ m
    r = (y * line).sum(-1)
    distances = [r / z[..., :2].norm(dim=-1) for z in (line, back)]
    scale = torch.stack([d.abs() for d in distances]).sum(0)
    assert (algebraic_error(m, a, b) - r).abs().max() < 64 * EPS * m.norm(dim=(1, 2)).max() * 16
    found = symmetric_epipolar_error(m, a, b)
    assert ((found.abs() - torch.hypot(*distances)) / (1 + scale**2)).abs().max() < 64 * EPS
    assert (found.sign() == r.sign()).all()
    lengths = torch.cat((line[..., :2], back[..., :2]), -1).norm(dim=-1)
    assert (sampson_error(m, a, b) - r / lengths).abs().max() < 64 * EPS * (1 + scale.max() ** 2)


def test_sampson_is_how_far_points_move_to_fit():
    """To first order: the step along its gradient by the error makes an error of second order."""
    pose = Transform.random(5, dtype=torch.float64)
    e = essential_from_pose(pose)
    a = normal(5, 40, 2)
    p = with_one(a) @ e.mT
    b = -p[..., 2:] * p[..., :2] / p[..., :2].square().sum(-1, keepdim=True)  # a point of each line
    b = (
        b
        + normal(5, 40, 1, seed=3)
        * torch.stack((-p[..., 1], p[..., 0]), -1)
        / p[..., :2].norm(dim=-1)[..., None]
    )
    step = 1e-5
    a, b = (x + step * normal(*x.shape, seed=k) for k, x in enumerate((a, b)))
    a, b = a.requires_grad_(), b.requires_grad_()
    d = sampson_error(e, a, b)
    da, db = torch.autograd.grad(d.sum(), (a, b))
    # Away from epipoles, where lines turn about points.
    flat = (p[..., :2].norm(dim=-1) > 0.5) & ((with_one(b) @ e)[..., :2].norm(dim=-1) > 0.5)
    assert flat.sum() > 50 and d[flat].abs().max() > step
    assert (da.square().sum(-1) + db.square().sum(-1) - 1)[flat].abs().max() < 100 * step  # a distance
    left = sampson_error(e, a - d[..., None] * da, b - d[..., None] * db)
    assert left[flat].abs().max() < 100 * step**2


@pytest.mark.parametrize("name", ["sampson", "symmetric"])
def test_neither_scale_nor_sign_of_the_matrix_matters_and_the_unit_of_points_does(name):
    f = ERRORS[name]
    m, a, b = normal(3, 3, 3), normal(3, 9, 2, seed=1), normal(3, 9, 2, seed=2)
    value = f(m, a, b)
    for k in (2.0**-60, 2.0**60):
        assert torch.equal(f(-k * m, a, b), -value)
        units = torch.tensor([1.0, 1.0, k]).double()
        scaled = m * units * units[:, None]
        assert torch.allclose(f(scaled, k * a, k * b), k * value, rtol=1e-12)
    f32 = f(m.float(), (2.0**100 * a).float(), (2.0**100 * b).float())
    assert f32.isfinite().all() and (f32 != 0).all()


@pytest.mark.parametrize("name", ERRORS)
def test_epipoles_and_matrices_without_lines(name):
    """Where there is no line there is no distance to it, and gradients are finite."""
    e = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).double()  # epipoles at the center
    a = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]).double()
    b = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]).double()
    for m in (e, 0 * e, torch.diag(torch.tensor([0.0, 0.0, 1.0])).double()):
        m, x, y = (z.clone().requires_grad_() for z in (m, a, b))
        value = ERRORS[name](m, x, y)
        assert value.isfinite().all()
        if name != "algebraic":
            assert (value == 0).all()
        gradients = torch.autograd.grad(value.sum(), (m, x, y), create_graph=True)
        again = torch.autograd.grad(sum(g.sum() for g in gradients), (m, x, y), allow_unused=True)
        assert all(g.isfinite().all() for g in (*gradients, *[z for z in again if z is not None]))


@pytest.mark.parametrize("name", ERRORS)
def test_derivatives_are_those_of_differences(name):
    x = [z.requires_grad_() for z in (normal(2, 3, 3), normal(2, 4, 2, seed=1), normal(2, 4, 2, seed=2))]
    assert torch.autograd.gradcheck(ERRORS[name], x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(ERRORS[name], x)


def test_kornia_has_the_squares():
    kornia = pytest.importorskip("kornia.geometry.epipolar", reason="compares with kornia")
    m, a, b = normal(3, 3, 3), normal(3, 9, 2, seed=1), normal(3, 9, 2, seed=2)
    theirs = kornia.sampson_epipolar_distance(a, b, m)
    assert torch.allclose(sampson_error(m, a, b).square(), theirs, rtol=1e-10)
    theirs = kornia.symmetrical_epipolar_distance(a, b, m)
    assert torch.allclose(symmetric_epipolar_error(m, a, b).square(), theirs, rtol=1e-10)


# Points -----------------------------------------------------------------------------------------------------


def images(pose: Transform, points: Tensor) -> tuple[Tensor, Tensor]:
    seen = pose.apply(points)
    return points[..., :2] / points[..., 2:], seen[..., :2] / seen[..., 2:]


def test_rays_that_meet_give_the_point_wherever_it_is():
    pose = Transform.exp(normal(20, 6))
    points = 3 * normal(20, 30, 3, seed=1)
    a, b = images(pose, points)
    found = triangulate(pose, a, b)
    x = torch.nn.functional.normalize(with_one(a), dim=-1)
    y = torch.nn.functional.normalize(with_one(b), dim=-1)
    parallax = torch.linalg.cross(pose.rotate(x), y).norm(dim=-1)
    size = 1 + points.norm(dim=-1) + pose.translation.norm(dim=-1)[:, None]
    error = (found - points).norm(dim=-1) * parallax.square() / size
    assert error.max() < 32 * EPS
    similar = Transform(pose.rotation, 3 * pose.translation, torch.full((20,), 3.0).double())
    assert torch.allclose(triangulate(similar, a, b), found)


def test_rays_that_do_not_meet_give_the_middle():
    pose = Transform.exp(normal(6, 6))
    a, b = normal(6, 5, 2, seed=1), normal(6, 5, 2, seed=2)
    p = triangulate(pose, a, b)
    center = pose.inverse().apply(torch.zeros(1, 3).double())
    lines = (torch.zeros(1, 3).double(), with_one(a)), (center, pose.inverse().rotate(with_one(b)))
    feet = []
    for origin, along in lines:
        along = torch.nn.functional.normalize(along, dim=-1)
        feet.append(origin + ((p - origin) * along).sum(-1, keepdim=True) * along)
    assert ((feet[0] + feet[1]) / 2 - p).norm(dim=-1).max() < 1e-12 * (1 + p.norm(dim=-1).max())
    across = feet[1] - feet[0]
    for _, along in lines:
        assert (across * along).sum(-1).abs().max() < 1e-11 * (1 + p.norm(dim=-1).max())


def test_parallel_rays_meet_nowhere_and_spoil_no_other():
    pose = Transform(torch.eye(3), torch.tensor([1.0, 0.0, 0.0]), torch.tensor(1.0))
    a = torch.tensor([[0.1, 0.2], [0.1, 0.2]], requires_grad=True)
    b = torch.tensor([[0.1, 0.2], [0.3, 0.2]])
    found = triangulate(pose, a, b)
    assert found.isnan().all(1).tolist() == [True, False]
    (gradient,) = torch.autograd.grad(found[1].sum(), a)
    assert gradient[1].isfinite().all()
    bad = torch.tensor([[math.nan, 0.2], [0.3, 0.2]])
    assert triangulate(pose, a, bad).isnan().all(1).tolist() == [True, False]
    with pytest.raises(ValueError, match="`a` must have shape"):
        triangulate(pose, torch.zeros(2), b)


def test_derivatives_of_points():
    def f(twist, a, b):
        return triangulate(svdrot.se3_exp(twist), a, b)

    x = [normal(2, 6), normal(2, 3, 2, seed=1), normal(2, 3, 2, seed=2)]
    x = [z.requires_grad_() for z in x]
    assert torch.autograd.gradcheck(f, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, x)
