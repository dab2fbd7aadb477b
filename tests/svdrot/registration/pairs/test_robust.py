"""Robust alignment: wrong pairs change nothing, and what cannot be known is not claimed."""

import math

import numpy as np
import pytest
import torch

import svdrot
from svdrot.registration import KERNELS, Transform, kabsch
from svdrot.registration.pairs import _hypotheses as hypotheses
from svdrot.registration.pairs._hypotheses import Pairs
from svdrot.registration.pairs.robust import METHODS, robust_kabsch, robust_umeyama

NOISE = 0.01
THRESHOLD = 3.5 * NOISE  # 0.7 % of right pairs lie beyond it
SAMPLING = ("consistency", "ransac")
STANDS = {"consistency": 0.98, "ransac": 0.95, "gnc_tls": 0.8, "gnc_geman_mcclure": 0.8, "geman_mcclure": 0.5}
# Of what a least-squares fit in float64 is good for; coordinates are of order 1.
EXACT = 1e-9


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(n, wrong, seed=0, noise=NOISE, scale=1.0):
    """Source in a unit cube, target with the first share `wrong` uniform in a cube about it; the truth."""
    generator = seeded(seed)

    def uniform(*shape):
        return torch.rand(*shape, 3, generator=generator, dtype=torch.float64) - 0.5

    x, rotation = uniform(n), svdrot.random_rotation(generator=generator, dtype=torch.float64)
    truth = Transform(rotation, 4 * uniform(), torch.tensor(scale, dtype=torch.float64))
    y = truth.apply(x) + noise * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    k = round(wrong * n)
    y[:k] = scale * math.sqrt(3) * uniform(k) + truth.translation
    return x, y, truth, torch.arange(n) >= k


def angle(a, b):
    return svdrot.geodesic_distance(a.rotation, b.rotation).item()


def run(method, *arguments, seed=0, **options):
    generator = seeded(seed) if method in SAMPLING else None
    return robust_kabsch(*arguments, method=method, generator=generator, **options)


# Accuracy.


def test_numbers_of_numpy_are_thresholds():
    source, target = torch.randn(2, 9, 3, generator=seeded())
    for threshold in (np.float32(0.5), np.float64(0.5), np.int64(1)):
        assert robust_kabsch(source, target, threshold).rotation.shape == (3, 3)
    for threshold in (np.float32(0), np.nan, "1", None):
        with pytest.raises(ValueError, match="`threshold`"):
            robust_kabsch(source, target, threshold)


def keypoints(n, right, seed):
    """Keypoints in 25 clusters as wide as the threshold, matched at random but for some; the truth."""
    generator = seeded(seed)
    place = 2 * torch.rand(25, 3, generator=generator) - 1
    x = place[torch.randint(25, (n,), generator=generator)] + 0.01 * torch.randn(n, 3, generator=generator)
    turn = svdrot.random_rotation(generator=generator)
    y = x[torch.randperm(n, generator=generator)] @ turn.mT
    known = torch.randperm(n, generator=generator)[:right]
    y[known] = x[known] @ turn.mT + 0.003 * torch.randn(right, 3, generator=generator)
    return x, y, turn


@pytest.mark.parametrize("right, converged", [(210, True), (0, False)])
def test_clusters_meet_by_chance_and_right_pairs_by_more(right, converged):
    for seed in range(3):
        x, y, turn = keypoints(5678, right, seed)
        found = robust_kabsch(x, y, 0.03, generator=seeded(seed))
        assert found.converged == converged
        if converged:
            assert svdrot.geodesic_distance(found.rotation, turn) < 0.01


@pytest.mark.parametrize("method", STANDS)
def test_the_pose_is_that_of_the_right_pairs(method):
    for seed in range(5):
        x, y, truth, right = problem(1000, STANDS[method], seed)
        found = run(method, x, y, THRESHOLD)
        assert angle(found, truth) < 3 * angle(kabsch(x[right], y[right]), truth) + 1e-3
        assert found.converged
        assert (found.inliers == right).double().mean() > 0.98


def test_95_percent_of_wrong_pairs_are_as_good_as_none():
    """In 99 of 100 draws; here 25 of them, all."""
    for seed in range(25):
        x, y, truth, right = problem(1000, 0.95, seed)
        assert angle(run("consistency", x, y, THRESHOLD), truth) < 3 * angle(
            kabsch(x[right], y[right]), truth
        )


