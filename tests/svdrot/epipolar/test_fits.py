"""The eight-point algorithm: optimality, poses of scenes, gradients, and pairs that determine nothing."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

import svdrot
from svdrot import Transform
from svdrot.epipolar import eight_point, essential_from_pose, pose_from_essential

KINDS = ("essential", "fundamental")
EPS = 2.0**-52


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def views(
    *shape: int, noise: float = 0.0, seed: int = 0, flat: bool = False
) -> tuple[Transform, Tensor, Tensor]:
    """A pose, and images of a scene of depth 5 to 9, or of a plane, with noise in focal lengths."""
    *batch, n = shape
    turn = svdrot.axis_angle_to_matrix(0.3 * normal(*batch, 3, seed=seed))
    move = torch.nn.functional.normalize(normal(*batch, 3, seed=seed + 1), dim=-1)
    pose = Transform(turn, move, torch.ones(batch).double())
    g = torch.Generator().manual_seed(seed + 2)
    points = 4 * torch.rand(*batch, n, 3, generator=g, dtype=torch.float64) + torch.tensor([-2.0, -2.0, 5.0])
    if flat:
        points[..., 2] = 7 + 0.3 * points[..., 0] - 0.2 * points[..., 1]
    a, b = (x[..., :2] / x[..., 2:] for x in (points, pose.apply(points)))
    return pose, *(x + noise * normal(*x.shape, seed=seed + 3 + k) for k, x in enumerate((a, b)))


def of_unit_size(m: Tensor) -> Tensor:
    """Of Frobenius norm 1, with a sign."""
    m = m / m.norm(dim=(-2, -1), keepdim=True)
    top = m.flatten(-2).gather(-1, m.flatten(-2).abs().argmax(-1, keepdim=True))
    return m * top.sign()[..., None]


def errors(found: Transform, pose: Transform) -> tuple[Tensor, Tensor]:
    """Angles in radians between rotations and between directions of translations."""
    turn, _ = found.distance(pose)
    return turn, svdrot.angle_between(found.translation, pose.translation)


@pytest.mark.parametrize("n", [8, 9, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_exact_pairs_give_the_exact_matrix(dtype, n):
    """To rounding of the points over the gap, and to that of the squares in float64 over its square."""
    pose, a, b = views(20, n)
    intrinsic = torch.tensor([[800.0, 0, 320], [0, 700, 240], [0, 0, 1]]).double()
    e = essential_from_pose(pose)
    inverse = torch.linalg.inv(intrinsic)
    pixels = [torch.cat((x, torch.ones_like(x[..., :1])), -1) @ intrinsic.mT for x in (a, b)]
    cases = (
        ("essential", a, b, e),
        ("fundamental", *(x[..., :2] for x in pixels), inverse.mT @ e @ inverse),
    )
    for kind, x, y, wanted in cases:
        fit = eight_point(x.to(dtype), y.to(dtype), kind=kind)
        assert fit.matrix.dtype == dtype
        # Of a fundamental matrix in pixels entries are of very different size: in units of a spread.
        k = (
            torch.diag(torch.tensor([400.0, 400.0, 1.0])).double()
            if kind == "fundamental"
            else torch.eye(3).double()
        )
        found, wanted = (of_unit_size(k @ m.double() @ k) for m in (fit.matrix, wanted))
        limit = 64 * torch.finfo(dtype).eps / fit.gap + 64 * EPS / fit.gap**2
        apart = torch.minimum((found - wanted).norm(dim=(1, 2)), (found + wanted).norm(dim=(1, 2)))
        assert (apart < limit).all()
        assert (fit.matrix.double().norm(dim=(1, 2)) - 1).abs().max() < 4 * torch.finfo(dtype).eps


def normalized_cost(m: Tensor, a: Tensor, b: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The matrix in normalized coordinates, of norm 1, its weighted squared algebraic error, and what this is
    of all nine matrices of one entry together."""
    made = []
    for x in (a, b):
        c = (w[:, None] * x).sum(0) / w.sum()
        s = math.sqrt(2) * w.sum() / (w * (x - c).norm(dim=-1)).sum()
        made.append(torch.tensor([[s, 0, -s * c[0]], [0, s, -s * c[1]], [0, 0, 1]]).double())
    inverses = [torch.linalg.inv(t) for t in made]
    m = inverses[1].mT @ m @ inverses[0]
    m = m / m.norm()
    x, y = (torch.cat((z, torch.ones(len(z), 1)), -1) @ t.mT for z, t in zip((a, b), made, strict=True))
    everything = (w * x.square().sum(-1) * y.square().sum(-1)).sum()
    return m, (w * ((y @ m) * x).sum(-1).square()).sum(), everything


