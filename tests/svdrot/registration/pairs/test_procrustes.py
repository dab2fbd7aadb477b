"""Laws of the alignments of pairs, and of the transforms that they give."""

import subprocess
import sys
from functools import partial

import mpmath
import pytest
import torch
from scipy.stats import f

import svdrot
from svdrot.registration import Transform, kabsch, pad, procrustes, umeyama

FITS = [procrustes, kabsch, umeyama]
DTYPES = [torch.float32, torch.float64]
AGREEMENT = 32  # units of rounding over the relative gap; measured: 3

generator = torch.Generator()


@pytest.fixture(autouse=True)
def same_numbers_in_every_test():
    generator.manual_seed(0)


def normal(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)


def uniform(*shape, dtype=torch.float64):
    return torch.rand(*shape, dtype=torch.float64, generator=generator).to(dtype)


def noisy_pairs(batch=4, points=30, d=3, noise=0.3, dtype=torch.float64):
    """Clouds that are not round, transformed and disturbed, with weights."""
    source = normal(batch, points, d) * torch.arange(1, d + 1) + normal(batch, 1, d)
    rotation = torch.linalg.qr(normal(batch, d, d)).Q
    rotation[:, :, 0] *= torch.linalg.det(rotation).sign()[:, None]
    scale = 0.5 + uniform(batch, 1, 1)
    target = scale * source @ rotation.mT + normal(batch, 1, d) + noise * normal(batch, points, d)
    return source.to(dtype), target.to(dtype), uniform(batch, points, dtype=dtype)


def cost(transform, source, target, weights):
    return (weights[..., None] * (transform.apply(source) - target).square()).sum((-2, -1))


def small_rotations(count, d, angle):
    skew = normal(count, d, d)
    return torch.linalg.matrix_exp(angle * (skew - skew.mT))