def test_ten_right_pairs_among_a_thousand_are_found():
    for seed in range(5):
        x, y, truth, right = problem(1000, 0.99, seed)
        found = run("consistency", x, y, THRESHOLD)
        assert found.converged and (found.inliers & right).sum() >= 9
        assert angle(found, truth) < 0.1


@pytest.mark.parametrize("method", [*METHODS, *KERNELS])
def test_exact_pairs_give_the_exact_transform(method):
    x, y, truth, _ = problem(50, 0, noise=0)
    found = run(method, x, y, THRESHOLD)
    torch.testing.assert_close(found.matrix, truth.matrix, rtol=0, atol=EXACT)
    assert found.converged and found.inliers.all() and found.fitness == 1 and found.rmse < EXACT


@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_similarities(share):
    x, y, truth, right = problem(600, share, seed=2, scale=7.0)
    found = robust_umeyama(x, y, 4 * NOISE, generator=seeded())
    assert angle(found, truth) < 0.02
    assert found.scale.item() == pytest.approx(7, rel=0.01)
    assert found.converged and (found.inliers == right).double().mean() > 0.97


# Laws.


@pytest.mark.parametrize("method", [*METHODS, *KERNELS])
def test_the_transform_is_the_fit_of_its_weights(method):
    x, y, _, _ = problem(300, 0.4, seed=3)
    found = run(method, x, y, THRESHOLD)
    fit = kabsch(x, y, found.weights)
    torch.testing.assert_close(found.matrix, fit.matrix, rtol=0, atol=EXACT)


@pytest.mark.parametrize("method", SAMPLING)
def test_weights_of_a_truncated_cost_are_its_inliers(method):
    x, y, _, _ = problem(500, 0.9, seed=4)
    w = torch.rand(500, generator=seeded(5), dtype=torch.float64) + 0.5
    found = run(method, x, y, THRESHOLD, w)
    torch.testing.assert_close(found.weights, w * found.inliers)
    distance = (found.apply(x) - y).norm(dim=-1)
    assert torch.equal(found.inliers, distance <= THRESHOLD)
    assert found.rmse.item() == pytest.approx(distance[found.inliers].square().mean().sqrt().item())


def test_the_descent_never_raises_the_truncated_cost():
    x, y, truth, _ = problem(400, 0.7, seed=6)
    pairs = Pairs(x, y, torch.rand(400, generator=seeded(), dtype=torch.float64), 0.1, False)
    rotation = truth.rotation @ svdrot.axis_angle_to_matrix(
        0.15 * torch.randn(20, 3, generator=seeded(), dtype=torch.float64)
    )
    now = Transform(rotation, truth.translation.expand(20, 3), torch.ones(20, dtype=torch.float64))
    cost = hypotheses.truncated_costs(now, pairs)
    for _ in range(6):
        now = hypotheses.descend(now, pairs, 1)[0]
        after = hypotheses.truncated_costs(now, pairs)
        assert (after <= cost * (1 + 1e-12)).all()
        cost = after


@pytest.mark.parametrize("method", [*METHODS, *KERNELS])
def test_moving_and_scaling_the_clouds_moves_and_scales_the_result(method):
    x, y, _, _ = problem(300, 0.5, seed=7)
    first = run(method, x, y, THRESHOLD)
    a = svdrot.random_rotation(2, generator=seeded(8), dtype=torch.float64)
    for factor in (2.0**-60, 1.0, 2.0**40):
        moved_x = Transform(a[0], torch.tensor([3.0, -2, 5], dtype=torch.float64), torch.tensor(1.0)).apply(x)
        moved_y = Transform(a[1], torch.tensor([-7.0, 1, 0], dtype=torch.float64), torch.tensor(1.0)).apply(y)
        found = run(method, factor * moved_x, factor * moved_y, factor * THRESHOLD)
        back = a[1].mT @ found.rotation @ a[0]
        assert svdrot.geodesic_distance(back, first.rotation) < 1e-6
        assert torch.equal(found.inliers, first.inliers) and found.converged == first.converged


