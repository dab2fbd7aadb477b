"""Newton-Schulz on a GPU, a program for each matrix: here in Triton's interpreter, or compiled where there is
one. What the kernels compile to is in `test_gpu`."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from svdrot import _kernels
from svdrot._kernels import products
from svdrot._kernels.operations import any_size
from svdrot.polar import newton_schulz, polar
from svdrot.schedules import SCHEDULES, kim_oh_step

pytest.importorskip("triton", reason="triton comes with CUDA builds of torch, and from PyPI on Linux")

# numpy warns of what becomes of infinities, which are there on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:(divide by zero|invalid value|overflow):RuntimeWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float64]
SQUARES = [(4, 4), (5, 5), (16, 16), (17, 17), (33, 33), (64, 64)]
TALL = [(7, 3), (5, 2), (33, 16), (64, 17)]
# In the interpreter a 64 x 64 differential takes a second.
CASES = [(shape, torch.float32) for shape in (*SQUARES, *TALL)]
CASES += [(shape, torch.float64) for shape in ((4, 4), (17, 17), (40, 33), (64, 17))]


@pytest.fixture(autouse=True)
def on_gpu(monkeypatch):
    """Take the GPU's kernels for what is on a CPU, too."""
    monkeypatch.setattr(_kernels, "side", lambda x: "gpu")


@pytest.fixture
def decomposed(monkeypatch) -> list[int]:
    """How many matrices at a time went through a decomposition."""
    found = []
    for name in ("_by_decomposition", "_special_by_decomposition", "_differential", "_special_differential"):
        monkeypatch.setattr(any_size, name, counted(getattr(any_size, name), found))
    return found


def counted(whole: Callable[..., Tensor], found: list[int]) -> Callable[..., Tensor]:
    def count(m: Tensor, *others: Any) -> Tensor:
        found.append(len(m))
        return whole(m, *others)

    return count


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_values(s: Tensor, rows: int, seed: int) -> Tensor:
    """A matrix with these singular values; the last one may be negative: the sign of the determinant."""
    n = len(s)
    u = torch.linalg.qr(gaussian(rows, n, seed=seed)).Q
    v = torch.linalg.qr(gaussian(n, n, seed=seed + 1)).Q
    if rows == n:
        s = s * torch.cat((torch.ones(n - 1), (torch.linalg.det(u) * torch.linalg.det(v)).sign()[None]))
    return u @ torch.diag(s) @ v.mT


def hard(rows: int, n: int) -> dict[str, Tensor]:
    """Matrices of float64 whose factors Newton-Schulz finds, and the rotations, too."""
    even, two_equal = torch.linspace(2, 1, n).double(), torch.ones(n).double()
    two_equal[n // 2 :] = 0.3
    negative, large_negative = even.clone(), even.clone()
    negative[-1], large_negative[-1] = -0.3, -0.9
    values = {
        "even": even,
        "all equal": torch.ones(n).double(),
        "two equal": two_equal,
        "negative": negative,
        "large negative": large_negative,
        "ill conditioned": torch.logspace(0, -2, n).double(),
        "tiny": even * 1e-30,
        "huge": even * 1e30,
    }
    matrices = {name: with_values(s, rows, 2 * k) for k, (name, s) in enumerate(values.items())}
    matrices["identity"] = torch.eye(rows, n, dtype=torch.float64)
    return matrices if n <= 16 else {name: matrices[name] for name in ("even", "large negative", "tiny")}


def exact(m: Tensor, special: bool) -> tuple[Tensor, Tensor]:
    """Factor and singular values; the last value is negative where a reflection is undone."""
    u, s, vh = torch.linalg.svd(m.double(), full_matrices=False)
    sign = torch.linalg.det(u @ vh).sign() if special else torch.ones(len(m), dtype=torch.float64)
    flip = torch.cat((torch.ones_like(s[:, :-1]), sign[:, None]), -1)
    return (u * flip[:, None, :]) @ vh, s * flip


def exact_derivative(m: Tensor, t: Tensor, special: bool) -> Tensor:
    """By singular vectors."""
    u, s, vh = torch.linalg.svd(m.double(), full_matrices=False)
    sign = torch.linalg.det(u @ vh).sign()[:, None] if special else torch.ones(len(m), 1).double()
    u = torch.cat((u[..., :-1], u[..., -1:] * sign[..., None]), -1)
    s = torch.cat((s[:, :-1], s[:, -1:] * sign), -1)
    a, tv = u.mT @ t.double() @ vh.mT, t.double() @ vh.mT
    turn = (a - a.mT) / (s[:, :, None] + s[:, None, :])
    return (u @ turn + (tv - u @ a) / s[:, None, :] * (m.shape[-2] > m.shape[-1])) @ vh


def distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(a.cpu().double() - b.cpu().double())


def least_pair(s: Tensor, square: bool) -> Tensor:
    return s[:, -1] + (s[:, -2] if square else 0)


def ids(case: object) -> str:
    return "x".join(map(str, case)) if isinstance(case, tuple) else str(case)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=ids)
