"""The kernels over pairs of points: every backend against the reference, which is tested by its laws."""

import importlib
import inspect

import pytest
import torch

from svdrot import kernels
from svdrot.kernels import pairs_reference

CONTRACT = ["pivots", "moments", "moments_gradient", "misfit"]
SEGMENTS = {"pairs_cpu": ("SEGMENT", 512), "pairs_gpu": ("BLOCKS", 2)}  # small, to have several
BACKENDS = [*SEGMENTS]  # the latter in Triton's interpreter where there is no CUDA device
DTYPES = [torch.float32, torch.float64]

# Sizes, points, whether there are weights: less than a vector, a tile and some, several segments, one, none.
LAYOUTS = [(3, 7, False), (1, 300, True), (2, 1100, True), (2, 1, True), (2, 0, True)]
TOLERANCE = 32  # units of rounding of the largest entry; measured: 9


def draw(batch, points, weighted, dtype, offset=5.0):
    x = torch.randn(batch, points, 3, dtype=dtype) + offset
    y = torch.randn(batch, points, 3, dtype=dtype) + 3 * x
    w = torch.rand(batch, points, dtype=dtype) if weighted else None
    if w is not None and points > 4:
        w[:, 2], x[:, 2], y[:, 3], w[:, 3] = 0, torch.nan, torch.inf, 0
        w[:, 4] = 0
    pivots = torch.cat((x[:, 0], y[:, 0]), -1).double() if points else torch.zeros(batch, 6).double()
    return x, y, w, pivots


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    name, size = SEGMENTS[request.param]
    monkeypatch.setattr(f"svdrot.kernels.{request.param}.{name}", size)
    module = importlib.import_module(f"svdrot.kernels.{request.param}")
    device = "cuda" if request.param == "pairs_gpu" and torch.cuda.is_available() else "cpu"

    def call(name, *arguments):
        moved = [a.to(device) if isinstance(a, torch.Tensor) else a for a in arguments]
        found = getattr(module, name)(*moved)
        found = found if isinstance(found, tuple) else (found,)
        return [None if f is None else f.cpu() for f in found]

    return call


def assert_close(found, expected, dtype):
    for a, b in zip(found, expected, strict=True):
        if b is None:
            assert a is None
            continue
        assert a.dtype == b.dtype and a.shape == b.shape
        scale = b.abs().amax() if b.numel() else 0
        torch.testing.assert_close(a, b, rtol=0, atol=float(TOLERANCE * torch.finfo(dtype).eps * scale))


@pytest.mark.parametrize("module", BACKENDS)
def test_backends_have_the_functions_of_the_contract(module):
    module = importlib.import_module(f"svdrot.kernels.{module}")
    for name in CONTRACT:
        of_reference = inspect.signature(getattr(pairs_reference, name))
        assert inspect.signature(getattr(module, name)) == of_reference


def test_select():
    points = torch.zeros(1, 4, 3)
    assert kernels.select_pairs(points).__name__ == "svdrot.kernels.pairs_cpu"
    assert kernels.select_pairs(points[..., :2]) is pairs_reference
    assert kernels.select_pairs(points.to("meta")) is pairs_reference


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_backends_agree_with_the_reference(backend, layout, centred, dtype):
    torch.manual_seed(0)
    x, y, w, pivots = draw(*layout, dtype)
    assert_close(backend("pivots", x, y, w), [pairs_reference.pivots(x, y, w)], torch.float64)
    pivots = pivots if centred else pivots * 0
    m = pairs_reference.moments(x, y, w, pivots, centred)
    assert_close(backend("moments", x, y, w, pivots, centred), [m], torch.float64)
    g = torch.randn_like(m)
    expected = pairs_reference.moments_gradient(x, y, w, pivots, m, g)
    assert_close(backend("moments_gradient", x, y, w, pivots, m, g), expected, dtype)
    r = torch.randn(len(x), 3, 3, dtype=torch.float64)
    expected = pairs_reference.misfit(x, y, w, pivots, m, r)
    assert_close(backend("misfit", x, y, w, pivots, m, r), [expected], torch.float64)


def test_what_is_wrong_in_a_cloud_stays_there(backend):
    torch.manual_seed(0)
    x, y, w, pivots = draw(4, 300, True, torch.float32)
    clean = backend("moments", x, y, w, pivots, True)[0]
    x[1, 7], w[2, 200] = torch.nan, -1
    (m,) = backend("moments", x, y, w, pivots, True)
    assert torch.equal(m[[0, 3]], clean[[0, 3]])
    assert m[1:3, 7:].isnan().all()
    gx, gy, gw = backend("moments_gradient", x, y, w, pivots, m, torch.ones_like(m))
    for g in (gx, gy, gw):
        assert g[[0, 3]].isfinite().all() and g[1, 7].isnan().all()


def test_centred_moments_are_those_of_two_passes(backend):
    """With the cloud far away, and far from its pivot."""
    torch.manual_seed(0)
    x, y, w, pivots = draw(3, 1000, True, torch.float64, offset=1e6)
    x[:, 0] += 1e3
    pivots[:, :3] = x[:, 0]
    m = backend("moments", x, y, w, pivots, True)[0]
    live = w != 0
    for i in range(len(x)):
        a, b, v = ((z[i, live[i]].double()) for z in (x, y, w))
        a, b, v = a - pivots[i, :3], b - pivots[i, 3:], v[:, None] / v.sum()
        mean_a, mean_b = (v * a).sum(0), (v * b).sum(0)
        covariance = (v * (b - mean_b)).T @ (a - mean_a)
        torch.testing.assert_close(m[i, 1:7], torch.cat((mean_a, mean_b)), rtol=1e-13, atol=1e-9 * 1e-4)
        torch.testing.assert_close(m[i, 7:16].view(3, 3), covariance, rtol=1e-13, atol=1e-12)