@pytest.mark.parametrize("method", [*METHODS, *KERNELS])
def test_pairs_that_do_not_count_change_nothing(method):
    x, y, _, _ = problem(200, 0.5, seed=9)
    w = torch.rand(200, generator=seeded(), dtype=torch.float64) + 0.1
    out = torch.arange(200) % 7 == 0
    expected = run(method, x[~out], y[~out], THRESHOLD, w[~out])
    bad = x.clone()
    bad[out, 1] = torch.tensor([torch.nan, torch.inf], dtype=torch.float64).repeat(15)[: out.sum()]
    forms = {
        "nan": run(method, bad, y, THRESHOLD, w),
        "mask": run(method, bad, y, THRESHOLD, w, mask=~out),
        "zero": run(method, bad, y, THRESHOLD, torch.where(out, 0, w)),
        "negative": run(method, x, y, THRESHOLD, torch.where(out, -1, w)),
    }
    for found in forms.values():
        torch.testing.assert_close(found.matrix, expected.matrix, rtol=0, atol=EXACT)
        assert torch.equal(found.inliers[~out], expected.inliers) and not found.inliers[out].any()
        assert (found.weights[out] == 0).all() and found.fitness == expected.fitness


@pytest.mark.parametrize(
    "method", ["gnc_tls", "gnc_geman_mcclure", "geman_mcclure", "huber", "least_squares"]
)
def test_a_batch_is_its_items(method):
    items = [problem(100, share, seed) for seed, share in enumerate((0.0, 0.3, 0.5, 0.6))]
    x, y = (torch.stack([item[k] for item in items]).view(2, 2, 100, 3) for k in (0, 1))
    y[1, 1] = torch.nan
    found = robust_kabsch(x, y, THRESHOLD, method=method)
    assert found.rotation.shape == (2, 2, 3, 3) and found.inliers.shape == (2, 2, 100)
    for k in range(3):
        alone = robust_kabsch(x.view(4, 100, 3)[k], y.view(4, 100, 3)[k], THRESHOLD, method=method)
        torch.testing.assert_close(found.matrix.view(4, 4, 4)[k], alone.matrix, rtol=0, atol=EXACT)
        assert found.iterations.view(4)[k] == alone.iterations
    assert torch.equal(found.rotation[1, 1], torch.eye(3, dtype=torch.float64))
    assert not found.converged[1, 1] and found.fitness[1, 1] == 0


@pytest.mark.parametrize("method", SAMPLING)
def test_a_batch_of_samplers(method):
    x, y, truth, _ = problem(200, 0.6, seed=1)
    found = run(method, x.expand(3, 200, 3), y, THRESHOLD)
    assert found.rotation.shape == (3, 3, 3) and found.converged.all()
    assert (svdrot.geodesic_distance(found.rotation, truth.rotation) < 0.02).all()


@pytest.mark.parametrize("method", SAMPLING)
def test_the_generator_decides(method):
    x, y, _, _ = problem(3000, 0.97, seed=2)
    state = torch.get_rng_state()
    first, second = (run(method, x, y, THRESHOLD, seed=1) for _ in range(2))
    assert torch.equal(first.matrix, second.matrix) and first.iterations == second.iterations
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn from elsewhere


@pytest.mark.parametrize("method", [*METHODS, *KERNELS])
def test_gradients_are_those_of_the_last_fit(method):
    x, y, _, _ = problem(8, 0.25, seed=3)

    def pose(x, y):
        found = run(method, x, y, 10 * NOISE)
        return found.rotation, found.translation

    if method in (*SAMPLING, "gnc_tls", "least_squares"):  # weights that small changes leave as they are
        assert torch.autograd.gradcheck(pose, (x.requires_grad_(), y.requires_grad_()), atol=1e-6)
    else:
        rotation, _ = pose(x.requires_grad_(), y)
        rotation[0, 1].backward()
        assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_result_has_the_dtype_of_the_points(dtype):
    x, y, truth, _ = problem(100, 0.5, noise=0)
    found = run("consistency", x.to(dtype), y.to(dtype), THRESHOLD)
    assert found.rotation.dtype == found.rmse.dtype == found.weights.dtype == dtype
    assert (found.rotation.double() - truth.rotation).abs().max() < 0.01


