"""Alignments limited to motions about an axis: the best one, its derivatives, and where there is none."""

from functools import partial

import pytest
import torch

import svdrot
from svdrot.registration import Transform, kabsch, pad, procrustes, umeyama

FITS = [procrustes, kabsch, umeyama]
MOTIONS = ["yaw", "planar"]
AXES = {"z": None, "oblique": torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)}
ROUNDING = 1e-14  # absolute, of rotations in float64; measured: 7e-16

generator = torch.Generator()


@pytest.fixture(autouse=True)
def same_numbers_in_every_test():
    generator.manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def unit(axis):
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) if axis is None else axis.double()
    return axis / axis.norm(dim=-1, keepdim=True)


def about(axis, angle):
    return svdrot.axis_angle_to_matrix(angle[..., None] * unit(axis))


def noisy_pairs(batch=4, points=12, noise=0.5):
    """Clouds turned by any rotation, moved and disturbed, with weights: no motion about an axis fits well."""
    source = normal(batch, points, 3) * torch.tensor([1.0, 2.0, 3.0]) + normal(batch, 1, 3)
    rotation = svdrot.random_rotation(batch, dtype=torch.float64, generator=generator)
    target = 1.5 * source @ rotation.mT + normal(batch, 1, 3) + noise * normal(batch, points, 3)
    return source, target, torch.rand(batch, points, dtype=torch.float64, generator=generator)


def cost(transform, source, target, weights):
    return (weights[..., None] * (transform.apply(source) - target).square()).sum((-2, -1))


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("fit", FITS)
def test_no_other_motion_about_the_axis_is_better(fit, motion, axis):
    source, target, weights = noisy_pairs()
    a = unit(AXES[axis])
    best = fit(source, target, weights, motion=motion, axis=AXES[axis])
    torch.testing.assert_close(best.rotation @ a, a.expand(4, 3), rtol=0, atol=ROUNDING)
    torch.testing.assert_close(
        best.rotation @ best.rotation.mT, torch.eye(3).double().expand(4, 3, 3), rtol=0, atol=ROUNDING
    )
    if motion == "planar" or fit is procrustes:
        torch.testing.assert_close(best.translation @ a, torch.zeros(4).double(), rtol=0, atol=ROUNDING)
    least = cost(best, source, target, weights)
    expected = (least / weights.sum(-1)).sqrt()
    torch.testing.assert_close(best.residual, expected, rtol=1e-12, atol=0)
    # All angles, of each of which translation and scale are disturbed as far as they may be; and small ones.
    for size in (1e-4, 1e-2, 1.0):
        angle = torch.linspace(-torch.pi, torch.pi, 2001, dtype=torch.float64)[:, None] * size
        shift = 0 * normal(2001, 1, 3) if fit is procrustes else size * normal(2001, 4, 3)
        shift[::2] = 0
        if motion == "planar":
            shift = shift - (shift @ a)[..., None] * a
        stretch = (
            (1 + size * normal(2001, 4)).clamp_min(0) if fit is umeyama else torch.ones(2001, 4).double()
        )
        stretch[::3] = 1
        rotation = about(AXES[axis], angle.expand(-1, 4)) @ best.rotation
        other = Transform(rotation, best.translation + shift, best.scale * stretch)
        assert (cost(other, source, target, weights) >= least * (1 - 1e-12)).all()
        # With the best translation of each angle, which no disturbance finds.
        w = weights / weights.sum(-1, keepdim=True)
        p, q = ((w[..., None] * z).sum(-2) for z in (source, target))
        joined = q - best.scale[:, None] * (rotation @ p[..., None])[..., 0]
        joined = joined - (joined @ a)[..., None] * a if motion == "planar" else joined
        if fit is not procrustes:
            other = Transform(rotation, joined, best.scale.expand(2001, 4))
            assert (cost(other, source, target, weights) >= least * (1 - 1e-12)).all()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("fit", FITS)
