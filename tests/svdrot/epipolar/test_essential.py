"""Essential matrices: fifty digits, optimality, derivatives where singular values repeat, and poses."""

import math
from itertools import pairwise

import exact_geometry as exact
import mpmath
import pytest
import torch
from cases import with_singular_values
from exact_geometry import UNITS, worst
from torch import Tensor

import svdrot
from svdrot import Transform
from svdrot.epipolar import (
    decompose_essential,
    essential_from_pose,
    pose_from_essential,
    project_to_essential,
    project_to_rank_two,
)

DTYPES = (torch.float32, torch.float64)
PROJECTIONS = {"essential": project_to_essential, "rank two": project_to_rank_two}
REGULAR = {
    "essential": (1, 1, 0),
    "nearly": (1 + 1e-6, 1, 1e-5),
    "above": (1, 1, 0.5),
    "below": (1, 1, -0.5),
    "spread": (1, 0.1, 0.01),
    "thin": (1, 1e-3, 1e-4),
    "nearly ambiguous": (1, 0.5, 0.499),
    "nearly a reflection": (1, 0.5, -0.499),
    "isolated least": (1, 0.9, 0.1),
    "isolated largest": (1, 0.3, 0.2),
}
SINGULAR = {
    "rotation": (1, 1, 1),
    "reflection": (1, 1, -1),
    "two equal": (2, 1, 1),
    "two opposite": (2, 1, -1),
    "rank one": (1, 0, 0),
    "zero": (0, 0, 0),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def truth(kind: str, m: list, t: list) -> tuple[list, list, float, float]:
    """The projection and its derivative along T by the decomposition, f and s1 over the gap."""
    u, s, vh = mpmath.svd_r(exact.matrix(m))
    s = [*s]
    if mpmath.det(u) * mpmath.det(vh) < 0:
        s[2], u[:, 2] = -s[2], -u[:, 2]
    f, gap = (s[0] + s[1]) / 2, s[1] - abs(s[2])
    d, x = u.T * exact.matrix(t) * vh.T, mpmath.matrix(3, 3)
    least = [f, f] if kind == "essential" else s[:2]
    for i in range(2):
        for j in range(2):
            skew, even = (d[i, j] - d[j, i]) / 2, (d[0, 0] + d[1, 1]) / 2 * (i == j)
            x[i, j] = even + skew if kind == "essential" else d[i, j]
        y, k = (d[i, 2] + d[2, i]) / (s[i] - s[2]), (d[i, 2] - d[2, i]) / (s[i] + s[2])
        x[i, 2], x[2, i] = least[i] * (y + k) / 2, least[i] * (y - k) / 2
    value, slope = u * mpmath.diag([*least, 0]) * vh, u * x * vh
    largest = f if kind == "essential" else s[0]
    return exact.flat(value), exact.flat(slope), max(1.0, float(largest / gap)), max(1.0, float(s[0] / gap))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", REGULAR)
@pytest.mark.parametrize("kind", PROJECTIONS)
def test_values_and_gradients_against_fifty_digits(kind, case, dtype):
    """To 8 eps of the conditioning: of values f over the gap, of gradients s1 over it once more."""
    m = with_singular_values(*REGULAR[case]).to(dtype).requires_grad_()
    along = normal(*m.shape).to(dtype)
    value = PROJECTIONS[kind](m)
    (gradient,) = torch.autograd.grad(value, m, along)
    tangent = torch.func.jvp(PROJECTIONS[kind], (m.detach(),), (along,))[1]
    rows = [truth(kind, exact.numbers(x), exact.numbers(t)) for x, t in zip(m.detach(), along, strict=True)]
    values, slopes, condition, sharper = zip(*rows, strict=True)
    assert worst(value, values, condition) < UNITS
    size = along.double().norm(dim=(1, 2)).tolist()
    conditions = [s * a * b for s, a, b in zip(size, condition, sharper, strict=True)]
    assert worst(gradient, slopes, conditions) < UNITS
    assert worst(tangent, slopes, conditions) < UNITS


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("kind", PROJECTIONS)
def test_the_scale_does_not_matter(kind, scale):
    m = normal(20, 3, 3).float()
    f, k = PROJECTIONS[kind], 2.0 ** round(math.log2(scale))
    assert torch.equal(f(k * m), k * f(m))
    gradient = torch.func.vjp(f, k * m)[1](m)[0]
    assert torch.equal(gradient, torch.func.vjp(f, m)[1](m)[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*REGULAR, *SINGULAR])
def test_singular_values_are_those_of_the_kind_and_nothing_is_nearer(case, dtype):
    m = with_singular_values(*(REGULAR | SINGULAR)[case]).to(dtype)
    limit = UNITS * torch.finfo(dtype).eps * m.double().norm(dim=(1, 2)).max()
    m64 = m.double()
    sizes = torch.linalg.svdvals(m64)
    e, x = (f(m).double() for f in PROJECTIONS.values())
    found = torch.linalg.svdvals(e)
    s = sizes[:, :2].mean(1)
    assert (found - torch.stack((s, s, 0 * s), 1)).abs().max() <= limit
    assert (torch.linalg.svdvals(x)[:, 2]).max() <= limit
    # The distance says that it is nearest, also where several are.
    wanted = (sizes[:, 0] - s).square() + (sizes[:, 1] - s).square() + sizes[:, 2].square()
    assert ((m64 - e).norm(dim=(1, 2)) - wanted.sqrt()).abs().max() <= limit
    assert ((m64 - x).norm(dim=(1, 2)) - sizes[:, 2]).abs().max() <= limit
    others = s.amax() * essential_from_pose(Transform.random(500, dtype=torch.float64))
    nearest = (m64 - e).norm(dim=(1, 2))[:, None]
    assert (nearest <= (m64[:, None] - others).norm(dim=(2, 3)) + limit).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*REGULAR, *SINGULAR])
