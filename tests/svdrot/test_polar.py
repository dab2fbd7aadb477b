"""Laws of the polar factor by products: the iteration, its correction, its certificate, and its equation."""

import functools

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

import svdrot
from svdrot import _precision, schedules
from svdrot._kernels import products
from svdrot._kernels.operations import any_size, iteration
from svdrot.polar import lyapunov_skew, newton_schulz, polar, polar_certificate, polar_refinement
from svdrot.schedules import POLAR_EXPRESS, SCHEDULES, newton_schulz_schedule

ROTATION_GRADE = newton_schulz_schedule(1e-3)
DTYPES = [torch.float32, torch.float64]


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def exact(m: Tensor, special: bool = False) -> tuple[Tensor, Tensor]:
    """Factor and singular values, in float64; the last value is negative where a reflection is undone."""
    u, s, vh = torch.linalg.svd(m.double(), full_matrices=False)
    sign = torch.linalg.det(u @ vh).sign() if special else torch.ones(m.shape[:-2], dtype=torch.float64)
    flip = torch.cat((torch.ones_like(s[..., :-1]), sign[..., None]), -1)
    return (u * flip[..., None, :]) @ vh, s * flip


def distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(a.double() - b.double())


def with_values(s: Tensor, n: int, seed: int = 0) -> Tensor:
    u, v = torch.linalg.qr(gaussian(2, *s.shape[:-1], n, n, seed=seed)).Q
    return (u * s[..., None, :]) @ v.mT


def held(m: Tensor, special: bool = False) -> Tensor:
    """Which matrices products serve."""
    ok = (products.special_orthogonalize if special else products.orthogonalize)(m)[1]
    return torch.ones(len(m), dtype=torch.bool) if ok is None else ok


@pytest.fixture
def engine_of_gpus(monkeypatch):
    monkeypatch.setattr(products, "ALWAYS", ("cpu",))


# The iteration.


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (2, 6, 4), (2, 3, 4, 6), (1, 1)], ids=str)
@pytest.mark.parametrize("schatten", [2, 8])
def test_it_acts_on_singular_values_alone(shape, schatten):
    m = gaussian(*shape)
    u, s, vh = torch.linalg.svd(m, full_matrices=False)
    norm = (s**schatten).sum(-1, keepdim=True) ** (1 / schatten)
    for name, schedule in SCHEDULES.items():
        p = s / norm
        for step in schedule:
            p = sum(c * p ** (2 * i + 1) for i, c in enumerate(step))
        expected = (u * p[..., None, :]) @ vh
        got = newton_schulz(m, schedule, schatten=schatten)
        assert torch.allclose(got, expected, rtol=0, atol=1e-11), name


