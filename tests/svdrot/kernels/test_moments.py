"""The kernels over pairs of points: every backend against the reference, which is tested by its laws."""

import importlib
import inspect
import math

import pytest
import torch

from svdrot import _kernels, random_rotation, special_orthogonalize
from svdrot._formulas.poses import pose
from svdrot._kernels.operations import pairs as pairs_reference
from svdrot.engine import door

CONTRACT = ["moments", "moments_gradient", "misfit"]
SEGMENTS = {"cpu.pairs": ("SEGMENT", 512), "gpu.pairs": ("BLOCKS", 2)}  # small, to have several
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
    return x, y, w


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    name, size = SEGMENTS[request.param]
    monkeypatch.setattr(f"svdrot._kernels.{request.param}.{name}", size)
    module = importlib.import_module(f"svdrot._kernels.{request.param}")
    device = "cuda" if request.param == "gpu.pairs" and torch.cuda.is_available() else "cpu"

    def call(name, *arguments):
        moved = torch.utils._pytree.tree_map_only(torch.Tensor, lambda a: a.to(device), arguments)
        found = getattr(module, name)(*moved)
        found = found if isinstance(found, tuple) else (found,)
        return [None if f is None else f.cpu() for f in found]

    return call


def assert_close(found, expected, precision, dtype=None):
    for a, b in zip(found, expected, strict=True):
        if b is None:
            assert a is None
            continue
        assert a.dtype == (dtype or precision) and a.shape == b.shape
        scale = b.detach().abs().amax() if b.numel() else 0
        torch.testing.assert_close(a, b, rtol=0, atol=float(TOLERANCE * torch.finfo(precision).eps * scale))


@pytest.mark.parametrize("module", BACKENDS)
def test_backends_have_the_functions_of_the_contract(module):
    module = importlib.import_module(f"svdrot._kernels.{module}")
    for name in CONTRACT:
        own, wanted = (inspect.signature(getattr(m, name)).parameters for m in (module, pairs_reference))
        assert [*own] == [*wanted]
    here = [f for n, f in inspect.getmembers(module, inspect.isfunction) if not n.startswith("_")]
    assert sorted(CONTRACT) == sorted(f.__name__ for f in here if f.__module__ == module.__name__)


def test_select():
    points = torch.zeros(1, 4, 3)
    assert _kernels.select_pairs(points).__name__ == "svdrot._kernels.cpu.pairs"
    assert _kernels.select_pairs(points[..., :2]) is pairs_reference
    assert _kernels.select_pairs(points.to("meta")) is pairs_reference


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_backends_agree_with_the_reference(backend, layout, centered, dtype):
    torch.manual_seed(0)
    x, y, w = draw(*layout, dtype)
    m, pivots = pairs_reference.moments(x, y, w, centered)
    found, where = backend("moments", x, y, w, centered)
    assert torch.equal(where, pivots)
    for part in (slice(1), slice(1, 7), slice(7, 16), slice(16, 17)):
        assert_close([found[:, part]], [m[:, part]], dtype, torch.float64)
    g = torch.randn_like(m)
    expected = pairs_reference.moments_gradient(x, y, w, pivots, m, g)
    assert_close(backend("moments_gradient", x, y, w, pivots, m, g), expected, dtype)
    r = torch.randn(len(x), 3, 3, dtype=torch.float64)
    expected = pairs_reference.misfit(x, y, w, pivots, m, r)
    assert_close(backend("misfit", x, y, w, pivots, m, r), [expected], dtype, torch.float64)


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("given", ["rtsc", "r", "t", "s", "c"])
def test_poses_of_moments_and_their_gradients(given, scaled, centered):
    """The formula against torch operations around the projection; 20 are more than a block and a part."""
    torch.manual_seed(0)
    m = torch.rand(20, 17, dtype=torch.float64)
    m[:, 7:16] = (random_rotation(20, dtype=torch.float64) + 0.1 * m[:, 7:16].view(-1, 3, 3)).flatten(1)
    m[4, 16] = 0  # a single point
    m.requires_grad_()
    pivots = torch.randn(20, 6, dtype=torch.float64)
    covariance = pairs_reference.split(m)[3]
    nearest = special_orthogonalize(covariance)
    expected = *pairs_reference.placed(m, pivots, nearest, centered, scaled, torch.float64), covariance
    *found, again = door.apply(pose(centered, scaled, torch.float64), (), (m, pivots))
    assert torch.equal(again, found[0])
    assert_close(found, expected, torch.float64)
    pairs = [(a, b) for name, a, b in zip("rtsc", found, expected, strict=True) if name in given]
    pairs = [(a, b) for a, b in pairs if b.requires_grad]
    if not pairs:  # of a scale that is 1, a translation that is 0
        return
    g = [torch.randn_like(a) for a, _ in pairs]
    own, wanted = (torch.autograd.grad([pair[k] for pair in pairs], m, g) for k in (0, 1))
    assert_close(own, wanted, torch.float64)