def test_the_matrix_is_the_nearest_of_rank_two_to_the_best():
    _, a, b = views(30, noise=0.02)
    w = torch.rand(30, generator=torch.Generator().manual_seed(1)).double()
    fit = eight_point(a, b, w, kind="fundamental")
    m, cost, trace = normalized_cost(fit.matrix, a, b, w)
    flat = m.flatten()
    assert abs(flat @ fit.equations @ flat - cost / trace) < 1e-14  # equations are those of this cost
    best = torch.linalg.eigh(fit.equations)[1][:, 0]
    nearest = of_unit_size(svdrot.epipolar.project_to_rank_two(best.reshape(3, 3)))
    assert torch.linalg.svdvals(m)[2] < 16 * EPS
    assert (of_unit_size(m) - nearest).norm() < 64 * EPS / fit.gap**2
    for k in range(200):
        other = torch.nn.functional.normalize(best + 0.1 * normal(9, seed=k), dim=0)
        assert other @ fit.equations @ other >= best @ fit.equations @ best


def test_weights_are_counts_and_zeros_leave_out():
    _, a, b = views(3, 12, noise=0.01)
    w = torch.tensor([1.0] * 10 + [0.0, 2.0]).double()
    some = torch.cat((a[:, :10], a[:, 11:], a[:, 11:]), 1), torch.cat((b[:, :10], b[:, 11:], b[:, 11:]), 1)
    odd = a.clone()
    odd[:, 10] = math.nan
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for kind in KINDS:
        f = partial(eight_point, kind=kind)
        fit = f(*some)
        for found in (
            f(a, b, w),
            f(a, b, 1e-30 * w),
            f(odd, b, w),
            f(odd, b, 1 + (w > 1).double(), mask=w > 0),
            f(a[:, order], b[:, order], w[order]),
        ):
            apart = (found.matrix - fit.matrix).norm(dim=(1, 2))
            assert (apart < 64 * EPS / fit.gap**2).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_way_round_is_the_transpose(kind):
    _, a, b = views(10, 20, noise=0.005)
    there, back = (eight_point(*x, kind=kind).matrix for x in ((a, b), (b, a)))
    assert (of_unit_size(there) - of_unit_size(back.mT)).abs().max() < 1e-10


def test_poses_of_noisy_scenes_are_as_exact_as_the_noise():
    """A thousandth of the focal length, of 200 points: errors are some tenths of a degree, of kornia, too."""
    pose, a, b = views(40, 200, noise=1e-3)
    found = pose_from_essential(eight_point(a, b).matrix, a, b)
    turn, move = errors(found, pose)
    assert turn.mean() < math.radians(0.3) and move.mean() < math.radians(3)


def test_weights_of_zero_on_outliers_recover_the_pose_and_equal_ones_do_not():
    pose, a, b = views(20, 60, noise=1e-4)
    wrong = b.clone()
    wrong[:, ::3] = normal(20, 20, 2, seed=9)
    good = torch.ones(60).double()
    good[::3] = 0
    turn, move = errors(pose_from_essential(eight_point(a, wrong, good).matrix, a, wrong, good), pose)
    assert turn.max() < math.radians(0.5) and move.max() < math.radians(5)
    turn, move = errors(pose_from_essential(eight_point(a, wrong).matrix, a, wrong), pose)
    assert move.median() > math.radians(10)


def test_weights_can_be_learned_through_the_fit():
    """By the gradient of how far the matrix is from the true one pairs that are off lose their weight."""
    pose, a, b = views(60, noise=1e-4, seed=2)
    b[::4] += 0.1 * normal(15, 2, seed=6)
    truth, off = of_unit_size(essential_from_pose(pose)), torch.arange(60) % 4 == 0
    logits = torch.zeros(60, dtype=torch.float64, requires_grad=True)
    optimizer, costs = torch.optim.Adam([logits], lr=0.3), []
    for _ in range(80):
        cost = 1 - (eight_point(a, b, logits.sigmoid()).matrix * truth).sum().square()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        costs.append(cost.item())
    assert costs[-1] < 0.02 * costs[0]
    assert logits[off].mean() < 0 < 1 < logits[~off].mean()


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_those_of_differences(kind):
    _, a, b = views(12, noise=0.02)
    w = 0.5 + torch.rand(12, generator=torch.Generator().manual_seed(1)).double()

    def f(a, b, w):
        return eight_point(a, b, w, kind=kind).matrix

    x = [z.requires_grad_() for z in (a, b, w)]
    assert torch.autograd.gradcheck(f, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, x, atol=1e-4)