def test_higher_degrees_and_schatten_agree_with_themselves():
    m = gaussian(4, 5, 5)
    for kappa in (1, 2, 3, 4):
        step = schedules.kim_oh_step(kappa)
        tight = newton_schulz(m, (step,) * 40, schatten=8)
        assert torch.allclose(tight, exact(m)[0], atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_scale_zero_and_rank_one(name):
    schedule = SCHEDULES[name]
    for schatten in (2, 8):
        m = gaussian(6, 4, dtype=torch.float32)
        once = newton_schulz(m, schedule, schatten=schatten)
        for scale in (1e-37, 1e-30, 1e30, 1e37):
            scaled = newton_schulz(m * scale, schedule, schatten=schatten)
            torch.testing.assert_close(
                scaled, once, atol=2e-3, rtol=0
            )  # some schedules amplify rounding by 500
        assert (newton_schulz(torch.zeros(2, 3, 5), schedule, schatten=schatten) == 0).all()
        rank_one = torch.outer(gaussian(5, seed=1), gaussian(7, seed=2))
        direction = newton_schulz(rank_one, schedule, schatten=schatten)
        assert (
            direction * rank_one
        ).sum() / rank_one.norm() > 0.6  # 1 for those that converge, never negative


@pytest.mark.parametrize(
    "shape", [(1, 1), (5, 3), (3, 40), (40, 6, 6), (2, 30, 30), (150, 20), (161, 2)], ids=str
)
@pytest.mark.parametrize("name", ["cubic", "keller_jordan"])
def test_the_kernel_takes_the_same_steps(shape, name):
    m = gaussian(*shape)
    assert products.iterates(m.reshape(-1, *shape[-2:]), SCHEDULES[name]) == (max(shape[-2:]) <= 96)
    by_kernel, by_products = (
        newton_schulz(m, SCHEDULES[name]),
        newton_schulz(m.requires_grad_(), SCHEDULES[name]),
    )
    torch.testing.assert_close(by_kernel, by_products.detach(), rtol=0, atol=1e-12)
    septic = (schedules.kim_oh_step(3),) * 3
    torch.testing.assert_close(newton_schulz(m.detach(), septic), newton_schulz(m, septic).detach())


def test_it_leaves_its_input_alone_and_keeps_dtypes():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        m = gaussian(3, 4, 6).to(dtype)
        before = m.clone()
        q = newton_schulz(m, ROTATION_GRADE)
        assert q.dtype == dtype and torch.equal(m, before) and q.shape == m.shape
        assert distance(q, exact(m)[0]).max() < max(300 * torch.finfo(dtype).eps, 1e-11)


def test_bad_data_stays_in_its_own_place():
    m = gaussian(5, 4, 4, dtype=torch.float32)
    bad = m.clone()
    bad[1, 2, 3], bad[3, 0, 0] = torch.nan, torch.inf
    q, clean = newton_schulz(bad, ROTATION_GRADE), newton_schulz(m, ROTATION_GRADE)
    assert q[[1, 3]].isnan().all() and torch.equal(q[[0, 2, 4]], clean[[0, 2, 4]])


def test_it_is_differentiable():
    m = gaussian(2, 4, 3).requires_grad_()
    for schatten in (2, 8):
        assert gradcheck(lambda m, k=schatten: newton_schulz(m, ROTATION_GRADE, schatten=k), m)


# Forward errors over those of LAPACK's float32 SVD on the same matrices: (median, maximum).
WORSE_THAN_LAPACK = {"iteration": (3, 4), "refined": (1, 1)}


@pytest.mark.parametrize("n", [3, 4, 8, 16, 32, 64])
def test_rotation_grade_beside_lapack(n):
    m = gaussian({3: 20000, 4: 10000, 8: 4000, 16: 1000, 32: 300, 64: 60}[n], n, n, dtype=torch.float32)
    s = exact(m)[1]
    m = m[s[:, -1] > 1e-3 * torch.linalg.vector_norm(s, dim=-1)]
    truth = exact(m)[0]
    u, _, vh = torch.linalg.svd(m)
    lapack = distance(u @ vh, truth)
    assert len(ROTATION_GRADE) <= 9
    q = newton_schulz(m, ROTATION_GRADE)
    for name, factor in {"iteration": q, "refined": polar_refinement(m, q)}.items():
        error = distance(factor, truth)
        median, maximum = WORSE_THAN_LAPACK[name]
        assert error.median() <= median * lapack.median(), name
        assert error.max() <= maximum * lapack.max(), name


# The correction.


@pytest.mark.parametrize("n", [3, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("kind", ["gaussian", "ill conditioned"])
def test_refinement_makes_bfloat16_rotation_grade(n, kind):
    count = {3: 2000, 4: 1000, 8: 500, 16: 200, 32: 100, 64: 40}[n]
    m = gaussian(count, n, n)
    if kind == "ill conditioned":
        m = with_values(torch.logspace(0, -2.3, n).double().expand(count, n), n)
    m = m.float()
    s = exact(m)[1]
    m = m[s[:, -1] > 1e-3 * torch.linalg.vector_norm(s, dim=-1)]
    truth = exact(m)[0]
    coarse = newton_schulz(m, newton_schulz_schedule(1e-3, safety=1.02), dtype=torch.bfloat16)
    once = polar_refinement(m, coarse)
    twice = polar_refinement(m, once)
    u, _, vh = torch.linalg.svd(m)
    before, after, last, lapack = (distance(q, truth) for q in (coarse, once, twice, u @ vh))
    assert before.median() > 1e-3
    assert last.median() <= lapack.median() and last.max() <= lapack.max()
    if kind == "gaussian":
        assert after.median() <= (2e-6 if n <= 32 else lapack.median())
        assert last.median() <= 2e-6
    else:
        assert after.median() < 1e-3 * before.median()


def test_refinement_is_cubic_on_every_shape():
    for shape, special in (
        ((4, 4), False),
        ((4, 4), True),
        ((7, 3), False),
        ((3, 7), False),
        ((4, 2), False),
        ((12, 12), False),
    ):
        u, s, vh = torch.linalg.svd(gaussian(20, *shape), full_matrices=False)
        m = (u * torch.linspace(1, 2, s.shape[-1])) @ vh
        q = exact(m, special)[0]
        noise = gaussian(*q.shape, seed=3)
        for size in (1e-2, 1e-3, 1e-4):
            start = q + size * noise
            error = distance(polar_refinement(m, start), q)
            assert (error <= distance(start, q) ** 3 + 1e-14).all(), shape


# The certificate.


def test_the_bound_is_never_violated():
    for n in (3, 8, 32):
        count = {3: 4000, 8: 800, 32: 60}[n]
        kinds = {
            "gaussian": gaussian(count, n, n),
            "nearly singular": with_values(torch.logspace(0, -9, n).double().expand(count // 4, n), n),
            "rank deficient": gaussian(count // 4, n, n - 1) @ gaussian(count // 4, n - 1, n, seed=5),
            "tiny": gaussian(count // 4, n, n) * 1e-30,
            "huge": gaussian(count // 4, n, n) * 1e30,
            "equal": with_values(torch.ones(count // 4, n).double(), n),
        }
        for name, m in kinds.items():
            for special in (False, True):
                truth, s = exact(m.float(), special)
                for noise in (0, 1e-7, 1e-3, 1e-1):
                    q = (truth + noise * gaussian(*truth.shape, seed=7) / n).float()
                    bound = polar_certificate(m.float(), q, special=special)
                    # the truth itself is uncertain by rounding over the gap
                    gap = (s[:, -1] + s[:, -2]).clamp_min(1e-300) if n > 1 else s[:, -1]
                    slack = 1e-14 * n * s[:, 0] / gap
                    assert (distance(q, truth) <= bound + slack).all(), (n, name, special, noise)


def test_the_bound_is_tight_at_n_3_and_sees_what_orthogonality_does_not():
    m = gaussian(4000, 3, 3, dtype=torch.float32)
    truth = exact(m)[0]
    q = newton_schulz(m, ROTATION_GRADE)
    q = q[good := exact(m)[1][:, -1] > 1e-3]
    ratio = polar_certificate(m[good], q) / distance(q, truth[good])
    assert 1 <= ratio.min() and ratio.median() < 3
    wrong = torch.linalg.qr(gaussian(4000, 3, 3, seed=9)).Q
    bound, error = polar_certificate(m, wrong), distance(wrong, truth)
    assert (bound >= error * (1 - 1e-12)).all()


def test_the_bound_is_infinite_where_nothing_is_certain():
    eye = torch.eye(3).expand(5, 3, 3).clone()
    m = torch.stack((torch.zeros(3, 3), torch.diag(torch.tensor([1.0, 1, 0])), eye[0], eye[0], -eye[0]))
    m[2, 0, 0] = torch.nan
    q = eye.clone()
    q[3] *= 2  # not orthonormal
    assert polar_certificate(m, q).isinf().all()
    rank_two = torch.diag(torch.tensor([1.0, 1, 0]))
    assert polar_certificate(rank_two, eye[0], special=True) < 1e-12  # unique among rotations
    reflection = torch.diag(torch.tensor([1.0, 1, -1]))
    assert polar_certificate(reflection, reflection, special=True).isinf()  # no rotation
    assert polar_certificate(eye[0], eye[0]) < 1e-12 and polar_certificate(-eye[:1], -eye[:1])[0] < 1e-12


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (5, 1), (1, 1)], ids=str)
def test_the_bound_for_rectangles(shape):
    m = gaussian(500, *shape)
    truth = exact(m)[0]
    for noise in (0, 1e-6, 1e-2):
        q = truth + noise * gaussian(*m.shape, seed=1)
        bound = polar_certificate(m, q)
        assert (distance(q, truth) <= bound).all() and (bound < 1e-11 + 100 * noise * 20).float().mean() > 0.9


# The equation.


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 12])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lyapunov_solves_its_equation(n, dtype):
    s = torch.linspace(1, 2, n).double().expand(50, n).clone()
    s[25:] = 1  # repeated
    s[40:, -1] *= -0.5  # a rotation nearest to a matrix of negative determinant
    v = torch.linalg.qr(gaussian(50, n, n)).Q
    h = ((v * s[:, None, :]) @ v.mT).to(dtype)
    skew = gaussian(50, n, n, seed=1, dtype=dtype)
    skew = skew - skew.mT
    for scale in (1, 1e-20, 1e15):
        x = lyapunov_skew(h * scale, skew)
        residual = h * scale @ x + x @ h * scale - skew
        assert torch.linalg.matrix_norm(residual).max() <= 500 * n * torch.finfo(dtype).eps
        assert torch.equal(x, -x.mT)


def test_lyapunov_of_mixed_and_half_dtypes():
    h, s = torch.eye(4).expand(3, 4, 4), gaussian(4, 4)
    s = s - s.mT
    for a, b, dtype in (
        (torch.float32, torch.float64, torch.float64),
        (torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float32, torch.float32),
    ):
        x = lyapunov_skew(h.to(a), s.to(b))
        assert x.dtype == dtype
        torch.testing.assert_close(x, (s.to(b) / 2).to(dtype).expand(3, 4, 4))
    with pytest.raises(ValueError, match=r"\(3,\) of `h`, \(2,\) of `s`"):
        lyapunov_skew(h, s.expand(2, 4, 4))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_lyapunov_is_differentiable_in_every_way(n):
    h = gaussian(2, n, n)
    h = (h @ h.mT + torch.eye(n)).requires_grad_()
    s = gaussian(2, n, n, seed=1).requires_grad_()
    assert gradcheck(lyapunov_skew, (h, s), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(lyapunov_skew, (h, s))
    one_by_one = torch.stack([lyapunov_skew(a, b) for a, b in zip(h, s, strict=True)])
    torch.testing.assert_close(torch.func.vmap(lyapunov_skew)(h, s), one_by_one)


@pytest.mark.parametrize("shape", [(2, 600, 600), (2, 300, 700), (1, 1000, 300)], ids=str)
@pytest.mark.parametrize("step", [(1.5, -0.5), (3.4, -4.7, 2.0), (2.0, -1.5, 1.0, -0.3)], ids=len)
def test_large_matrices_are_overwritten_with_the_same(shape, step, monkeypatch):
    m = gaussian(*shape, dtype=torch.float32)
    m[-1] /= 1e30
    schedule = (step,) * 3
    expected = newton_schulz(m.double(), schedule)
    monkeypatch.setattr(iteration, "IN_PLACE", 1)
    before = m.clone()
    assert (newton_schulz(m, schedule) - expected).abs().max() < 64 * torch.finfo(m.dtype).eps
    assert torch.equal(m, before)
    m[0, 0, 0] = torch.nan
    assert newton_schulz(m, schedule).isnan().all(-1).all(-1).tolist() == [True, False][: len(m)]


class _Products(TorchDispatchMode):
    """Remember the dtypes of all batched products."""

    def __init__(self):
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.baddbmm.default:
            self.dtypes.add(args[0].dtype)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("dtype", "unit", "allowed", "products_in"),
    [
        (torch.bfloat16, None, "", torch.float32),
        (torch.bfloat16, "_is_avx512_bf16_supported", "", torch.bfloat16),
        (torch.bfloat16, "_is_amx_tile_supported", "", torch.bfloat16),
        (torch.bfloat16, "_is_amx_tile_supported", "AVX512_CORE_BF16", torch.bfloat16),
        (torch.bfloat16, "_is_amx_tile_supported", "avx2", torch.float32),
        (torch.float16, "_is_avx512_bf16_supported", "", torch.float32),
        (torch.float16, "_is_amx_tile_supported", "", torch.float16),
    ],
    ids=str,
)
def test_half_precision_multiplies_where_a_cpu_has_units_for_it(
    dtype, unit, allowed, products_in, monkeypatch
):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda has=name == unit: has)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    monkeypatch.setattr(iteration, "_has_units", iteration._has_units.__wrapped__)
    m = gaussian(1, 130, 120, dtype=torch.float32)
    with _Products() as seen:
        half = newton_schulz(m, ROTATION_GRADE, dtype=dtype)
    assert seen.dtypes == {products_in}
    assert torch.equal(half.to(dtype).float(), half)
    # A step that triples small singular values triples their rounding, and the next ones bring it down again.
    factor = newton_schulz(m, ROTATION_GRADE)
    assert (half - factor).abs().max() < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("n", [2, 9, 24, 65])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_equation_by_products_is_solved_or_reported(n, dtype):
    eps = torch.finfo(dtype).eps
    s = torch.ones(7, n, dtype=torch.float64)
    s[1] = torch.linspace(1, 1e-2, n)
    s[2] = torch.logspace(0, -2, n)
    s[3, -1] = -0.5  # a rotation nearest to a matrix of negative determinant
    s[4, -1] = 1e-9
    s[5] = 0
    v = torch.linalg.qr(gaussian(7, n, n)).Q
    h, skew = ((v * s[:, None, :]) @ v.mT).to(dtype), gaussian(7, n, n, seed=1, dtype=dtype)
    h[6] = torch.nan
    skew = skew - skew.mT
    below = gaussian(7, 3, n, seed=2, dtype=dtype)
    for scale in (1, 1e-20, 1e15):
        result, ok = products.solve(h * scale, torch.cat((skew, below), -2))
        assert torch.equal(ok, torch.tensor([True] * 3 + [False] * 4))
        x, y = result[:3].double().split((n, 3), -2)
        h64, c = h[:3].double() * scale, skew[:3].double()
        # What rounding of n terms makes of the products themselves; measured: 1.4 and 0.4 of it, not 4.
        rounding = 4 * n * eps * torch.linalg.matrix_norm(h64)
        left, right = h64 @ x + x @ h64 - c, y @ h64 - below[:3]
        assert (torch.linalg.matrix_norm(left) <= rounding * torch.linalg.matrix_norm(x)).all()
        assert (torch.linalg.matrix_norm(right) <= rounding * torch.linalg.matrix_norm(y)).all()
        assert torch.equal(x, -x.mT)
        without, holds = products.solve(h * scale, skew)
        assert torch.equal(ok, holds)
        torch.testing.assert_close(without[:3].double(), x)


@pytest.mark.usefixtures("engine_of_gpus")
def test_what_products_do_not_solve_goes_through_eigenvectors(monkeypatch):
    test_lyapunov_solves_its_equation(12, torch.float32)
    m = gaussian(40, 12, 12)
    m[3] = torch.nan
    asked = []
    by_eigenvectors = any_size._by_eigenvectors
    monkeypatch.setattr(
        any_size, "_by_eigenvectors", lambda p, *c, **d: asked.append(len(p)) or by_eigenvectors(p, *c, **d)
    )
    r = polar(m, special=True)
    t = gaussian(40, 12, 12, seed=1)
    d = any_size.special_orthogonalize_differential(m, r, t)
    reflected = (torch.linalg.det(m) < 0).sum() + 1
    assert len(asked) == 1 and reflected <= asked[0] <= reflected + 4
    assert d[3].isnan().all()
    damped = any_size.special_orthogonalize_differential(m, r, t, 1e-2)
    assert asked[1:] == [40]
    monkeypatch.setattr(products, "ALWAYS", ())
    for by_products, damping in ((d, None), (damped, 1e-2)):
        expected = any_size.special_orthogonalize_differential(m, r, t, damping)
        torch.testing.assert_close(by_products, expected, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.usefixtures("engine_of_gpus")
@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (4, 6)], ids=str)
def test_derivatives_by_products(shape):
    m = gaussian(2, *shape, seed=4).requires_grad_()
    assert gradcheck(polar, m, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(polar, m)
    one_by_one = torch.stack([torch.autograd.functional.jacobian(polar, x) for x in m.detach()])
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(torch.func.vmap(jacobian(polar))(m.detach()), one_by_one)


@pytest.mark.usefixtures("engine_of_gpus")
def test_the_equation_by_products_is_differentiable_in_every_way():
    test_lyapunov_is_differentiable_in_every_way(9)


# The factor, through the kernels for small matrices and around them.


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("n", [2, 4, 5, 7, 8, 16, 31])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_small_matrices_are_as_good_as_by_a_decomposition(n, dtype, special):
    m = gaussian(300, n, n).to(dtype)
    truth, s = exact(m, special)
    got = distance(polar(m, special=special), truth)
    gap = (s[:, -1] + s[:, -2]) / s[:, 0]
    assert (got * gap <= 16 * n**0.5 * torch.finfo(dtype).eps).all()
    if n > 2:
        assert products.serves(m)


@pytest.mark.parametrize("rows, columns", [(5, 3), (9, 4), (32, 7), (4, 9)])
def test_small_rectangles(rows, columns):
    m = gaussian(200, rows, columns, dtype=torch.float32)
    assert distance(polar(m), exact(m)[0]).max() < 2e-5


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("n", [33, 64])
def test_larger_matrices_are_as_good_as_by_a_decomposition(n, special):
    m = gaussian(40, n, n, dtype=torch.float32)
    assert products.serves(m)
    truth, s = exact(m, special)
    gap = (s[:, -1] + s[:, -2]) / s[:, 0]
    error = distance(polar(m, special=special), truth)
    assert (error * gap <= 16 * n**0.5 * torch.finfo(torch.float32).eps).all()
    assert held(m, special).float().mean() > 0.8
    bad = m.clone()
    bad[5], bad[7] = torch.nan, 0
    q = polar(bad, special=special)
    assert q[5].isnan().all() and q[[i for i in range(40) if i != 5]].isfinite().all()
    assert distance(q[7].mT @ q[7], torch.eye(n)) < 1e-4
    assert not special or (torch.linalg.det(q[[0, 1, 7]]) > 0).all()


@pytest.mark.parametrize("shape", [(1, 112, 112), (2, 64, 64), (2, 100, 48), (3, 112, 33)], ids=str)
def test_a_few_larger_matrices_are_as_good_as_by_a_decomposition(shape):
    m = gaussian(*shape, dtype=torch.float32)
    assert products.serves(m)
    truth, s = exact(m)
    gap = s[:, -1] / s[:, 0]
    assert (distance(polar(m), truth) * gap <= 16 * shape[-1] ** 0.5 * torch.finfo(m.dtype).eps).all()


@pytest.mark.parametrize("n", [4, 16])
def test_reflected_matrices_find_back_to_their_places(n):
    """In a batch of several tiles, threads and chunks, with few of them reflected, and with all."""
    for every in (1, 7, 300):
        m = torch.eye(n) * torch.linspace(2, 1, n) + 0.1 * gaussian(5000, n, n, dtype=torch.float32)
        m[::every, -1] *= -1
        r = products.special_orthogonalize(m)[0]
        assert distance(r, exact(m, special=True)[0]).max() < 1e-4


@pytest.mark.parametrize("special", [False, True])
def test_matrices_do_not_disturb_their_neighbors(special):
    m = gaussian(40, 6, 6, dtype=torch.float32)
    bad = m.clone()
    bad[3] = torch.nan
    bad[7] = 0
    bad[11] = torch.outer(m[11, 0], m[11, 1])
    bad[19] *= 1e30
    bad[23] *= 1e-30
    bad[29] = with_values(torch.tensor([1.0, 1, 1, 1, 0.5, -0.5 * (1 - 1e-6)]).double(), 6).float()
    q, clean = polar(bad, special=special), polar(m, special=special)
    kept = [i for i in range(40) if i not in (3, 7, 11, 19, 23, 29)]
    assert torch.equal(q[kept], clean[kept]) and q[3].isnan().all()
    for i in (7, 11, 19, 23, 29):  # orthonormal all the same
        assert distance(q[i].mT @ q[i], torch.eye(6)) < 1e-5
        assert not special or torch.linalg.det(q[i]) > 0
    torch.testing.assert_close(q[[19, 23]], clean[[19, 23]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("n", [6, 30])
def test_no_batch_changes_a_matrix(n, special):
    """Bit for bit among batches that go the same way, by rounding between a few matrices and many."""
    m = gaussian(60, n, n, dtype=torch.float32)
    many, few = polar(m, special=special), polar(m[:5], special=special)
    assert torch.equal(polar(m[13:], special=special), many[13:])
    assert torch.equal(torch.cat([polar(row[None], special=special) for row in m[:5]]), few)
    s = exact(m[:5], special)[1]
    gap = (s[:, -1] + s[:, -2]) / s[:, 0]
    assert (distance(few, many[:5]) * gap <= 16 * n**0.5 * torch.finfo(m.dtype).eps).all()


FACTORS = {
    "polar": polar,
    "polar, special": functools.partial(polar, special=True),
    "orthogonalize": svdrot.orthogonalize,
    "special_orthogonalize": svdrot.special_orthogonalize,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [4, 5, 9, 16, 33])
@pytest.mark.parametrize("factor", FACTORS.values(), ids=FACTORS)
def test_which_of_several_nearest_ones_is_taken_depends_on_no_neighbor(factor, n, dtype):
    """Reflections and matrices of rank one, behind a row that goes through a decomposition or does not."""
    x = gaussian(40, n, n, dtype=torch.float64)
    q = torch.linalg.qr(x).Q
    q[:, :, 0] *= -torch.linalg.det(q).sign()[:, None]
    several = torch.where(torch.arange(40)[:, None, None] % 2 == 0, q, x[:, :, :1] * x[:, :1])
    for size in (2, 7, 17, 40):
        m = torch.cat((torch.eye(n, dtype=dtype)[None], several[1:size].to(dtype)))
        clean = factor(m)
        for value in (torch.nan, torch.inf, 1.0, 0.0):
            m[0] = value
            assert distance(factor(m)[1:], clean[1:]).max() <= n * torch.finfo(dtype).eps, (size, value)


@pytest.mark.parametrize("n", [4, 40])
def test_a_direction_to_reverse_that_is_not_told_apart_is_reported(n):
    s = torch.linspace(2, 1, n).double().expand(8, n).clone()
    s[:4, -1] = -s[:4, -2] * (1 - 1e-6)
    s[4:, -1] = -s[4:, -2] * (1 - 1e-2)
    m = with_values(s, n)
    m = m * torch.cat((-torch.linalg.det(m).sign()[:, None], torch.ones(8, n - 1)), -1)[:, None, :]
    assert torch.equal(held(m.float(), special=True), torch.arange(8) >= 4)


def test_what_did_not_converge_goes_through_a_decomposition(monkeypatch):
    m = gaussian(50, 5, 5)
    m[::7] = with_values(torch.logspace(0, -8, 5).double().expand(8, 5), 5)
    ok = held(m)
    assert not ok[::7].any() and ok.float().mean() > 0.7
    asked = []
    by_decomposition = any_size._by_decomposition
    monkeypatch.setattr(any_size, "_by_decomposition", lambda m: asked.append(len(m)) or by_decomposition(m))
    assert distance(polar(m), exact(m)[0]).max() < 1e-6 and asked == [(~ok).sum()]


# The factor on a GPU: the same operations, on a CPU.


@pytest.mark.usefixtures("engine_of_gpus")
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("rows, columns", [(2, 2), (4, 4), (9, 9), (33, 33), (130, 130), (7, 3), (3, 40)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_products_serve_every_size(rows, columns, dtype, special):
    if special and rows != columns:
        return
    n = min(rows, columns)
    m = gaussian(3 if n > 100 else 60, rows, columns).to(dtype)
    assert products.serves(m if rows >= columns else m.mT) and products.serves(m[:1, :n, :n])
    truth, s = exact(m, special)
    gap = (s[:, -1] + s[:, -2] if rows == columns else s[:, -1]) / s[:, 0]
    error = distance(polar(m, special=special), truth)
    assert (error * gap <= 16 * n**0.5 * torch.finfo(dtype).eps).all()
    assert polar(m[:0], special=special).shape == (0, rows, columns)


@pytest.mark.usefixtures("engine_of_gpus")
@pytest.mark.parametrize("special", [False, True])
def test_products_serve_what_is_hard(special):
    test_matrices_do_not_disturb_their_neighbors(special)
    test_larger_matrices_are_as_good_as_by_a_decomposition(33, special)
    for n in (4, 40):
        test_a_direction_to_reverse_that_is_not_told_apart_is_reported(n)


class Synchronizations(TorchDispatchMode):
    """Operations for which the host would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            x is not None and x.dtype == torch.bool for x in arguments[1]
        )
        waiting = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_linalg_svd", "_linalg_eigh")
        if masked or name in waiting:
            self.found.append(name)
        return function(*arguments, **(keywords or {}))


@pytest.mark.usefixtures("engine_of_gpus")
@pytest.mark.parametrize("special", [False, True])
def test_the_host_waits_once_each_way(special):
    m = with_values(torch.linspace(1, 2, 12).double().expand(20, 12), 12)
    m[::2] = m[::2] * torch.cat((-torch.ones(1), torch.ones(11)))[:, None]
    m = m.float().requires_grad_()
    with Synchronizations() as forward:
        q = polar(m, special=special)
    with Synchronizations() as backward:
        q.backward(torch.ones_like(q))
    assert forward.found == ["_local_scalar_dense"]
    assert special or backward.found == ["_local_scalar_dense"]  # reflected ones go through eigenvectors
    assert not special or "_linalg_eigh" in backward.found


def test_tf32_does_not_get_in(monkeypatch):
    assert not _precision.is_reduced(torch.eye(4))
    m, weight = gaussian(20, 5, 4, dtype=torch.float32), gaussian(20, 5, 4, seed=1, dtype=torch.float32)

    def both(m):
        m = m.clone().requires_grad_()
        q = polar(m)
        return q.detach(), torch.autograd.grad(q, m, weight.to(m.dtype))[0]

    monkeypatch.setattr(_precision, "is_reduced", lambda m: m.dtype == torch.float32)
    for single, double in zip(both(m), both(m.double()), strict=True):
        assert single.dtype == torch.float32
        torch.testing.assert_close(single, double.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (6, 3), (3, 6), (8, 8), (17, 17), (20, 9)], ids=str)
@pytest.mark.parametrize("case", ["gaussian", "equal", "negative determinant"])
def test_gradients_agree_with_finite_differences(shape, case):
    n = min(shape)
    m = gaussian(*shape, seed=4)
    special = case == "negative determinant"
    if case == "equal":
        m = exact(m)[0] * 3
    if special:
        if shape[0] != shape[1]:
            return
        m = (
            m * -torch.linalg.det(m).sign()
            if n % 2
            else m * torch.tensor([-torch.linalg.det(m).sign()] + [1] * (n - 1))
        )
    m = m.requires_grad_()
    weight = gaussian(*shape, seed=5)
    (g,) = torch.autograd.grad((polar(m, special=special) * weight).sum(), m)
    h, difference = 1e-4, torch.zeros_like(g)
    with torch.no_grad():
        for i in range(shape[0]):
            for j in range(shape[1]):
                e = torch.zeros_like(m)
                e[i, j] = 1
                f = [(polar(m + k * h * e, special=special) * weight).sum() for k in (-2, -1, 1, 2)]
                difference[i, j] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
    assert (g - difference).norm() <= 1e-7 * g.norm()


# Derivatives by the kernel for small matrices, and around it.


def derivative(m: Tensor, q: Tensor, t: Tensor, special: bool) -> Tensor:
    f = any_size._special_differential if special else any_size._differential
    return f(m.double(), q.double(), t.double())


def exact_derivative(m: Tensor, t: Tensor, special: bool) -> Tensor:
    """By singular vectors: by eigenvectors of H what rounding did to q is divided by the gap twice."""
    u, s, vh = torch.linalg.svd(m.double(), full_matrices=False)
    if special:
        sign = torch.linalg.det(u @ vh).sign()[:, None]
        u = torch.cat((u[..., :-1], u[..., -1:] * sign[..., None]), -1)
        s = torch.cat((s[:, :-1], s[:, -1:] * sign), -1)
    a, tv = u.mT @ t.double() @ vh.mT, t.double() @ vh.mT
    turn = (a - a.mT) / (s[:, :, None] + s[:, None, :])
    return (u @ turn + (tv - u @ a) / s[:, None, :] * (m.shape[-2] > m.shape[-1])) @ vh


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(
    "rows, columns", [(2, 2), (4, 4), (7, 7), (16, 16), (33, 33), (96, 96), (9, 4), (40, 17)]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_derivatives_by_products_are_exact_to_rounding(rows, columns, dtype, special):
    if special and rows != columns:
        return
    m = gaussian(20, rows, columns)
    m[:4] = exact(m[:4], special)[0] * 3  # all singular values equal
    m[4:6] *= 1e-25
    m[6:8] *= 1e15
    m, t = m.to(dtype), gaussian(20, rows, columns, seed=1, dtype=dtype)
    q, s = exact(m, special)
    d, ok = products.differential(m, q.to(dtype), t)
    assert ok is None
    least = s[:, -1] + (s[:, -2] if rows == columns else 0)
    # A derivative is at most |T| over the smallest pair sum, and rounding of H another s_1 over it.
    error = distance(d, exact_derivative(m, t, special)) * least / torch.linalg.matrix_norm(t.double())
    assert (error * least / s[:, 0] <= 32 * columns**0.5 * torch.finfo(dtype).eps).all()


@pytest.mark.parametrize("special", [False, True])
def test_derivatives_that_products_do_not_give_come_from_eigenvectors(special):
    m = with_values(torch.linspace(2, 1, 12).double().expand(40, 12), 12)
    t = gaussian(40, 12, 12, seed=1)
    clean = torch.autograd.functional.vjp(lambda m: polar(m, special=special), m, t)[1]
    bad = m.clone()
    bad[3] = torch.nan
    bad[7] = 0
    bad[11] = with_values(torch.tensor([1.0] * 10 + [1e-9, 1e-9]).double(), 12)
    bad[19] = with_values(torch.tensor([1.0] * 11 + [-1.0 + 1e-13]).double(), 12)
    changed = torch.tensor([3, 7, 11, 19])
    q = polar(bad, special=special)
    ok = products.differential(bad, q, t)[1]
    assert (
        ok is not None and not ok[[3, 7, 11]].any() and ok[[i for i in range(40) if i not in changed]].all()
    )
    d = torch.autograd.functional.vjp(lambda m: polar(m, special=special), bad, t)[1]
    kept = [i for i in range(40) if i not in changed]
    torch.testing.assert_close(d[kept], clean[kept], rtol=1e-12, atol=1e-12)
    assert d[3].isnan().all() and d[[7, 11, 19]].isfinite().all()
    if special:
        damped = any_size.special_orthogonalize_differential(bad, q, t, 1e-2)
        expected = any_size._special_differential(m.double(), q.double(), t.double(), 1e-2)
        torch.testing.assert_close(damped[kept], expected[kept])


def test_a_tangent_that_is_not_finite_spoils_its_own_derivative_alone():
    m, t = gaussian(9, 6, 6), gaussian(9, 6, 6, seed=1)
    q = polar(m)
    bad = t.clone()
    bad[4, 2, 1] = torch.inf
    kept = [i for i in range(9) if i != 4]
    d = products.differential(m, q, bad)[0]
    assert torch.equal(d[kept], products.differential(m, q, t)[0][kept]) and not d[4].isfinite().all()


def test_derivatives_of_a_backward_are_not_lost():
    """Forward over reverse without a graph: the tangents of the backward pass itself."""
    m, t, g = gaussian(3, 5, 5), gaussian(3, 5, 5, seed=1), gaussian(3, 5, 5, seed=2)

    def gradient(m):
        m = m.requires_grad_() if not m.requires_grad else m
        return torch.autograd.grad(polar(m), m, g, create_graph=torch.is_grad_enabled())[0]

    h = 1e-5
    expected = (gradient(m + h * t).detach() - gradient(m - h * t).detach()) / (2 * h)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(m.clone().requires_grad_(), t)
        (d,) = torch.autograd.grad(polar(dual), dual, g)
        tangent = torch.autograd.forward_ad.unpack_dual(d).tangent
    torch.testing.assert_close(tangent, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("m, n", [(8, 8), (20, 6)])
def test_backward_keeps_the_matrix_and_the_factor_alone(m, n):
    kept: list[int] = []
    matrix = gaussian(5, m, n).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        polar(matrix)
    assert sum(kept) <= 5 * (2 * m * n)


# Arguments.


def test_wrong_arguments_are_named():
    m = torch.randn(3, 4, 4)
    with pytest.raises(TypeError, match="`matrix`"):
        newton_schulz(torch.eye(3, dtype=torch.int64), ROTATION_GRADE)
    with pytest.raises(ValueError, match="`schedule`"):
        newton_schulz(m, ())
    with pytest.raises(ValueError, match="`schatten`"):
        newton_schulz(m, ROTATION_GRADE, schatten=3)
    with pytest.raises(ValueError, match="`factor`"):
        polar_refinement(m, m[..., :3])
    with pytest.raises(ValueError, match="`matrix`"):
        polar_certificate(m[..., :3], m[..., :3], special=True)
    with pytest.raises(ValueError, match="`h` and `s`"):
        lyapunov_skew(m, m[..., :3, :3])
    with pytest.raises(ValueError, match="`matrix`"):
        polar(torch.randn(3))


@pytest.mark.parametrize("n, batch", [(4, 1), (4, 40), (16, 1), (16, 40), (64, 1)])
def test_numbers_whose_inverses_are_none(n, batch):
    m = torch.randn(batch, n, n, generator=torch.Generator().manual_seed(n)).clamp(-1, 1)
    for scale in (1e-38, 1e-40, 1e-44, 0.0):
        assert newton_schulz(m * scale, POLAR_EXPRESS).isfinite().all()
        assert polar(m * scale).isfinite().all()
    near = newton_schulz(m * 2.0**-130, POLAR_EXPRESS)
    torch.testing.assert_close(near, newton_schulz(m, POLAR_EXPRESS), rtol=0, atol=0.05)


@pytest.mark.parametrize("schatten", [2, 8])
def test_the_zero_matrix_has_a_finite_gradient(schatten):
    zero = torch.zeros(2, 4, 3, requires_grad=True)
    newton_schulz(zero, POLAR_EXPRESS, schatten=schatten).sum().backward()
    assert zero.grad.isfinite().all()


def test_what_is_no_schedule_is_named():
    for schedule in (3, (1, 2), ((1.0,),), (), torch.ones(2)):
        with pytest.raises(ValueError, match="`schedule` must be a tuple of steps"):
            newton_schulz(torch.eye(3), schedule)
    with pytest.raises(TypeError, match="`factor` must be a tensor"):
        polar_certificate(torch.eye(3), None)