def test_truncated_weights_are_zero_or_one():
    x, y, _, _ = problem(500, 0.7, seed=5)
    found = robust_kabsch(x, y, THRESHOLD, method="gnc_tls")
    assert found.converged and set(found.weights.tolist()) == {0.0, 1.0}
    assert ((found.weights > 0) == found.inliers).all()


# What cannot be known.


@pytest.mark.parametrize("method", [*METHODS, *KERNELS])
def test_degenerate_pairs_are_defined_and_not_converged(method):
    line = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None] * torch.tensor(
        [1.0, 2, 3], dtype=torch.float64
    )
    cases = {
        "none": torch.zeros(0, 3, dtype=torch.float64),
        "one": torch.ones(1, 3, dtype=torch.float64),
        "two": torch.eye(3, dtype=torch.float64)[:2],
        "line": line,
        "point": torch.ones(40, 3, dtype=torch.float64),
        "nan": torch.full((40, 3), torch.nan, dtype=torch.float64),
    }
    turn = svdrot.random_rotation(generator=seeded(), dtype=torch.float64)
    for name, x in cases.items():
        found = run(method, x, x @ turn.mT + 1, 0.05)
        assert svdrot.is_rotation(found.rotation), name
        assert found.translation.isfinite().all() and found.rmse.isfinite() and found.scale == 1, name
        assert not found.converged, name
        assert found.weights.shape == found.inliers.shape == (len(x),), name


@pytest.mark.parametrize("method", SAMPLING)
def test_pairs_on_a_line_are_told_apart(method):
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None] * torch.tensor([1, 2, 3.0]).double()
    y = x @ svdrot.random_rotation(generator=seeded(), dtype=torch.float64).mT + 1
    wrong = torch.arange(40) < 10
    y[wrong] = torch.randn(10, 3, dtype=torch.float64, generator=seeded(1))
    found = run(method, x, y, THRESHOLD)
    assert torch.equal(found.inliers, ~wrong) and not found.converged
    torch.testing.assert_close(found.apply(x)[~wrong], y[~wrong], rtol=0, atol=EXACT)


@pytest.mark.parametrize("method", SAMPLING)
def test_no_pose_is_claimed_for_pairs_that_are_all_wrong(method):
    for seed in range(6 if method == "consistency" else 2):
        x, y, _, _ = problem(200, 1, seed)
        found = run(method, x, y, THRESHOLD, seed=seed)
        assert not found.converged and svdrot.is_rotation(found.rotation)


def test_pairs_of_which_no_two_agree_give_the_identity():
    x = torch.eye(3, dtype=torch.float64).repeat(2, 1) * torch.arange(1, 7, dtype=torch.float64)[:, None]
    found = run("consistency", x, 1000 * x, 1e-3)
    assert torch.equal(found.matrix, torch.eye(4, dtype=torch.float64))
    assert not found.converged and found.weights.sum() == 0


def test_planes_are_no_problem():
    x, y, truth, _ = problem(300, 0)
    x[:, 2] = 0
    y = truth.apply(x)
    y[:200] = torch.rand(200, 3, generator=seeded(), dtype=torch.float64)
    for method in SAMPLING:
        found = run(method, x, y, THRESHOLD)
        assert found.converged and angle(found, truth) < 0.01


def test_a_long_way_from_the_origin():
    x, y, _, _ = problem(500, 0.9, seed=1)
    away = torch.tensor([1e6, -2e6, 5e5], dtype=torch.float64)
    for method in SAMPLING:
        near, far = run(method, x, y, THRESHOLD), run(method, x + away, y - away, THRESHOLD)
        assert torch.equal(near.inliers, far.inliers)
        assert angle(near, far) < 1e-7


# Kernels against the same sums on tensors.


def some_pairs(n, threshold, share=0.5):
    x, y, _, _ = problem(n, share, seed=n)
    return Pairs(x, y, torch.rand(n, generator=seeded(n), dtype=torch.float64) + 0.1, threshold, False)