@pytest.mark.parametrize("kind", PROJECTIONS)
def test_two_derivatives_are_finite_everywhere(kind, case, dtype):
    """Not larger than 1 / 64 units of rounding for each division by the gap."""
    m = with_singular_values(*(REGULAR | SINGULAR)[case]).to(dtype).requires_grad_()
    value = PROJECTIONS[kind](m)
    (first,) = torch.autograd.grad((value * normal(*value.shape).to(dtype)).sum(), m, create_graph=True)
    (second,) = torch.autograd.grad((first * normal(*m.shape, seed=1).to(dtype)).sum(), m)
    assert first.isfinite().all() and second.isfinite().all()


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_derivatives_are_those_of_differences(kind):
    m = torch.cat([with_singular_values(*REGULAR[c])[:2] for c in ("essential", "above", "below", "spread")])
    m = m.requires_grad_()
    assert torch.autograd.gradcheck(PROJECTIONS[kind], m, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(PROJECTIONS[kind], m)


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
@pytest.mark.parametrize("kind", PROJECTIONS)
def test_recorded_programs_have_three_derivatives_and_no_wrong_fourth(kind):
    f = PROJECTIONS[kind]
    m = torch.cat([with_singular_values(*REGULAR[c])[:2] for c in ("essential", "above", "below")])
    traced, found = torch.jit.trace(f, m.flip(0), check_trace=False), []
    for g in (f, traced):
        x = m.clone().requires_grad_()
        orders = [g(x)]
        for _ in range(3 if g is f else 4):
            orders += torch.autograd.grad((orders[-1] * torch.cos(x)).sum(), x, create_graph=True)
        found.append(orders)
    for order, (a, b) in enumerate(zip(*found, strict=False)):
        assert (a - b).abs().max() <= 1e-13 * 100**order * a.abs().max().clamp_min(1)
    assert not found[1][4].isfinite().any()


def test_fields_of_essential_matrices_stay_where_they_are():
    e = essential_from_pose(Transform.random(20, dtype=torch.float64)).requires_grad_()
    found = project_to_essential(e)
    assert (found - e).abs().max() < UNITS * 2.0**-52 * e.detach().norm(dim=(1, 2)).max()
    # A tangent of the manifold, of a pose that turns and moves, passes; what is normal to it does not.
    pose, step = Transform.random(20, dtype=torch.float64), 1e-6
    moved = [essential_from_pose(pose @ Transform.exp(k * step * normal(20, 6))) for k in (-1, 1)]
    along = (moved[1] - moved[0]) / (2 * step)
    tangent = torch.func.jvp(project_to_essential, (essential_from_pose(pose),), (along,))[1]
    assert (tangent - along).abs().max() < 1e-8


# Poses ------------------------------------------------------------------------------------------------------


def test_four_poses_have_the_essential_matrix_and_one_is_the_truth():
    pose = Transform.random(50, dtype=torch.float64)
    e = essential_from_pose(pose)
    four = decompose_essential(e)
    length = pose.translation.norm(dim=-1)
    assert torch.allclose(four.translation.norm(dim=-1), torch.ones(50, 4).double())
    assert svdrot.is_rotation(four.rotation).all()
    back = essential_from_pose(four) * length[:, None, None, None]
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).double()[:, None, None]
    condition = length[:, None, None, None]
    assert ((back - signs * e[:, None]) / condition).abs().max() < 2 * UNITS * 2.0**-52
    apart = (four.rotation - pose.rotation[:, None]).abs().amax((2, 3))
    apart += (four.translation - (pose.translation / length[:, None])[:, None]).abs().amax(2)
    assert (apart.amin(1) < 2 * UNITS * 2.0**-52).all()
    for i, j in pairwise(range(4)):
        different = four.rotation[:, i] - four.rotation[:, j]
        assert (
            different.abs().amax((1, 2)) + (four.translation[:, i] - four.translation[:, j]).norm(dim=1)
        ).min() > 0.1