def test_what_is_wrong_in_a_cloud_stays_there(backend):
    torch.manual_seed(0)
    x, y, w = draw(4, 300, True, torch.float32)
    clean, _ = backend("moments", x, y, w, True)
    x[1, 7], w[2, 200] = torch.nan, -1
    m, pivots = backend("moments", x, y, w, True)
    assert torch.equal(m[[0, 3]], clean[[0, 3]])
    assert m[1:3, 7:].isnan().all()
    gx, gy, gw = backend("moments_gradient", x, y, w, pivots, m, torch.ones_like(m))
    for g in (gx, gy, gw):
        assert g[[0, 3]].isfinite().all() and g[1, 7].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_centered_moments_are_those_of_two_passes(backend, dtype):
    """With the cloud far away, and far from its pivot, which counts for little."""
    torch.manual_seed(0)
    x, y, w = draw(3, 1000, True, dtype, offset=1e6)
    x[:, 0] += 1e3
    w[:, 0] = 1e-6
    m, pivots = backend("moments", x, y, w, True)
    eps = torch.finfo(dtype).eps
    live = w != 0
    for i in range(len(x)):
        a, b, v = ((z[i, live[i]].double()) for z in (x, y, w))
        near_a, near_b, v = a[1], b[1], v[:, None] / v.sum()
        a, b = a - near_a, b - near_b
        mean_a, mean_b = (v * a).sum(0), (v * b).sum(0)
        covariance = (v * (b - mean_b)).T @ (a - mean_a)
        size = ((v * (a - mean_a).square()).sum() * (v * (b - mean_b).square()).sum()).sqrt().item()
        means = torch.cat((mean_a + (near_a - pivots[i, :3]), mean_b + (near_b - pivots[i, 3:])))
        torch.testing.assert_close(m[i, 1:7], means, rtol=0, atol=TOLERANCE * eps * (size**0.5 + 1e3))
        torch.testing.assert_close(m[i, 7:16].view(3, 3), covariance, rtol=0, atol=TOLERANCE * eps * size)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_moments_of_any_size(backend, size):
    """Whose squares are beyond float32."""
    torch.manual_seed(0)
    x, y, w = draw(2, 300, True, torch.float32, offset=0.5)
    m, pivots = backend("moments", x, y, w, True)
    power = 2.0 ** round(math.log2(size))
    scaled, _ = backend("moments", power * x, y / power, w, True)
    torch.testing.assert_close(scaled[:, 7:16], m[:, 7:16], rtol=0, atol=1e-5)
    torch.testing.assert_close(scaled[:, 16] / power**2, m[:, 16], rtol=1e-5, atol=0)
    g = torch.randn_like(m)
    scale = torch.ones_like(m)
    scale[:, 1:4], scale[:, 4:7], scale[:, 16] = power, 1 / power, power**2
    expected = backend("moments_gradient", x, y, w, pivots, m, g)
    moved = pivots * torch.tensor([power] * 3 + [1 / power] * 3)
    gx, gy, gw = backend("moments_gradient", power * x, y / power, w, moved, m * scale, g / scale)
    for a, b in zip((gx * power, gy / power, gw), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * b.abs().max().item())