@pytest.mark.parametrize("n", [1, 7, 64, 1000])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_truncated_costs_of_the_kernel(n, count):
    pairs = some_pairs(n, 0.3)
    rotation = svdrot.random_rotation(count, generator=seeded(), dtype=torch.float64)
    moves = Transform(
        rotation,
        torch.randn(count, 3, generator=seeded(), dtype=torch.float64),
        torch.ones(count, dtype=torch.float64),
    )
    distance = (moves.apply(pairs.x) - pairs.y).norm(dim=-1)
    expected = (pairs.w * distance.clamp_max(0.3).square()).sum(-1)
    torch.testing.assert_close(hypotheses.truncated_costs(moves, pairs), expected, rtol=1e-12, atol=0)
    rows = torch.cat((rotation.flatten(1), moves.translation), 1)
    torch.testing.assert_close(hypotheses._truncated_costs(rows, pairs, 0.09), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "n, threshold", [(1, 0.1), (2, 0.1), (30, 1e-6), (30, 0.05), (700, 0.02), (900, 0.6)]
)
def test_consistent_sets_of_the_kernel(n, threshold):
    """With nothing that agrees, and with more than the 512 that are looked at."""
    pairs = some_pairs(n, threshold)
    seeds = torch.arange(min(n, 40))
    members, shares = hypotheses.consistent_sets(seeds, 12, pairs)
    expected, expected_shares = hypotheses.consistent_sets_reference(seeds, 12, pairs)
    assert torch.equal(members, expected)
    torch.testing.assert_close(shares, expected_shares, rtol=0, atol=1e-12)


def test_agreement_is_the_difference_of_distances():
    pairs = some_pairs(200, 0.05)
    a, b = torch.cdist(pairs.x, pairs.x), torch.cdist(pairs.y, pairs.y)
    expected = ((a - b).abs() < 0.05) & (a + b > 0.05)
    agrees = hypotheses.agreement(pairs.x, pairs.y, pairs.x, pairs.y, 0.05)
    assert torch.equal(agrees, agrees.mT) and (agrees == expected).double().mean() > 0.9999


def test_shares_are_those_of_a_clique():
    """Eight exact pairs among wrong ones: each has an eighth, the rest die out."""
    x, y, _, right = problem(60, 52 / 60, noise=0, seed=1)
    pairs = Pairs(x, y, torch.ones(60, dtype=torch.float64), 1e-3, False)
    members, shares = hypotheses.consistent_sets(right.nonzero()[:, 0], 12, pairs)
    inside = right[members] & (shares > 1e-3)
    assert (inside.sum(1) == 8).all()
    torch.testing.assert_close(shares[inside], torch.full_like(shares[inside], 1 / 8), rtol=0, atol=1e-6)


# Arguments.


def test_bad_arguments_are_refused():
    x = torch.zeros(5, 3)
    for error, message, call in (
        (ValueError, "`method` must be one of", lambda: robust_kabsch(x, x, 1.0, method="best")),
        (ValueError, "does not keep lengths", lambda: robust_umeyama(x, x, 1.0, method="consistency")),
        (ValueError, "`threshold` must be", lambda: robust_kabsch(x, x, 0.0)),
        (ValueError, "`threshold` must be", lambda: robust_kabsch(x, x, math.nan)),
        (ValueError, "`source` must have shape", lambda: robust_kabsch(x[:, :2], x, 1.0)),
        (ValueError, "`target` must have shape", lambda: robust_kabsch(x, x[:4], 1.0)),
        (ValueError, "`weights` must have shape", lambda: robust_kabsch(x, x, 1.0, torch.ones(4))),
        (TypeError, "`mask` must be a boolean", lambda: robust_kabsch(x, x, 1.0, mask=torch.ones(5))),
        (TypeError, "`mask` must be a boolean", lambda: robust_kabsch(x, x, 1.0, mask=[True] * 5)),
        (ValueError, "must broadcast", lambda: robust_kabsch(x.expand(2, 5, 3), x.expand(3, 5, 3), 1.0)),
        (TypeError, "`source` must be floating point", lambda: robust_kabsch(x.int(), x, 1.0)),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("method", [*METHODS, *KERNELS])
def test_two_pairs_are_fitted_as_by_least_squares(method):
    x = torch.randn(2, 3, dtype=torch.float64, generator=seeded(1))
    y = x @ svdrot.random_rotation(dtype=torch.float64, generator=seeded(2)).mT + 5
    found = run(method, x, y, THRESHOLD)
    torch.testing.assert_close(found.apply(x), y, rtol=0, atol=EXACT)
