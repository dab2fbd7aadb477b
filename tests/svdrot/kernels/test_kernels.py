"""The 3x3 formulas, as each writer has them, against 50-digit arithmetic and against what they promise."""

from functools import cache

import cases
import pytest
import torch
import truth

from svdrot._formulas import projection
from svdrot._kernels import cpu as loops
from svdrot._kernels.cpu import pairs as pairs_cpu
from svdrot.engine import cpu, door, operations

DTYPES = [torch.float32, torch.float64]
WRITERS = {
    "vectors": lambda program, scalars, x: cpu.run(program, scalars, x),
    "operations": lambda program, scalars, x: operations.run(
        program.name, scalars, x, door.dtypes_of(program, x)
    ),
}

ORTHOGONALITY = 8  # units of rounding, largest entry of RᵀR - I; measured: 2.0
FORWARD = 16  # units of rounding times s1 / gap, Frobenius; measured: 2.5
DIFFERENTIAL = 16  # units of rounding times s1 / gap, relative to |T| / gap; measured: 8.5
GAP = 8  # units of rounding times s1; measured: 3.9


class Backend:
    """A writer of the engine."""

    def __init__(self, name: str):
        self.run = WRITERS[name]

    def project(self, m):
        return self.run(projection.project.program, (), (m,))[0]

    def differentiate(self, m, r, t, damping=None):
        formula = projection.project if damping is None else projection.project_damped
        scalars = () if damping is None else (damping,)
        return self.run(formula.program.vjp((True,), (True,), True), scalars, (m, r, t))[0]

    def gap(self, m):
        gap = projection.gap.program
        (value,) = self.run(gap, (), (m,))
        return value, self.run(gap.vjp((True,), (True,), True), (), (m, value, torch.ones_like(value)))[0]


@pytest.fixture(params=WRITERS, scope="module")
def backend(request) -> Backend:
    return Backend(request.param)


@cache
def exact(case: str, dtype: torch.dtype) -> truth.Truth:
    return truth.Truth(cases.regular_matrices(dtype)[case])