@pytest.mark.parametrize("reflection", [False, True])
@pytest.mark.parametrize("d", [2, 3, 4])
@pytest.mark.parametrize("fit", FITS)
def test_no_other_transform_is_better_under_the_weighted_cost(fit, d, reflection):
    source, target, weights = noisy_pairs(1, 20, d)
    if reflection:
        target = target * torch.tensor([-1.0] + [1.0] * (d - 1))
    best = fit(source, target, weights, reflection=reflection)
    least = cost(best, source, target, weights)
    for size in (1e-4, 1e-2, 1.0):
        turn = small_rotations(3334, d, size)
        if reflection:
            turn[::2, :, 0] *= -1
        shift = 0 if fit is procrustes else size * normal(3334, d)
        stretch = 1 + size * normal(3334).clamp(-0.9) if fit is umeyama else torch.ones(3334).double()
        other = Transform(turn @ best.rotation, best.translation + shift, best.scale * stretch)
        assert (cost(other, source, target, weights) >= least * (1 - 1e-12)).all()
    expected = (least / weights.sum(-1)).sqrt()
    torch.testing.assert_close(best.residual, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("fit", FITS)
def test_weights_enter_once(fit):
    source, target, weights = noisy_pairs()
    halves = torch.cat((weights[:, :5] / 2, weights[:, 5:], weights[:, :5] / 2), -1)
    split = [torch.cat((x, x[:, :5]), 1) for x in (source, target)]
    assert_same(fit(source, target, weights), fit(*split, halves))
    assert_same(fit(source, target, weights), fit(source, target, 1e6 * weights))
    assert_same(fit(source, target), fit(source, target, torch.full_like(weights, 3)))


@pytest.mark.parametrize("fit", FITS)
def test_order_and_masked_pairs_do_not_matter(fit):
    source, target, weights = noisy_pairs()
    order = torch.randperm(source.shape[1], generator=generator)
    assert_same(fit(source, target, weights), fit(source[:, order], target[:, order], weights[:, order]))

    counts = uniform(*weights.shape) < 0.7
    without = [fit(*(x[i, counts[i]] for x in (source, target, weights))) for i in range(len(source))]
    lost = [torch.where(counts[..., None], x, bad) for x, bad in ((source, torch.nan), (target, torch.inf))]
    for masked in (
        fit(*lost, weights, mask=counts),
        fit(*lost, weights * counts),
        fit(*lost, torch.where(counts, weights, torch.nan), mask=counts),
    ):
        for i, alone in enumerate(without):
            torch.testing.assert_close(masked.rotation[i], alone.rotation)
            torch.testing.assert_close(masked.translation[i], alone.translation)
            torch.testing.assert_close(masked.residual[i], alone.residual)


def test_masked_pairs_get_no_gradient():
    source, target, weights = noisy_pairs()
    counts = uniform(*weights.shape) < 0.7
    with torch.no_grad():
        source[~counts], target[~counts] = torch.nan, torch.inf
    leaves = [x.requires_grad_() for x in (source, target, weights)]
    fit = umeyama(*leaves, mask=counts)
    (fit.rotation.sum() + fit.translation.sum() + fit.scale.sum()).backward()
    for leaf in leaves:
        assert leaf.grad is not None and leaf.grad.isfinite().all()
        assert (leaf.grad[~counts] == 0).all() and (leaf.grad[counts] != 0).all()


def test_lists_are_clouds_of_different_lengths():
    source, target, weights = noisy_pairs()
    lengths = (30, 7, 0, 19)
    lists = [[x[i, :n] for i, n in enumerate(lengths)] for x in (source, target, weights)]
    together = kabsch(*lists)
    for i, parts in enumerate(zip(*lists, strict=True)):
        torch.testing.assert_close(together.rotation[i], kabsch(*parts).rotation)
        torch.testing.assert_close(together.residual[i], kabsch(*parts).residual)
    kept = [x > 0.5 for x in lists[2]]
    assert_same(kabsch(*lists, mask=kept), kabsch(source, target, weights * pad(kept)[0].double()))
    points, inside = pad(lists[0])
    assert points.shape == (4, 30, 3) and inside.sum(1).tolist() == [*lengths]


def test_change_of_frame_and_scale():
    source, target, weights = noisy_pairs()
    fit = umeyama(source, target, weights)
    a, b = svdrot.random_rotation(2, 4, dtype=torch.float64, generator=generator)
    s, t = normal(4, 1, 3), normal(4, 1, 3)
    moved = umeyama(5 * source @ a.mT + s, 7 * target @ b.mT + t, weights)
    torch.testing.assert_close(moved.rotation, b @ fit.rotation @ a.mT)
    torch.testing.assert_close(moved.scale, 7 / 5 * fit.scale)
    torch.testing.assert_close(moved.residual, 7 * fit.residual)
    torch.testing.assert_close(moved.gap, fit.gap)
    torch.testing.assert_close(moved.apply(5 * source @ a.mT + s), 7 * fit.apply(source) @ b.mT + t)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1e-20, 1e15])
def test_units_do_not_matter(size, dtype):
    source, target, weights = noisy_pairs(dtype=dtype)
    fit, other = umeyama(source, target, weights), umeyama(size * source, size * target, size * weights)
    eps = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(other.rotation, fit.rotation, rtol=0, atol=eps)
    torch.testing.assert_close(other.scale, fit.scale, rtol=eps, atol=0)
    torch.testing.assert_close(other.residual / size, fit.residual, rtol=16 * eps, atol=0)


@pytest.mark.parametrize("fit", FITS)
def test_exact_pairs_are_fitted_exactly(fit):
    source, _, weights = noisy_pairs()
    rotation = svdrot.random_rotation(4, dtype=torch.float64, generator=generator)
    translation = 0 * normal(4, 3) if fit is procrustes else normal(4, 3)
    scale = torch.tensor([0.1, 1, 2, 30]).double() if fit is umeyama else torch.ones(4).double()
    truth = Transform(rotation, translation, scale)
    found = fit(source, truth.apply(source), weights)
    torch.testing.assert_close(found.rotation, rotation)
    torch.testing.assert_close(found.translation, translation)
    torch.testing.assert_close(found.scale, scale)
    assert (found.residual < 1e-13 * 100).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_far_from_the_origin_nothing_is_lost(dtype):
    """The clouds, as they are rounded out there, are fitted as well as the same clouds at home."""
    source, target, weights = noisy_pairs(dtype=dtype)
    far = torch.tensor([1e6, -2e6, 3e6], dtype=dtype)
    source, target = source + far, target - far
    at_home = kabsch((source - far).double(), (target + far).double(), weights.double())
    found = kabsch(source, target, weights)
    atol = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.rotation.double(), at_home.rotation, rtol=0, atol=atol)
    torch.testing.assert_close(found.residual.double(), at_home.residual, rtol=1e-9, atol=atol)