def test_results_are_the_nearest_and_what_did_not_converge_is_decomposed(shape, dtype, special, decomposed):
    rows, n = shape
    if special and rows > n:
        return
    m = torch.stack([*hard(rows, n).values()]).to(dtype)
    truth, s = exact(m, special)
    q = polar(m.to(DEVICE), special=special)
    assert not decomposed
    # The same bound as for a decomposition: rounding of n terms over the gap.
    error = distance(q, truth) * least_pair(s, rows == n) / s[:, 0]
    assert (error <= 16 * n**0.5 * torch.finfo(dtype).eps).all()
    bad = torch.stack([m[0]] * 6)
    bad[1, 1, 0], bad[2, -1, -1] = torch.nan, -torch.inf
    bad[3] = m[0, :, :1] * m[0, :1]
    bad[4] = 0
    found = polar(bad.to(DEVICE), special=special).cpu()
    assert decomposed == [4]
    assert torch.equal(found[[0, 5]], q[[0, 0]].cpu()) and found[1:3].isnan().all()
    assert distance(found[3:5].mT @ found[3:5], torch.eye(n)).max() <= 64 * n * torch.finfo(dtype).eps
    assert not special or (torch.linalg.det(found[3:5]) > 0).all()


@pytest.mark.parametrize("n", [4, 17])
def test_a_direction_to_reverse_that_is_not_told_apart_is_reported(n):
    s = torch.linspace(2, 1, n).double()
    m = []
    for gap in (1e-6, 1e-2):
        s[-1] = -s[-2] * (1 - gap)
        m.append(with_values(s, n, 0))
    r, ok = products.special_orthogonalize(torch.stack(m).float().to(DEVICE))
    assert ok is not None and ok.tolist() == [False, True] and (torch.linalg.det(r[1]) > 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5, 5), (33, 16)], ids=ids)
def test_the_certificate_is_that_of_a_cpu(shape, dtype):
    """To its own rounding: the norm of E before the last step, whatever the order of its terms."""
    m = torch.cat((gaussian(3, *shape), torch.stack([*hard(*shape).values()]))).to(dtype)
    steps = products._table(((3.4445, -4.775, 2.0315), (1.5, -0.5)), dtype, m.device)
    expected, e = products._in_rows(m, steps)
    kernels = _kernels.select_polar(m)
    assert kernels is not None
    q, residual = kernels.factor(m.to(DEVICE), steps.to(DEVICE))
    bound = 64 * shape[1] * torch.finfo(dtype).eps
    assert (residual.cpu() - e).abs().max() <= bound and distance(q, expected).max() <= bound
    empty, none = kernels.factor(m[:0].to(DEVICE), steps.to(DEVICE))
    assert empty.shape == (0, *shape) and none.shape == (0,)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=ids)
def test_derivatives_are_exact_to_rounding(shape, dtype, special):
    rows, n = shape
    if special and rows > n:
        return
    m = torch.stack([x for name, x in hard(rows, n).items() if name != "ill conditioned"]).to(dtype)
    t = gaussian(*m.shape, seed=5).to(dtype)
    q, s = exact(m, special)
    d, ok = products.differential(m.to(DEVICE), q.to(DEVICE, dtype), t.to(DEVICE))
    assert ok is None
    # A derivative is at most |T| over the smallest pair sum, and rounding of H another s_1 over it.
    least = least_pair(s, rows == n)
    error = distance(d, exact_derivative(m, t, special)) * least / torch.linalg.matrix_norm(t.double())
    assert (error * least / s[:, 0] <= 32 * n**0.5 * torch.finfo(dtype).eps).all()


@pytest.mark.parametrize("shape", [(6, 6), (18, 5)], ids=ids)
def test_derivatives_that_do_not_hold_are_decomposed_and_stay_in_their_places(shape, decomposed):
    rows, n = shape
    m = torch.stack([with_values(torch.linspace(2, 1, n).double(), rows, k) for k in range(6)]).to(DEVICE)
    t = gaussian(*m.shape, seed=5).to(DEVICE)
    clean = any_size.orthogonalize_differential(m, polar(m), t)
    assert not decomposed
    m[1, 2, 1], m[3], m[4, :, 0] = torch.nan, 0, m[4, :, 1] * (1 + 1e-12)
    t[5, 0, 0] = torch.inf
    q = polar(m)
    decomposed.clear()
    d = any_size.orthogonalize_differential(m, q, t)
    assert decomposed[0] == 3 and torch.equal(d[[0, 2]], clean[[0, 2]])
    assert d[1].isnan().all() and d[3:5].isfinite().all() and not d[5].isfinite().all()