@cache
def cotangents(case: str, dtype: torch.dtype) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """For each matrix a cotangent and the exact VJP: of four random ones the least symmetric with respect to
    R, for most of the others cancels."""
    r = exact(case, dtype).rotation[0]
    t = torch.randn(4, *r.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(dtype)
    a = r.mT @ t.double()
    t = t[(a - a.mT).norm(dim=(-2, -1)).div(t.norm(dim=(-2, -1))).argmax(0), torch.arange(len(r))]
    return t, exact(case, dtype).differential(t)


@cache
def cancelling_cotangents(
    case: str, dtype: torch.dtype
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """For each matrix one that is symmetric where it would be divided by the gap, so that the exact VJP is
    smaller than |T| / gap, and rounding is not."""
    m = cases.regular_matrices(dtype)[case].double()
    u, _, vh = torch.linalg.svd(m)
    u[..., -1] *= torch.linalg.det(u @ vh).sign()[:, None]
    a = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    t = (u @ a @ vh).to(dtype)
    return t, exact(case, dtype).differential(t)


@cache
def all_projections(backend: "Backend", dtype: torch.dtype) -> dict[str, tuple[torch.Tensor, ...]]:
    """R, gap and gap derivative of every hard matrix, in one call: an interpreted one is slow."""
    hard = cases.hard_matrices(dtype)
    m = torch.cat(list(hard.values()))
    results = (backend.project(m), *backend.gap(m))
    return dict(zip(hard, zip(*(x.split(cases.DRAWS) for x in results), strict=True), strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", cases.hard_matrices(torch.float64))
def test_rotations_are_orthonormal(backend, case, dtype):
    r = all_projections(backend, dtype)[case][0].double()
    defect = (r.mT @ r - torch.eye(3)).abs().amax()
    assert defect <= ORTHOGONALITY * torch.finfo(dtype).eps
    assert (torch.linalg.det(r) > 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", cases.regular_matrices(torch.float64))
def test_error_against_fifty_digits(backend, case, dtype):
    r, gap, gap_derivative = all_projections(backend, dtype)[case]
    true = exact(case, dtype)
    eps = torch.finfo(dtype).eps
    unit = eps * true.largest / true.gap
    assert (truth.error(r, true.rotation) <= FORWARD * unit).all()
    assert ((gap.double() - true.gap).abs() <= GAP * eps * true.largest).all()

    # Which two singular vectors belong to the gap is itself undefined where s1 = s2.
    apart = (true.largest - true.second) / true.largest
    bound = DIFFERENTIAL * torch.maximum(unit, eps / apart)
    assert (truth.error(gap_derivative, true.gap_derivative) <= bound)[apart > 1e-2].all()


@pytest.mark.parametrize("draw", [cotangents, cancelling_cotangents])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_error_of_the_differential_against_fifty_digits(backend, dtype, draw):
    regular = cases.regular_matrices(dtype)
    m = torch.cat(list(regular.values()))
    r = torch.cat([all_projections(backend, dtype)[case][0] for case in regular])
    d = backend.differentiate(m, r, torch.cat([draw(case, dtype)[0] for case in regular]))
    for case, computed in zip(regular, d.split(cases.DRAWS), strict=True):
        (t, vjp), true = draw(case, dtype), exact(case, dtype)
        unit = torch.finfo(dtype).eps * true.largest / true.gap
        size = t.double().norm(dim=(-2, -1)) / true.gap
        assert (truth.error(computed, vjp) <= DIFFERENTIAL * unit * size).all(), case


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "case", ["reflection", "random_reflection", "no_gap", "rank_one", "rank_one_axis", "ones"]
)
def test_what_is_undefined_is_left_out_and_what_is_defined_is_not(backend, case, dtype):
    """Pair sums that are zero but for rounding count as zero, be it one or two."""
    m = cases.ambiguous_matrices(dtype)[case]
    r = all_projections(backend, dtype)[case][0]
    t = torch.randn(m.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    p = r.double().mT @ m.double()
    p = (p + p.mT) / 2
    s, v = torch.linalg.eigh(p)
    pair = s[:, :, None] + s[:, None, :]
    counts = pair > 1e-3 * s[:, -1:, None]
    a = v.mT @ r.double().mT @ t.double() @ v
    expected = r.double() @ v @ torch.where(counts, (a - a.mT) / torch.where(counts, pair, 1), 0) @ v.mT
    least = torch.where(counts, pair, torch.inf).amin((-2, -1))
    error = (backend.differentiate(m, r, t).double() - expected).norm(dim=(-2, -1))
    unit = torch.finfo(dtype).eps * s[:, -1] / least
    assert (error <= DIFFERENTIAL * unit * t.double().norm(dim=(-2, -1)) / least).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", cases.ambiguous_matrices(torch.float64))
def test_ambiguous_matrices_get_one_of_their_nearest_rotations_and_a_finite_gradient(backend, case, dtype):
    m = cases.ambiguous_matrices(dtype)[case]
    r, gap, gap_derivative = all_projections(backend, dtype)[case]
    s = torch.linalg.svdvals(m.double())
    s[:, 2] *= torch.linalg.det(m.double() / s[:, :1, None].clamp_min(1e-300)).sign()
    inner = (r.double() * m.double()).sum((-2, -1))
    # Of a denormal number only its leading bits exist, which bound the accuracy in its place.
    rounding = (
        8 * torch.finfo(dtype).eps * s[:, 0] + 8 * torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    )
    assert (inner >= s.sum(-1) - rounding).all()
    t = torch.randn(m.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert backend.differentiate(m, r, t).isfinite().all()
    assert gap.isfinite().all() and gap_derivative.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_gives_identity_zero_gradient_and_gap_zero(backend, dtype):
    m = torch.zeros(5, 3, 3, dtype=dtype)
    r = backend.project(m)
    torch.testing.assert_close(
        r, torch.eye(3, dtype=dtype).expand(5, 3, 3), rtol=0, atol=torch.finfo(dtype).eps
    )
    assert torch.equal(backend.differentiate(m, r, torch.ones_like(m)), m)
    assert torch.equal(backend.gap(m)[0], m[:, 0, 0])


BAD = {
    "nan": torch.tensor([[1.0, 2, 3], [4, torch.nan, 6], [7, 8, 10]]),
    "infinity": torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, torch.inf, 10]]),
    "minus_infinity": torch.full((3, 3), -torch.inf),
    "zero": torch.zeros(3, 3),
    "rank_one": torch.ones(3, 3),
    "huge": torch.full((3, 3), 3e38),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_matrix_stays_in_its_place(backend, bad, dtype):
    generator = torch.Generator().manual_seed(3)
    m, t = torch.randn(2, 200, 3, 3, dtype=dtype, generator=generator)
    places = torch.tensor([0, 63, 64, 130, 199])
    others = torch.ones(200, dtype=torch.bool).index_fill(0, places, False)
    spoiled = m.index_copy(0, places, BAD[bad].to(dtype).expand(len(places), 3, 3))

    r, r_spoiled = backend.project(m), backend.project(spoiled)
    d, d_spoiled = backend.differentiate(m, r, t), backend.differentiate(spoiled, r_spoiled, t)
    (g, h), (g_spoiled, h_spoiled) = backend.gap(m), backend.gap(spoiled)
    for clean, dirty in ((r, r_spoiled), (d, d_spoiled), (g, g_spoiled), (h, h_spoiled)):
        assert torch.equal(clean[others], dirty[others])
        spoiled_rows = dirty[places]
        assert spoiled_rows.isfinite().all() if BAD[bad].isfinite().all() else spoiled_rows.isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_result_does_not_depend_on_the_batch_around_it(backend, dtype):
    m, t = torch.randn(2, 150, 3, 3, dtype=dtype, generator=torch.Generator().manual_seed(4))
    r = backend.project(m)
    d = backend.differentiate(m, r, t)
    for rows in (slice(0, 1), slice(37, 101), slice(149, 150), slice(0, 0)):
        assert torch.equal(backend.project(m[rows]), r[rows])
        assert torch.equal(backend.differentiate(m[rows], r[rows], t[rows]), d[rows])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scaling_by_powers_of_two_changes_nothing(backend, dtype):
    m, t = torch.randn(2, 50, 3, 3, dtype=dtype, generator=torch.Generator().manual_seed(5))
    r = backend.project(m)
    d = backend.differentiate(m, r, t)
    for exponent in (-90, -10, 1, 100):
        assert torch.equal(backend.project(m * 2.0**exponent), r)
        assert torch.equal(backend.differentiate(m * 2.0**exponent, r, t) * 2.0**exponent, d)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_damping_divides_by_the_regularized_pair_sums(backend, dtype):
    s = torch.tensor([2.0, 1.0, -0.9])
    m = torch.diag(s).to(dtype)[None]
    damping = 0.05
    t = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(6)).to(dtype)
    pair = s[:, None] + s
    expected = (t - t.mT) * pair / (pair.square() + (damping * s.sum()) ** 2)
    found = backend.differentiate(m, torch.eye(3, dtype=dtype)[None], t, damping)
    torch.testing.assert_close(found, expected.to(dtype), rtol=1e-5, atol=1e-6)


def test_every_row_is_taken_once(monkeypatch):
    """By whichever thread, of more than there are cores."""
    monkeypatch.setattr(loops, "NUMBERS_PER_THREAD", 64)
    monkeypatch.setattr(loops, "NUMBERS_PER_CHUNK", 32)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    x = torch.randn(501, 40, 3)
    m, _ = pairs_cpu.moments(x, x, None, True)
    monkeypatch.undo()
    assert torch.equal(m, pairs_cpu.moments(x, x, None, True)[0])