def exact_rotation(source, target, weights):
    """In 50 digits: the rotation, and the gap over the norm of the covariance."""
    with mpmath.workdps(50):
        x, y, w = (mpmath.matrix(z.tolist()) for z in (source, target, weights))
        total = sum(w)
        means = [[sum(w[i] * z[i, k] for i in range(len(w))) / total for k in range(3)] for z in (x, y)]
        c = mpmath.matrix(3, 3)
        for j in range(3):
            for k in range(3):
                pairs = range(len(w))
                c[j, k] = sum(w[i] * (y[i, j] - means[1][j]) * (x[i, k] - means[0][k]) for i in pairs)
        u, s, vh = mpmath.svd_r(c)
        sign = 1 if mpmath.det(u) * mpmath.det(vh) > 0 else -1
        r = u * mpmath.diag([1, 1, sign]) * vh
        gap = (s[1] + sign * s[2]) / mpmath.norm(s)
        return torch.tensor(r.tolist(), dtype=torch.float64).view(3, 3), float(gap)


def hard_pairs(dtype):
    source, target, weights = noisy_pairs(2, 24, noise=0.1)
    flat = source * torch.tensor([1, 1, 0])
    thin = source * torch.tensor([1, 1e-3, 1e-4])
    cases = {
        "noisy": (source, target, weights),
        "flat": (flat, target, weights),
        "thin": (thin, target, weights),
        "mirrored": (source, target * torch.tensor([1, 1, -1]), weights),
        "far": (source + 1e4, target - 1e4, weights),
        "uneven": (source, target, 10 ** (8 * weights - 8)),
        "two points and noise": (source * (torch.arange(24) < 2)[:, None], target, weights),
        "unrelated": (source, normal(2, 24, 3), weights),
    }
    return {name: tuple(x.to(dtype) for x in case) for name, case in cases.items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", hard_pairs(torch.float64))
def test_agreement_with_50_digits(case, dtype):
    pairs = hard_pairs(dtype)[case]
    fit = kabsch(*pairs)
    for i, parts in enumerate(zip(*pairs, strict=True)):
        rotation, gap = exact_rotation(*(x.double() for x in parts))
        error = (fit.rotation[i].double() - rotation).norm()
        assert error <= AGREEMENT * torch.finfo(dtype).eps / min(gap, 1)
        assert fit.gap[i].item() == pytest.approx(gap, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("d", [2, 3, 4])
@pytest.mark.parametrize("fit", FITS)
def test_gradients_to_points_and_weights(fit, d):
    points = 3 if d == 3 else d + 3  # in space so few are one formula, whose derivatives take seconds for six
    leaves = [x.requires_grad_() for x in noisy_pairs(2, points, d)]

    def outputs(*leaves):
        found = fit(*leaves)
        kept = {procrustes: 1, kabsch: 2, umeyama: 3}[fit]
        return (found.rotation, found.translation, found.scale)[:kept]

    assert torch.autograd.gradcheck(outputs, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(outputs, leaves)
    leaves = [
        x.detach().requires_grad_() for x in noisy_pairs(2, d + 3, d)
    ]  # three are flat: both mirrors fit
    assert torch.autograd.gradcheck(lambda *leaves: fit(*leaves, reflection=True).rotation, leaves)


def test_kernels_and_operations_give_the_same_gradient():
    leaves = [x.requires_grad_() for x in noisy_pairs(2, 300)]
    loss = umeyama(*leaves).apply(leaves[0]).square().sum()
    by_kernel = torch.autograd.grad(loss, leaves, retain_graph=True)
    by_operations = torch.autograd.grad(loss, leaves, create_graph=True)
    for a, b in zip(by_kernel, by_operations, strict=True):
        torch.testing.assert_close(a, b)


def test_transforms_of_torch():
    source, target, weights = noisy_pairs(3, 10)

    def angle(source, target, weights):
        return kabsch(source, target, weights).rotation.sum()

    together = torch.stack([angle(*parts) for parts in zip(source, target, weights, strict=True)])
    torch.testing.assert_close(torch.func.vmap(angle)(source, target, weights), together)
    shared = torch.func.vmap(angle, in_dims=(None, 0, 0))(source[0], target, weights)
    torch.testing.assert_close(shared, angle_of_each(angle, source[0], target, weights))
    jacobians = [j(angle)(source[0], target[0], weights[0]) for j in (torch.func.jacrev, torch.func.jacfwd)]
    torch.testing.assert_close(*jacobians)


@pytest.mark.parametrize("reflection", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_transforms_of_torch_return_whole_alignments(weighted, reflection):
    pairs = noisy_pairs(3, 10)[: 3 if weighted else 2]
    fit = partial(umeyama, reflection=reflection)
    exported = torch.export.export(AsModule(fit), pairs).module()
    expected = fit(*pairs)
    for found in (torch.func.vmap(fit)(*pairs), exported(*pairs)):
        assert found.reflection is reflection
        for name in ("rotation", "translation", "scale", "covariance", "residual", "gap"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name))
        moved = torch.func.vmap(Transform.apply)(found, pairs[0])
        torch.testing.assert_close(moved, expected.apply(pairs[0]))


class AsModule(torch.nn.Module):
    """`torch.export` takes nothing else."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


def test_compiled_whole():
    compiled = torch.compile(lambda *pairs: umeyama(*pairs), fullgraph=True, backend="aot_eager")
    leaves = [x.requires_grad_() for x in noisy_pairs(3, 10)]
    compiled(*leaves).translation.sum().backward()
    expected = torch.autograd.grad(umeyama(*leaves).translation.sum(), leaves)
    for leaf, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, gradient)


def test_few_pairs_compile_whole_where_they_are_met_first():
    """A number of pairs that no test has had: what makes its formula is not for Dynamo to see."""
    code = """
import torch, svdrot
x, y = torch.randn(2, 2, 7, 3)
kabsch = lambda *pairs: svdrot.registration.kabsch(*pairs).rotation
fit = torch.compile(kabsch, fullgraph=True, backend="aot_eager")
torch.testing.assert_close(fit(x, y), svdrot.registration.kabsch(x, y).rotation)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def angle_of_each(angle, source, target, weights):
    return torch.stack([angle(source, *parts) for parts in zip(target, weights, strict=True)])


@pytest.mark.parametrize("fit", FITS)
def test_nothing_to_go_by(fit):
    identity = torch.eye(3).expand(2, 3, 3)
    points = torch.randn(2, 5, 3, generator=generator)
    for found in (
        fit(points[:, :0], points[:, :0]),
        fit(points, points, torch.zeros(2, 5)),
        fit(points, points, mask=torch.zeros(2, 5, dtype=torch.bool)),
    ):
        assert torch.equal(found.rotation, identity)
        assert torch.equal(found.translation, torch.zeros(2, 3)) and torch.equal(found.scale, torch.ones(2))
        assert not found.residual.any() and not found.gap.any() and not found.rank.any()


def test_coincident_points():
    leaves = [x.expand(2, 4, 3).clone().requires_grad_() for x in (torch.ones(3), torch.arange(3.0))]
    for fit in (kabsch, umeyama):
        found = fit(*leaves)
        assert torch.equal(found.rotation, torch.eye(3).expand(2, 3, 3))
        assert torch.equal(found.translation, torch.tensor([[-1.0, 0, 1]] * 2))
        assert torch.equal(found.scale, torch.ones(2)) and not found.rank.any()
        gradients = torch.autograd.grad(found.rotation.sum() + found.translation.sum(), leaves)
        for gradient, sign in zip(gradients, (-1, 1), strict=True):
            torch.testing.assert_close(gradient, torch.full((2, 4, 3), sign / 4))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_bad_numbers_stay_in_their_cloud(fit, bad):
    source, target, weights = noisy_pairs(4, 20)
    clean = fit(source, target, weights)
    source[1, 3, 1], target[2, 4, 0] = bad, bad
    weights[3, 5] = -1 if bad == bad else bad
    found = fit(source, target, weights)
    assert torch.equal(found.rotation[0], clean.rotation[0]) and torch.equal(found.gap[0], clean.gap[0])
    assert (
        found.rotation[1:].isnan().all() and found.residual[1:].isnan().all() and found.gap[1:].isnan().all()
    )
    assert found.rank.tolist() == [3, 0, 0, 0]


def test_gap_and_rank_at_any_scale():
    source, target, _ = noisy_pairs(1, 30)
    wanted = kabsch(source, target)
    for size in (1e-150, 1e-100, 1e100, 1e150):
        found = kabsch(size * source, size * target)
        torch.testing.assert_close(found.gap, wanted.gap)
        assert torch.equal(found.rank, wanted.rank)


def test_weights_of_any_total():
    source, target, weights = noisy_pairs(1, 30, dtype=torch.float32)
    wanted = kabsch(source, target, weights)
    for total in (1e-37, 1e-20, 1e30):
        torch.testing.assert_close(kabsch(source, target, total * weights).rotation, wanted.rotation)
    none = kabsch(source, target, torch.full_like(weights, 1e-42))  # whose sum has no reciprocal
    assert torch.equal(none.rotation, torch.eye(3)[None]) and none.gap == 0
    assert none.translation.isfinite().all()


def test_on_a_line_nothing_turns_and_no_scale_is_negative():
    x = normal(1, 10, 1)
    found = umeyama(x, -2 * x + 3)
    assert found.rotation == 1 and found.scale == 0
    torch.testing.assert_close(found.translation, (3 - 2 * x).mean(1))
    mirrored = umeyama(x, -2 * x + 3, reflection=True)
    assert mirrored.rotation == -1
    torch.testing.assert_close(mirrored.apply(x), -2 * x + 3)


def test_gap_and_rank_show_what_is_ambiguous():
    source = normal(3, 40, 3)
    source[1, :, 2] = 0
    source[2, :, 1:] = 0
    fit = kabsch(source, source)
    assert fit.rank.tolist() == [3, 2, 1]
    assert fit.gap[0] > 0.3 and fit.gap[1] > 0.3 and fit.gap[2] < 1e-12
    mirrored = kabsch(source, source, reflection=True)
    assert mirrored.gap[0] > 0.3 and (mirrored.gap[1:] < 1e-12).all()
    octahedron = torch.cat((torch.eye(3), -torch.eye(3)))
    assert kabsch(octahedron, -octahedron).gap < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_leaves_as_it_came(dtype):
    source, target, weights = (x.to(dtype) for x in noisy_pairs())
    found, exact = kabsch(source, target, weights), kabsch(source.float(), target.float(), weights.float())
    assert found.rotation.dtype == found.translation.dtype == found.residual.dtype == dtype
    assert torch.equal(found.rotation, exact.rotation.to(dtype))
    assert kabsch(source, target.double()).rotation.dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert kabsch(source, target).rotation.dtype == torch.float32


def test_lists_of_mixed_dtypes_are_promoted():
    x = normal(6, 3)
    found = kabsch([x.float(), x[:4]], [x, x[:4].float()])
    assert found.rotation.dtype == torch.float64
    torch.testing.assert_close(found.rotation, torch.eye(3).double().expand(2, 3, 3), rtol=0, atol=1e-6)


def test_batch_dimensions_broadcast():
    source, target, weights = noisy_pairs(6, 9)
    found = kabsch(source.view(2, 3, 9, 3), target.view(2, 3, 9, 3), weights.view(2, 3, 9))
    assert found.rotation.shape == (2, 3, 3, 3) and found.residual.shape == (2, 3)
    assert found.covariance.shape == (2, 3, 3, 3) and found.gap.shape == found.rank.shape == (2, 3)
    torch.testing.assert_close(found.rotation.view(6, 3, 3), kabsch(source, target, weights).rotation)
    one = kabsch(source[0], target, weights[0])
    torch.testing.assert_close(one.rotation[5], kabsch(source[0], target[5], weights[0]).rotation)
    assert kabsch(source[0], target[0]).rotation.shape == (3, 3)
    assert kabsch(source[:0], target[:0]).rotation.shape == (0, 3, 3)


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, "`source`", {"source": torch.zeros(3)}),
        (ValueError, r"`target` must have shape \(..., 5, 3\)", {"target": torch.zeros(4, 3)}),
        (ValueError, r"`weights` must have shape \(..., 5\)", {"weights": torch.zeros(5, 1)}),
        (ValueError, "`mask`", {"mask": torch.zeros(4, dtype=torch.bool)}),
        (TypeError, "`mask` must be a boolean tensor; got torch.float32", {"mask": torch.zeros(5)}),
        (TypeError, "`mask` must be a boolean tensor; got list", {"mask": [True] * 5}),
        (TypeError, "`source` must be a tensor or a list of tensors; got ndarray",
         {"source": torch.zeros(5, 3).numpy()}),
        (TypeError, "`source` must be a tensor or a list of tensors; got NoneType", {"source": None}),
        (TypeError, "`target` must be a tensor or a list of tensors; got NoneType",
         {"source": [torch.zeros(5, 3)], "target": None}),
        (ValueError, r"Tensors of `source` must differ .* got \(5, 3\), \(5, 2\)",
         {"source": [torch.zeros(5, 3), torch.zeros(5, 2)], "target": [torch.zeros(5, 3)] * 2}),
        (ValueError, "`target` must be a list of as many",
         {"source": [torch.zeros(5, 3)] * 2, "target": [torch.zeros(5, 3)]}),
        (ValueError, r"got \(2,\) of `weights`, \(4,\) of `mask`",
         {"weights": torch.ones(2, 5), "mask": torch.ones(4, 5, dtype=torch.bool)}),
        (TypeError, "`weights` must be floating", {"weights": torch.ones(5, dtype=torch.int64)}),
        (TypeError, "`target` must be a tensor", {"target": [torch.zeros(5, 3)]}),
        (ValueError, "`target` must be a list", {"source": [torch.zeros(5, 3)]}),
        (ValueError, "`weights` must be a list",
         {"source": [torch.zeros(5, 3)], "target": [torch.zeros(5, 3)], "weights": torch.zeros(1, 5)}),
        (ValueError, "`source` must hold at least one", {"source": [], "target": []}),
        (ValueError, r"broadcast; got \(2,\) of `source`, \(3,\) of `target`",
         {"source": torch.zeros(2, 5, 3), "target": torch.zeros(3, 5, 3)}),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(error, match, arguments):
    arguments = {"source": torch.zeros(5, 3), "target": torch.zeros(5, 3)} | arguments
    with pytest.raises(error, match=match):
        kabsch(**arguments)


def test_transforms_compose_and_invert():
    source, target, weights = noisy_pairs()
    a, b = umeyama(source, target, weights), umeyama(target, source, weights)
    torch.testing.assert_close((a @ b).apply(target), a.apply(b.apply(target)))
    torch.testing.assert_close(a.inverse().apply(a.apply(source)), source)
    torch.testing.assert_close((a @ b).matrix, a.matrix @ b.matrix)
    torch.testing.assert_close(a.compose(Transform.identity(dtype=torch.float64)).matrix, a.matrix)
    back = Transform.from_matrix(a.matrix)
    for name in ("rotation", "translation", "scale"):
        torch.testing.assert_close(getattr(back, name), getattr(a, name))
    homogeneous = torch.cat((source, torch.ones(4, 30, 1)), -1) @ a.matrix.mT
    torch.testing.assert_close(homogeneous[..., :3], a.apply(source))
    assert Transform.identity(2).apply(torch.ones(7, 2)).tolist() == [[1, 1]] * 7
    with pytest.raises(ValueError, match="`points` must have shape"):
        a.apply(torch.zeros(4, 30, 2).double())
    with pytest.raises(ValueError, match=r"got \(4,\) of `transform`, \(3,\) of `points`"):
        a.apply(torch.zeros(3, 30, 3).double())


def assert_same(a, b):
    torch.testing.assert_close(a.rotation, b.rotation)
    torch.testing.assert_close(a.translation, b.translation)
    torch.testing.assert_close(a.scale, b.scale)
    torch.testing.assert_close(a.residual, b.residual)


def test_transforms_of_several_dtypes_meet_in_the_larger():
    one = Transform.identity(3, dtype=torch.float32)
    other = Transform(one.rotation.double(), one.translation.bfloat16(), one.scale)
    points = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one.apply(points), points)
    assert torch.equal((one @ other).inverse().apply(points), points)
    half = Transform.from_matrix(torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float16)))
    assert half.scale == 2 and half.scale.dtype == half.rotation.dtype == torch.float16
    with pytest.raises(TypeError, match="`first` must be a Transform"):
        one @ torch.eye(4)
    with pytest.raises(ValueError, match="`matrix` must be"):
        Transform.from_matrix(torch.ones(1, 1))