def test_gradients_of_every_kind():
    for special, shape in ((False, (3, 2)), (True, (4, 4))):
        m = hard(*shape)["large negative"][None].to(DEVICE).requires_grad_()
        assert gradcheck(lambda m, s=special: polar(m, special=s), m, check_forward_ad=True, fast_mode=True)
        (g,) = torch.autograd.grad(polar(m, special=special).sum(), m, create_graph=True)
        assert g.requires_grad and torch.autograd.grad(g.square().sum(), m)[0].isfinite().all()


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (2, 3, 40), (3, 30, 30), (64, 50)], ids=ids)
@pytest.mark.parametrize("name", ["cubic", "keller_jordan"])
def test_schedules_of_others_take_the_same_steps(shape, name, monkeypatch):
    m = gaussian(*shape).float().to(DEVICE)
    assert products.iterates(m.reshape(-1, *shape[-2:]), SCHEDULES[name])
    assert not products.iterates(m.reshape(-1, *shape[-2:]), (kim_oh_step(3),))  # of degree 7
    got = newton_schulz(m, SCHEDULES[name])
    monkeypatch.setattr(products, "iterates", lambda *_: False)
    exactly = newton_schulz(m.double(), SCHEDULES[name])
    # Early steps multiply what rounding does to small values by some 500; see `test_scale_zero_and_rank_one`.
    assert (got - exactly).abs().max() <= 500 * 16 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 20), (2, 17, 17)], ids=ids)
def test_schedules_of_others_are_differentiated_in_one_kernel(shape, monkeypatch):
    m, g = gaussian(*shape).float().to(DEVICE), gaussian(*shape, seed=1).float().to(DEVICE)
    if m.ndim == 3:
        m[0] *= 1e-20
    asked = []
    pull_back = products.pull_back
    monkeypatch.setattr(products, "pull_back", lambda *a: asked.append(a) or pull_back(*a))
    x, schedule = m.clone().requires_grad_(), SCHEDULES["keller_jordan"]
    (d,) = torch.autograd.grad(newton_schulz(x, schedule), x, g)
    assert len(asked) == 1
    (batched,) = torch.autograd.grad(newton_schulz(x, schedule), x, g[None], is_grads_batched=True)
    (again,) = torch.autograd.grad(newton_schulz(x, schedule), x, g, create_graph=True)
    assert again.requires_grad and torch.autograd.grad(again.sum(), x)[0].isfinite().any()
    assert len(asked) == 1
    x = m.double().requires_grad_()
    (exactly,) = torch.autograd.grad(newton_schulz(x, schedule), x, g.double())
    size = torch.linalg.matrix_norm(exactly)
    for found in (d, batched[0], again.detach()):  # five steps multiply rounding by up to 3.4 each
        assert (distance(found, exactly) <= 500 * 16 * torch.finfo(torch.float32).eps * size.cpu()).all()
    zero = torch.zeros(1, 4, 4, device=DEVICE, requires_grad=True)
    (d,) = torch.autograd.grad(newton_schulz(zero, schedule), zero, torch.ones_like(zero))
    slope = torch.tensor([step[0] for step in schedule]).prod()
    torch.testing.assert_close(d.cpu(), slope.expand(1, 4, 4))


def test_larger_ones_are_not_taken():
    for rows, n, fits in ((64, 64, True), (65, 4, False), (65, 65, False)):
        assert (products._in_registers(torch.empty(1, rows, n)) is not None) == fits
    assert _kernels.select_polar(torch.empty(1, 4, 4, dtype=torch.float16)) is None


def test_a_gpu_without_triton_takes_products(monkeypatch):
    m = torch.stack([*hard(5, 5).values()])
    t = gaussian(*m.shape, seed=5)
    expected = exact(m, True)[0]
    monkeypatch.setattr(products, "ALWAYS", ("cpu",))
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in ("polar", "tiles"):
        monkeypatch.delitem(sys.modules, f"svdrot._kernels.gpu.{name}", raising=False)
    _kernels._in_triton.cache_clear()
    with pytest.warns(RuntimeWarning, match="falling back to torch operations.*Install `triton"):
        found = polar(m, special=True)
    d = any_size.special_orthogonalize_differential(m, found, t)
    _kernels._in_triton.cache_clear()
    assert distance(found, expected).max() < 1e-12
    size = torch.linalg.matrix_norm(d)
    assert (distance(d, exact_derivative(m, t, True)) <= 1e-12 * size).all()