def test_the_gradient_of_a_pose_is_that_of_differences():
    e = essential_from_pose(Transform.random(6, dtype=torch.float64))
    e = (e + 0.1 * normal(6, 3, 3)).requires_grad_()

    def parts(e):
        four = decompose_essential(e)
        return four.rotation, four.translation

    assert torch.autograd.gradcheck(parts, e, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(parts, e)


def scene(batch: int, n: int, seed: int = 0) -> tuple[Transform, Tensor, Tensor, Tensor]:
    """A pose, points in front of both cameras, and their images."""
    g = torch.Generator().manual_seed(seed)
    turn = svdrot.axis_angle_to_matrix(0.3 * normal(batch, 3, seed=seed))
    move = torch.nn.functional.normalize(normal(batch, 3, seed=seed + 1), dim=-1)
    pose = Transform(turn, move, torch.ones(batch).double())
    points = 4 * torch.rand(batch, n, 3, generator=g, dtype=torch.float64) + torch.tensor([-2.0, -2.0, 5.0])
    a, b = (x[..., :2] / x[..., 2:] for x in (points, pose.apply(points)))
    return pose, points, a, b


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, *DTYPES], ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_pose_is_the_one_that_sees_the_scene(sign, dtype):
    pose, _, a, b = scene(30, 8)
    e = (sign * 7 * essential_from_pose(pose)).to(dtype)
    found = pose_from_essential(e, a.to(dtype), b.to(dtype))
    assert found.rotation.dtype == found.translation.dtype == dtype
    limit = 32 * torch.finfo(dtype).eps
    assert (found.rotation.double() - pose.rotation).abs().max() < limit
    assert (found.translation.double() - pose.translation).abs().max() < limit


def test_what_does_not_count_has_no_vote_and_what_is_broken_spoils_its_item():
    pose, points, a, b = scene(3, 9)
    e, wrong = essential_from_pose(pose), b.clone()
    # Six of nine are as if the camera had gone the other way.
    other = Transform(pose.rotation, -pose.translation, pose.scale)
    seen = other.apply(points)
    wrong[:, 3:] = (seen[..., :2] / seen[..., 2:])[:, 3:]
    assert (pose_from_essential(e, a, wrong).translation + pose.translation).abs().max() < 1e-14
    weights = torch.ones(3, 9).double()
    weights[:, 3:] = 0
    odd = wrong.clone()
    odd[:, 5] = math.nan
    for given in ({"weights": weights}, {"mask": weights > 0}):
        found = pose_from_essential(e, a, odd, **given)
        assert (found.rotation - pose.rotation).abs().max() < 1e-14
        assert (found.translation - pose.translation).abs().max() < 1e-14
    odd = b.clone()
    odd[1, 5] = math.inf
    assert pose_from_essential(e, a, odd).translation.isnan().all(1).tolist() == [False, True, False]
    weights = torch.ones(3, 9).double()
    weights[2, 0] = -1
    assert pose_from_essential(e, a, b, weights).rotation.isnan().any((1, 2)).tolist() == [False, False, True]


def test_bad_matrices_and_zero():
    e = normal(4, 3, 3)
    e[1, 0, 2], e[2] = math.nan, 0
    for f in PROJECTIONS.values():
        assert f(e).isnan().all((1, 2)).tolist() == [False, True, False, False]
        assert (f(e)[2] == 0).all()
    four = decompose_essential(e)
    assert four.rotation.isnan().all((1, 2, 3)).tolist() == [False, True, False, False]
    assert svdrot.is_rotation(four.rotation[2]).all()
    zero = torch.zeros(3, 3, requires_grad=True)
    four = decompose_essential(zero)
    assert (torch.autograd.grad((four.rotation.sum() + four.translation.sum()), zero)[0] == 0).all()
    with pytest.raises(ValueError, match="`matrix` must have shape"):
        project_to_essential(torch.zeros(3, 2))
    with pytest.raises(TypeError, match="`transform` must be a Transform"):
        essential_from_pose(torch.eye(4))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`b` must have shape"):
        pose_from_essential(torch.zeros(3, 3), torch.zeros(4, 2), torch.zeros(5, 2))


def test_kornia_has_the_same_conventions():
    kornia = pytest.importorskip("kornia.geometry.epipolar", reason="compares with kornia")
    pose, _, a, b = scene(10, 12)
    e = essential_from_pose(pose)
    eye = torch.eye(3).double().expand(10, 3, 3)
    zero = torch.zeros(10, 3, 1).double()
    theirs = kornia.essential_from_Rt(eye, zero, pose.rotation, pose.translation[..., None])
    assert (theirs - e).abs().max() < 1e-14
    noisy = e + 0.1 * normal(10, 3, 3)
    assert (kornia.project_to_essential(noisy) - project_to_essential(noisy)).abs().max() < 1e-13
    turn, move, _, _ = kornia.motion_from_essential_choose_solution(e, eye, eye, a, b)
    found = pose_from_essential(e, a, b)
    assert (turn - found.rotation).abs().max() < 1e-12
    assert (move[..., 0] - found.translation).abs().max() < 1e-12