@pytest.mark.parametrize("d", [2, 3])
def test_a_matrix_of_rank_one_is_what_it_is_alone(d):
    """Its determinant is what rounding leaves, and must not depend on what else is in the batch."""
    generator = torch.Generator().manual_seed(0)
    column = torch.randn(50, d, 1, dtype=torch.float64, generator=generator)
    matrix = torch.eye(d + 1, dtype=torch.float64).repeat(50, 1, 1)
    matrix[:, :d, :d] = column * column.mT
    together = Transform.from_matrix(matrix)
    alone = torch.stack([Transform.from_matrix(m).scale for m in matrix])
    assert torch.equal(together.scale, alone)
    spoiled = matrix.index_fill(0, torch.tensor([3]), torch.nan)
    assert torch.equal(Transform.from_matrix(spoiled).scale[4:], together.scale[4:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("motion", "unknowns"), [("free", 6), ("yaw", 4), ("planar", 3)])
@pytest.mark.parametrize("fit", FITS)
def test_covariance_is_that_of_the_errors(fit, motion, unknowns, dtype):
    """With Gaussian errors the squared error over the covariance is distributed as Fisher's F."""
    batch, points = 4000, 6
    source = normal(batch, points, 3) * torch.tensor([3.0, 1.0, 0.3]) + 5 * normal(batch, 1, 3)
    weights = 0.2 + 5 * uniform(batch, points)
    turn = normal(batch, 3) if motion == "free" else normal(batch, 1) * torch.tensor([0.0, 0.0, 1.0])
    shift = normal(batch, 3) * torch.tensor([1.0, 1.0, 0.0 if motion == "planar" else 1.0])
    truth = Transform(svdrot.axis_angle_to_matrix(turn), shift, torch.ones(batch))
    if fit is procrustes:
        truth = Transform(truth.rotation, 0 * shift, truth.scale)
        unknowns = 3 if motion == "free" else 1
    errors = 1e-2 * normal(batch, points, 3) / weights.sqrt()[..., None]
    pairs = (part.to(dtype) for part in (source, truth.apply(source) + errors, weights))
    found = fit(*pairs, motion=motion)
    spare = 3 * points - unknowns - (fit is umeyama)
    ratio = found.normalized_error(truth).square() / unknowns
    # The share below a quantile of so many draws is exact to two hundredths, by three standard errors.
    for share in (0.5, 0.9):
        below = (ratio < f.ppf(share, unknowns, spare)).double().mean().item()
        assert abs(below - share) < 0.025


@pytest.mark.parametrize("fit", [kabsch, umeyama])
def test_covariance_says_what_pairs_cannot_tell(fit):
    line = torch.arange(5.0, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2.0, -1.0])
    source, target = normal(10, 3), normal(10, 3)
    bad = source.clone()
    bad[3, 0] = torch.nan
    for x, y in ((line, line + 1e-3 * normal(5, 3)), (source[:2], target[:2]), (bad, target)):
        found = fit(x, y)
        assert found.pose_covariance.isnan().all() and found.normalized_error(found).isnan()
    both = fit(torch.stack((bad, source)), torch.stack((target, target)))
    torch.testing.assert_close(both.pose_covariance[1], fit(source, target).pose_covariance)
    assert both.pose_covariance[0].isnan().all() and both.center.shape == (2, 3)
    exact = fit(source, source + 1)
    assert exact.pose_covariance.abs().max() < 1e-24
    flat = fit(source[:, :2], target[:, :2])
    assert flat.pose_covariance.isnan().all() and flat.normalized_error(flat).isnan()
    assert fit(source, target, reflection=True).pose_covariance.isnan().all()