AMBIGUOUS = {
    "seven": views(4, 7)[1:],
    "one": views(4, 1)[1:],
    "none": views(4, 0)[1:],
    "a plane": views(4, 30, flat=True)[1:],
    "one view twice": (views(4, 30)[1],) * 2,
    "one point": (torch.ones(4, 20, 2).double(),) * 2,
    "a line": tuple(torch.stack((x[..., 0], 0 * x[..., 0]), -1) for x in views(4, 30)[1:]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", AMBIGUOUS)
def test_pairs_that_determine_nothing_say_so_and_have_finite_gradients(case, kind, dtype):
    a, b = (x.to(dtype).requires_grad_() for x in AMBIGUOUS[case])
    w = torch.ones(a.shape[:-1], dtype=dtype, requires_grad=True)
    fit = eight_point(a, b, w, kind=kind)
    # Squares are right to some eps of float64, or to the squares of what rounding the points left.
    assert (fit.gap < max(32 * torch.finfo(dtype).eps, (32 * EPS) ** 0.5)).all()
    assert fit.matrix.isfinite().all()
    assert (fit.matrix.double().norm(dim=(1, 2)) - 1).abs().max() < 4 * torch.finfo(dtype).eps
    gradients = torch.autograd.grad(
        (fit.matrix * normal(4, 3, 3).to(dtype)).sum(), (a, b, w), allow_unused=True, create_graph=True
    )
    assert all(g is None or g.isfinite().all() for g in gradients)
    if case == "none":
        assert all(g is None or (g == 0).all() for g in gradients)


def test_the_gap_is_that_of_the_scene():
    """As the depth of a scene shrinks it goes to 0 with it, and errors grow as one over it."""
    gaps = []
    for depth in (1.0, 0.1, 0.01):
        points = 4 * torch.rand(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 2
        points[:, 2] = 6 + depth * points[:, 2]
        pose = Transform.exp(torch.tensor([0.1, -0.2, 0.1, 1.0, 0.2, 0.1]).double())
        gaps.append(eight_point(*(x[:, :2] / x[:, 2:] for x in (points, pose.apply(points)))).gap.item())
    assert gaps[0] > 3 * gaps[1] > 20 * gaps[2] > 0


def test_a_bad_pair_spoils_its_item_alone():
    _, a, b = views(4, 12, noise=0.01)
    good = eight_point(a, b)
    odd, w = a.clone(), torch.ones(4, 12).double()
    odd[1, 3, 0], w[2, 5] = math.inf, -0.1
    odd = odd.requires_grad_()
    fit = eight_point(odd, b, w)
    for value in (fit.matrix.flatten(1), fit.equations.flatten(1), fit.gap[:, None], fit.residual[:, None]):
        assert value.isnan().all(1).tolist() == [False, True, True, False]
    assert torch.equal(fit.matrix[[0, 3]], good.matrix[[0, 3]])
    (gradient,) = torch.autograd.grad(fit.matrix[[0, 3]].sum(), odd)
    assert gradient[[0, 3]].isfinite().all()


def test_arguments_are_checked():
    a = torch.zeros(9, 2)
    for arguments, error, text in (
        ((a, a[:8]), ValueError, "`b` must have shape"),
        ((a[0], a), ValueError, "`a` must have shape"),
        ((a, a.int()), TypeError, "`b` must be floating point"),
        ((a, a, torch.ones(8)), ValueError, "`weights` must have shape"),
    ):
        with pytest.raises(error, match=text):
            eight_point(*arguments)
    with pytest.raises(TypeError, match="`mask` must be a boolean tensor"):
        eight_point(a, a, mask=torch.ones(9))
    with pytest.raises(ValueError, match="`kind` must be one of essential, fundamental"):
        eight_point(a, a, kind="homography")


def test_kornia_finds_the_same_fundamental_matrices():
    kornia = pytest.importorskip("kornia.geometry.epipolar", reason="compares with kornia")
    _, a, b = views(10, 30, noise=0.003)
    theirs = kornia.find_fundamental(a, b, torch.ones(10, 30).double())
    found = eight_point(a, b, kind="fundamental").matrix
    assert (of_unit_size(theirs) - of_unit_size(found)).abs().max() < 1e-6
