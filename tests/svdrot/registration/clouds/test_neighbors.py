"""Nearest neighbors: against all pairs, on bad data, and the GPU kernel in Triton's interpreter."""

import importlib
import math
import sys

import pytest
import torch
from offline_gpu import compiled

import svdrot
from svdrot import _kernels
from svdrot.registration.clouds.neighbors import Followed, Neighbors, nearest

# Squares of differences are exact to a few roundings in both.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14}


def by_all_pairs(query, points, k):
    """Distances and indices (..., N, k), infinite and M where there is none."""
    difference = query[..., :, None, :].double() - points[..., None, :, :].double()
    distance = difference.norm(dim=-1)
    distance = torch.where(distance.isfinite(), distance, torch.inf)
    pad = distance.new_full((*distance.shape[:-1], k), torch.inf)
    distance, index = torch.cat((distance, pad), -1).sort(stable=True, dim=-1)
    m = points.shape[-2]
    return distance[..., :k], torch.where(distance.isfinite(), index, m)[..., :k]


def clouds(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("d", [1, 2, 3, 7])
@pytest.mark.parametrize("k", [1, 5])
def test_neighbors_are_the_nearest_of_all(d, k, dtype):
    query, points = clouds(300, d, dtype=dtype), clouds(517, d, seed=1, dtype=dtype)
    points[::50] = torch.nan
    query[3], query[5] = torch.nan, torch.inf
    distances, indices = Neighbors(points).query(query, k)
    truth, index = by_all_pairs(query, points, k)
    assert distances.dtype == dtype and indices.dtype == torch.long
    if k == 1:
        truth, index = truth[:, 0], index[:, 0]
    torch.testing.assert_close(distances.double(), truth, rtol=TOLERANCE[dtype], atol=0)
    assert torch.equal(indices, index)
    assert distances[3].isinf().all() and (indices[5] == len(points)).all()


@pytest.mark.parametrize("d", [3, 5])
def test_beyond_the_distance_there_is_none(d):
    """A distance of exactly the limit counts."""
    points = torch.zeros(1, d, dtype=torch.float64)
    query = torch.zeros(3, d, dtype=torch.float64)
    query[:, 0] = torch.tensor([0.1, 0.7, 0.7 * (1 + 1e-15)], dtype=torch.float64)
    distances, indices = nearest(query, points, max_distance=0.7)
    assert indices.tolist() == [0, 0, 1]
    assert distances[2] == torch.inf
    distances, indices = nearest(query[:1], points, k=3)
    assert indices.tolist() == [[0, 1, 1]] and distances[0, 1:].isinf().all()


def test_a_batch_is_its_items_and_masked_points_are_nobodys():
    query, points = clouds(2, 1, 40, 3), clouds(3, 60, 3, seed=1)
    mask = torch.rand(3, 60, generator=torch.Generator().manual_seed(2)) < 0.5
    distances, indices = nearest(query, points, 2, mask=mask)
    assert distances.shape == indices.shape == (2, 3, 40, 2)
    truth, index = by_all_pairs(query, torch.where(mask[..., None], points, torch.nan), 2)
    torch.testing.assert_close(distances, truth)
    assert torch.equal(indices, index)


@pytest.mark.parametrize("d", [3, 4])
def test_empty_clouds(d):
    distances, indices = nearest(torch.zeros(4, d), torch.zeros(0, d))
    assert distances.isinf().all() and indices.tolist() == [0, 0, 0, 0]
    assert nearest(torch.zeros(0, d), torch.zeros(4, d))[0].shape == (0,)
    assert nearest(torch.zeros(0, 5, d), torch.zeros(0, 4, d), 2)[0].shape == (0, 5, 2)
    distances, _ = nearest(torch.zeros(4, d), torch.full((3, d), torch.nan))
    assert distances.isinf().all()


@pytest.mark.parametrize("offset", [0, 1e6, -1e12])
@pytest.mark.parametrize("scale", [1e-20, 1, 1e15])
def test_far_from_the_origin_and_in_any_unit(offset, scale):
    grid = torch.cartesian_prod(*[torch.arange(8, dtype=torch.float64)] * 3)
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))
    points = (grid[order] + offset) * scale
    distances, indices = nearest(points, points, 2)
    assert torch.equal(indices[:, 0], torch.arange(len(points)))
    torch.testing.assert_close(distances[:, 1] / scale, torch.ones(len(points)).double(), rtol=1e-3, atol=0)