def test_a_motion_of_the_kind_is_found_exactly(fit, motion, axis):
    a, source = unit(AXES[axis]), normal(5, 3, 3)
    shift = normal(5, 3)
    shift = shift - (shift @ a)[:, None] * a if motion == "planar" else shift
    shift = 0 * shift if fit is procrustes else shift
    scale = torch.linspace(0.5, 2, 5).double() if fit is umeyama else torch.ones(5).double()
    true = Transform(about(AXES[axis], 3 * normal(5)), shift, scale)
    found = fit(source, true.apply(source), motion=motion, axis=AXES[axis])
    for name in ("rotation", "translation", "scale"):
        torch.testing.assert_close(getattr(found, name), getattr(true, name), rtol=0, atol=1e-13)
    assert (found.gap > 0.1).all() and (found.rank == 2).all() and (found.residual < 1e-14).all()


def test_two_pairs_determine_a_heading_but_no_attitude():
    source, turn = normal(2, 3), about(None, torch.tensor(2.0).double())
    free = kabsch(source, source @ turn.mT)
    heading = kabsch(source, source @ turn.mT, motion="yaw")
    assert free.gap < 1e-14 and heading.gap > 0.9
    torch.testing.assert_close(heading.rotation, turn, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("size", [1e-200, 1e-20, 1e15, 1e200])
def test_length_and_sign_of_the_axis_and_units_of_the_points_do_not_matter(size):
    source, target, weights = noisy_pairs()
    axis = AXES["oblique"]
    known = umeyama(source, target, weights, motion="planar", axis=axis)
    found = umeyama(source, target, weights, motion="planar", axis=-size * axis)
    torch.testing.assert_close(found.matrix, known.matrix, rtol=1e-13, atol=1e-13)
    size = min(max(size, 1e-100), 1e100)
    found = umeyama(size * source, size * target, weights, motion="planar", axis=axis)
    torch.testing.assert_close(found.rotation, known.rotation, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(found.translation / size, known.translation, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found.gap, known.gap, rtol=1e-12, atol=0)


def test_a_change_of_frame_turns_the_axis_with_it():
    source, target, weights = noisy_pairs()
    frame = svdrot.random_rotation(4, dtype=torch.float64, generator=generator)
    known = umeyama(source, target, weights, motion="planar", axis=AXES["oblique"])
    turned = umeyama(
        source @ frame.mT, target @ frame.mT, weights, motion="planar", axis=frame @ AXES["oblique"]
    )
    torch.testing.assert_close(turned.rotation, frame @ known.rotation @ frame.mT, rtol=0, atol=1e-13)
    torch.testing.assert_close(turned.scale, known.scale)
    torch.testing.assert_close(turned.gap, known.gap)
    torch.testing.assert_close(turned.residual, known.residual)


def test_far_from_the_origin_nothing_is_lost():
    source = normal(20, 3).float()
    true = about(None, torch.tensor(1.0).double())
    far = torch.tensor([1e6, -2e6, 1e6])
    rounded = source + far  # to a sixteenth
    target = (rounded.double() @ true.mT).float()
    found = kabsch(rounded, target, motion="planar")
    by_double = kabsch(rounded.double(), target.double(), motion="planar")
    torch.testing.assert_close(found.rotation.double(), by_double.rotation, rtol=0, atol=1e-6)
    left = by_double.apply(rounded.double()) - target.double()
    expected = left.square().sum(-1).mean().sqrt()
    torch.testing.assert_close(by_double.residual, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.residual.double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("fit", FITS)
def test_gradients_to_points_weights_and_axis(fit, motion, axis):
    leaves = [x.requires_grad_() for x in (*noisy_pairs(2, 3), unit(AXES[axis]).clone())]

    def outputs(source, target, weights, axis):
        found = fit(source, target, weights, motion=motion, axis=2 * axis)
        kept = {procrustes: 1, kabsch: 2, umeyama: 3}[fit]
        return (found.rotation, found.translation, found.scale)[:kept]

    assert torch.autograd.gradcheck(outputs, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(outputs, leaves)


def test_transforms_of_torch_return_whole_alignments():
    pairs, axes = noisy_pairs(3, 10), normal(3, 3)
    fit = partial(umeyama, motion="planar")
    expected = fit(*pairs, axis=axes)
    each = torch.func.vmap(lambda x, y, w, axis: fit(x, y, w, axis=axis))(*pairs, axes)
    one_axis = torch.func.vmap(fit)(*pairs)
    names = ("rotation", "translation", "scale", "covariance", "residual", "gap", "rank")
    for found, wanted in ((each, expected), (one_axis, fit(*pairs))):
        assert found.motion == "planar"
        for name in names:
            torch.testing.assert_close(getattr(found, name), getattr(wanted, name))
    twice = [torch.stack((x, x)) for x in pairs]
    for nested in (torch.func.vmap(torch.func.vmap(fit))(*twice), torch.func.vmap(fit)(*twice)):
        for name in names:
            torch.testing.assert_close(getattr(nested, name)[1], getattr(fit(*pairs), name))


def test_compiled_and_exported():
    fit = partial(umeyama, motion="planar")
    leaves = [x.requires_grad_() for x in noisy_pairs(3, 10)]
    expected = torch.autograd.grad(fit(*leaves).translation.sum(), leaves)
    compiled = torch.compile(lambda *pairs: fit(*pairs), fullgraph=True, backend="aot_eager")
    compiled(*leaves).translation.sum().backward()
    for leaf, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, gradient)

    class AsModule(torch.nn.Module):
        def forward(self, *pairs):
            return fit(*pairs)

    pairs = tuple(x.detach() for x in leaves)
    exported = torch.export.export(AsModule(), pairs).module()(*pairs)
    torch.testing.assert_close(exported.rotation, fit(*pairs).rotation)
    torch.testing.assert_close(exported.gap, fit(*pairs).gap)


def test_masked_pairs_weights_and_lists_leave_out_the_same():
    source, target, weights = noisy_pairs(2, 9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, 5:] = False
    spoiled = torch.where(mask[..., None], source, torch.nan)
    masked = umeyama(spoiled, target, weights, mask=mask, motion="planar")
    weighted = umeyama(spoiled, target, torch.where(mask, weights, 0), motion="planar")
    short = [z[i, : 5 if i == 0 else 9] for z in (source, target, weights) for i in range(2)]
    listed = umeyama(short[:2], short[2:4], short[4:], motion="planar")
    assert pad(short[:2])[0].shape == (2, 9, 3)
    for found in (weighted, listed):
        torch.testing.assert_close(found.matrix, masked.matrix, rtol=0, atol=1e-14)
    alone = umeyama(*(z[0, :5] for z in (source, target, weights)), motion="planar")
    torch.testing.assert_close(masked.matrix[0], alone.matrix, rtol=0, atol=1e-13)


def test_each_cloud_may_have_its_axis():
    source, target, weights = noisy_pairs(3)
    axes = normal(2, 3, 3)
    together = kabsch(source, target, weights, motion="yaw", axis=axes)
    assert together.rotation.shape == (2, 3, 3, 3) and together.gap.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            alone = kabsch(source[j], target[j], weights[j], motion="yaw", axis=axes[i, j])
            torch.testing.assert_close(together.matrix[i, j], alone.matrix, rtol=0, atol=1e-13)
            torch.testing.assert_close(together.gap[i, j], alone.gap)
            torch.testing.assert_close(together.residual[i, j], alone.residual)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("motion", MOTIONS)
def test_points_on_a_parallel_of_the_axis_turn_nothing(motion, axis):
    a = unit(AXES[axis])
    heights = normal(2, 6, 1)
    leaves = [x.clone().requires_grad_() for x in (heights * a + normal(3), 2 * heights * a + normal(3))]
    found = kabsch(*leaves, motion=motion, axis=AXES[axis])
    torch.testing.assert_close(found.rotation, torch.eye(3).double().expand(2, 3, 3), rtol=0, atol=ROUNDING)
    assert (found.gap == 0).all() and (found.rank == 0).all()
    for gradient in torch.autograd.grad(found.rotation.square().sum() + found.rotation.sum(), leaves):
        assert (gradient == 0).all()
    shift = (leaves[1] - leaves[0]).mean(-2)
    shift = shift - (shift @ a)[:, None] * a if motion == "planar" else shift
    torch.testing.assert_close(found.translation, shift, rtol=0, atol=1e-14)


def test_opposite_shapes_have_no_best_heading():
    x = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], dtype=torch.float64)
    y = x * torch.tensor([1.0, -1.0, 1.0])  # a mirror image: every turn is as good
    leaves = [x.requires_grad_(), y.requires_grad_()]
    found = kabsch(*leaves, motion="yaw")
    assert found.gap < 1e-15 and found.rank == 2
    for gradient in torch.autograd.grad(found.rotation.sum(), leaves):
        assert (gradient == 0).all()


def test_near_a_coordinate_axis_small_distances_count():
    source = normal(8, 3) * torch.tensor([1e-9, 1e-9, 1.0])
    turn = about(None, torch.tensor(1.0).double())
    found = kabsch(source, source @ turn.mT, motion="yaw")
    torch.testing.assert_close(found.rotation, turn, rtol=0, atol=1e-12)


def test_heights_that_go_the_other_way_give_no_negative_scale():
    heights = torch.linspace(-1, 1, 5).double()[:, None] * unit(None)
    leaves = [heights.clone().requires_grad_(), -heights]
    found = umeyama(*leaves, motion="yaw")
    assert found.scale == 0 and torch.equal(found.rotation, torch.eye(3).double())
    (gradient,) = torch.autograd.grad(found.scale, leaves[:1])
    assert (gradient == 0).all()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("motion", MOTIONS)
def test_nothing_to_go_by_and_bad_numbers(fit, motion):
    points = normal(2, 5, 3)
    for found in (
        fit(points[:, :0], points[:, :0], motion=motion),
        fit(points, points + 1, torch.zeros(2, 5).double(), motion=motion),
    ):
        assert torch.equal(found.matrix, torch.eye(4).double().expand(2, 4, 4))
        assert not found.gap.any() and not found.rank.any() and not found.residual.any()
    source, target, weights = noisy_pairs(4)
    clean = fit(source, target, weights, motion=motion)
    source[1, 3, 2], target[2, 4, 0], weights[3, 5] = torch.nan, torch.inf, -1
    axes = unit(None).repeat(4, 1)
    found = fit(source, target, weights, motion=motion, axis=axes)
    assert torch.equal(found.rotation[0], clean.rotation[0])
    for name in ("rotation", "scale", "gap", "residual"):
        if name != "scale" or fit is umeyama:
            assert getattr(found, name)[1:].isnan().all(), name
    axes[0] = 0
    found = fit(*noisy_pairs(4), motion=motion, axis=axes)
    assert found.rotation[0].isnan().all() and found.gap[0].isnan()
    assert found.rotation[1:].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_results_have_the_type_of_the_points(dtype):
    source, target, _ = (x.to(dtype) for x in noisy_pairs())
    found = kabsch(source, target, motion="yaw", axis=AXES["oblique"])
    wanted = kabsch(source.double(), target.double(), motion="yaw", axis=AXES["oblique"])
    assert found.rotation.dtype == found.translation.dtype == found.scale.dtype == dtype
    torch.testing.assert_close(
        found.rotation.double(), wanted.rotation, rtol=0, atol=4 * torch.finfo(dtype).eps
    )


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, "`motion` must be one of free, yaw, planar; got 'roll'", {"motion": "roll"}),
        (ValueError, '`axis` is that of a motion .* got one for `motion` "free"', {"axis": torch.ones(3)}),
        (ValueError, '`reflection` .* `motion` "yaw"', {"motion": "yaw", "reflection": True}),
        (ValueError, r"`axis` must have shape \(..., 3\)", {"motion": "yaw", "axis": torch.ones(2)}),
        (TypeError, "`axis` must be a tensor", {"motion": "yaw", "axis": (0, 0, 1)}),
        (TypeError, "`axis` must be floating point", {"motion": "yaw", "axis": torch.tensor([0, 0, 1])}),
        (ValueError, "`axis`", {"motion": "yaw", "axis": torch.ones(7, 3)}),
    ],
)
def test_bad_arguments_are_named(error, match, arguments):
    for fit in FITS:
        with pytest.raises(error, match=match):
            fit(torch.ones(2, 4, 3), torch.ones(2, 4, 3), **arguments)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_motions_about_an_axis_are_of_space(d):
    with pytest.raises(ValueError, match=f'`motion` must be "free" for points of {d} dimensions; got "yaw"'):
        kabsch(torch.ones(4, d), torch.ones(4, d), motion="yaw")