def test_many_equal_points_cost_no_more():
    """Laser scanners write what they missed as the origin, thousands of times."""
    points = torch.cat((torch.zeros(20_000, 3), clouds(1000, 3, dtype=torch.float32)))
    distances, indices = nearest(points[:2000] + 0.001, points)
    assert (indices < 20_000).all()
    torch.testing.assert_close(distances, torch.full((2000,), 0.001 * 3**0.5))


def test_threads_change_nothing(monkeypatch):
    query, points = clouds(20_000, 3), clouds(5000, 3, seed=1)
    one = Neighbors(points).query(query, 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for a, b in zip(one, Neighbors(points).query(query, 3), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("step", [0.0, 1e-4, 0.02, 0.5])
def test_followed_queries_have_the_neighbors_of_a_new_search(step):
    """However far they move, with equal points among those to be found and queries that find none."""
    points, query = clouds(600, 3), 1.2 * clouds(500, 3, seed=1)
    points[100:110] = points[90:100]
    points[7], query[5] = torch.nan, torch.nan
    tree = Neighbors(points)
    followed = Followed(tree, 0.4)
    turn, shift = svdrot.random_rotation(dtype=torch.float64, generator=torch.Generator()), clouds(3)
    for seed in range(30):
        moved, distances, indices = followed.query(query, turn, shift)
        torch.testing.assert_close(moved, query @ turn.mT + shift, rtol=0, atol=1e-14, equal_nan=True)
        truth, index = tree.query(moved, 1, 0.4)
        assert torch.equal(distances, truth)
        twins = (index >= 90) & (index < 110)
        assert torch.equal(indices[~twins], index[~twins])
        query = query + step * clouds(500, 3, seed=seed)
    assert truth.isinf().any() and truth.isfinite().any()
    assert Followed(Neighbors(points[:0]), 1.0).query(query, turn, shift)[1].isinf().all()


def test_gradients_of_distances():
    query, points = clouds(2, 6, 3).requires_grad_(), clouds(2, 9, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: nearest(x, y, 2)[0], (query, points))
    with torch.no_grad():
        points[0, 4] = query[0, 2]
        points[1, 0] = torch.nan
    distances, _ = nearest(query, points, 2, max_distance=1.0)
    finite = distances[distances.isfinite()].sum()
    for gradient in torch.autograd.grad(finite, (query, points)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((torch.zeros(3), torch.zeros(3, 3)), "`query` and `points`"),
        ((torch.zeros(3, 2), torch.zeros(3, 3)), "`query` and `points`"),
        ((torch.zeros(3, 3), torch.zeros(3, 3), 0), "`k`"),
        ((torch.zeros(3, 3), torch.zeros(3, 3), 1, -1.0), "`max_distance`"),
        ((torch.zeros(3, 3), torch.zeros(3, 3), 1, float("nan")), "`max_distance`"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(ValueError, match=words):
        nearest(*arguments)
    with pytest.raises(ValueError, match="`mask`"):
        nearest(torch.zeros(3, 3), torch.zeros(3, 3), mask=torch.ones(2, dtype=torch.bool))
    with pytest.raises(TypeError, match="`mask`"):
        nearest(torch.zeros(3, 3), torch.zeros(3, 3), mask=[True] * 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"\(2,\) of `query`, \(4,\) of `points`"):
        nearest(torch.zeros(2, 3, 3), torch.zeros(4, 3, 3))
    with pytest.raises(TypeError, match="`query`"):
        nearest(torch.zeros(3, 3, dtype=torch.long), torch.zeros(3, 3))


# On other devices.


def _backend(name):
    pytest.importorskip("triton")
    return importlib.import_module(f"svdrot._kernels.{name}.neighbors")


@pytest.mark.parametrize("backend", ["gpu", "operations"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("d", [2, 3, 6])
def test_other_devices_find_the_same_and_of_ties_the_first(d, dtype, backend):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    query, points = clouds(2, 45, d, dtype=dtype), clouds(2, 70, d, seed=1, dtype=dtype)
    points[0, 60] = points[0, 9]
    query[0, 0] = points[0, 9]
    points[1, 5], query[1, 3], query[1, 4] = torch.nan, torch.nan, torch.inf
    find = _backend(backend).nearest
    distances, indices = find(query.to(device), points.to(device), 3, math.inf)
    truth, index = by_all_pairs(query, points, 3)
    torch.testing.assert_close(distances.cpu().double(), truth, rtol=TOLERANCE[dtype], atol=0)
    assert torch.equal(indices.cpu(), index)
    assert indices[0, 0, :2].tolist() == [9, 60]
    both = query.to(device, torch.float64), points.to(device, torch.float64)
    limit = find(*both, 3, math.inf)[0][0, 7, 1].item()
    near, index = find(*both, 3, limit)
    assert near[0, 7, 1] == limit and near[0, 7, 2].isinf() and index[0, 7, 2] == 70
    assert find(query[:, :0], points, 2, math.inf)[0].shape == (2, 0, 2)
    few, absent = find(query.to(device), points[:, :2].to(device), 3, math.inf)
    assert few[0, :, 2].isinf().all() and (absent[0, :, 2] == 2).all()
    none, absent = find(query.to(device), points[:, :0].to(device), 1, math.inf)
    assert none.isinf().all() and not absent.any()


@pytest.mark.parametrize("backend", ["gpu", "operations"])
def test_half_precision_is_a_format_of_storage(backend):
    """The square of 300 is none of its numbers."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    query = torch.zeros(1, 1, 3, dtype=torch.float16, device=device)
    points = torch.tensor([[[400.0, 0, 0], [300.0, 0, 0]]], dtype=torch.float16, device=device)
    distances, indices = _backend(backend).nearest(query, points, 2, math.inf)
    assert distances.dtype == torch.float16
    assert distances.flatten().tolist() == [300, 400] and indices.flatten().tolist() == [1, 0]


def test_a_gpu_without_triton_takes_torch_operations(monkeypatch):
    query, points = clouds(2, 45, 3), clouds(2, 70, 3, seed=1)
    expected = nearest(query, points, 3)
    monkeypatch.setattr(_kernels, "side", lambda x: "gpu")
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "svdrot._kernels.gpu.neighbors", raising=False)
    _kernels._in_triton.cache_clear()
    with pytest.warns(RuntimeWarning, match="falling back to torch operations.*Install `triton"):
        found = nearest(query, points, 3)
    _kernels._in_triton.cache_clear()
    torch.testing.assert_close(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_the_kernel_compiles_without_spills():
    pytest.importorskip("triton")
    found = compiled("neighbors")
    assert len(found) == 8
    for case in found:
        assert case["stack"] == case["local"] == 0, case
        assert case["registers"] <= (96 if case["dtype"] == "fp32" else 168), case


def test_the_gpu_finds_the_neighbors_of_the_cpu(gpu):
    query, points = clouds(2, 3000, 3), clouds(2, 2000, 3, seed=1)
    distances, indices = nearest(query, points, 4, 0.3)
    there = nearest(query.to(gpu), points.to(gpu), 4, 0.3)
    torch.testing.assert_close(there[0].cpu(), distances)
    assert torch.equal(there[1].cpu(), indices)
    single = Neighbors(points[0].to(gpu)).query(query[0].to(gpu), 1)
    assert torch.equal(single[1].cpu(), nearest(query[0], points[0])[1])


@pytest.mark.parametrize("d", [2, 3, 5])
def test_the_limit_is_included_and_what_is_beyond_is_not(d):
    points = torch.zeros(1, d, dtype=torch.float64)
    query = torch.zeros(3, d, dtype=torch.float64)
    query[1, 0], query[2, 0] = 1, 1 + 2**-52
    for limit, found in ((0.0, [0, 1, 1]), (1.0, [0, 0, 1])):
        distances, indices = nearest(query, points, 1, limit)
        assert indices.tolist() == found and distances.isfinite().tolist() == [i == 0 for i in found]


def test_an_empty_batch_has_gradients():
    query, points = torch.zeros(0, 4, 3, requires_grad=True), torch.zeros(2, 3)
    distances, indices = nearest(query, points)
    assert distances.shape == indices.shape == (0, 4)
    distances.sum().backward()
    assert query.grad.shape == query.shape


@pytest.mark.parametrize("k", [0, -1, 1.5, float("nan"), float("inf")])
def test_how_many_is_a_whole_number(k):
    with pytest.raises(ValueError, match="`k` must be a whole number, at least 1"):
        nearest(torch.zeros(1, 3), torch.zeros(2, 3), k)
