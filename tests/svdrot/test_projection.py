"""Laws of the public projections: what they are, whatever computes them."""

import math

import cases
import numpy as np
import pytest
import roma
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import svdrot
from svdrot._formulas import projection
from svdrot.engine import operations

DTYPES = [torch.float32, torch.float64]
# Entries of every size, the singular ones likely: small integers make rank-deficient and tied matrices.
ENTRIES = st.one_of(
    st.integers(-2, 2).map(float),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(-1, 1, width=32),
)
ANY_MATRIX = arrays(np.float32, (3, 3), elements=ENTRIES)


def rounding(dtype: torch.dtype, matrix: torch.Tensor) -> torch.Tensor:
    """What rounding may do to the nearest rotation: 16 units over the relative gap. Shape (B, 1, 1)."""
    s1 = torch.linalg.matrix_norm(matrix.double(), 2)
    gap = svdrot.projection_gap(matrix.double())
    return (16 * torch.finfo(dtype).eps * s1 / gap)[:, None, None]


def well_defined(dtype: torch.dtype) -> torch.Tensor:
    """Every regular case whose nearest rotation is defined to a percent or better, in one batch."""
    m = torch.cat(list(cases.regular_matrices(dtype).values()))
    return m[rounding(dtype, m).flatten() < 1e-2]


@given(ANY_MATRIX)
@settings(max_examples=300, deadline=None)
def test_any_finite_matrix_has_a_nearest_rotation_and_a_finite_gradient(entries):
    m = torch.from_numpy(entries)[None].requires_grad_()
    r = svdrot.special_orthogonalize(m)
    assert svdrot.is_rotation(r).all()
    (d,) = torch.autograd.grad(r, m, torch.ones_like(r))
    assert d.isfinite().all()
    gap = svdrot.projection_gap(m)
    (g,) = torch.autograd.grad(gap, m, torch.ones_like(gap))
    assert gap.isfinite().all() and g.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rotations_are_nearest_to_themselves_where_operations_compute(dtype):
    """On other devices and in exported programs. Of a rotation MᵀM - I is rounding, often diag(s, s, 0)."""
    generator = torch.Generator().manual_seed(0)
    rotation = svdrot.random_rotation(30000, dtype=torch.float64, generator=generator)
    axis = rotation[..., :1]
    half_turn = 2 * axis @ axis.mT - torch.eye(3, dtype=torch.float64)
    for m in (rotation.to(dtype), half_turn.to(dtype)):
        nearest, gap = (
            operations.run(f.program.name, (), (m,), (dtype, dtype))[0]
            for f in (projection.project, projection.gap)
        )
        bound = 16 * torch.finfo(dtype).eps
        torch.testing.assert_close(nearest, m, rtol=0, atol=bound)
        torch.testing.assert_close(gap, torch.full_like(gap, 2.0), rtol=0, atol=2 * bound)


@given(ANY_MATRIX, st.integers(0, 2**31))
@settings(max_examples=200, deadline=None)
def test_no_other_rotation_is_nearer(entries, seed):
    m = torch.from_numpy(entries).double()
    r = svdrot.special_orthogonalize(m)
    generator = torch.Generator().manual_seed(seed)
    anywhere = svdrot.random_rotation(500, dtype=m.dtype, generator=generator)
    turns = (
        torch.randn(500, 3, dtype=m.dtype, generator=generator) * 10 ** -torch.linspace(0, 6, 500)[:, None]
    )
    nearby = r @ svdrot.axis_angle_to_matrix(turns)
    # |M - R|² = |M|² + n - 2 <M, R>: the larger the inner product, the nearer.
    best = (m * r).sum()
    for other in (anywhere, nearby):
        assert ((m * other).sum((-2, -1)) <= best + 1e-14 * m.norm()).all()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_size_is_orthonormal_and_optimal(n, dtype):
    generator = torch.Generator().manual_seed(n)
    m = torch.randn(50, n, n, dtype=dtype, generator=generator)
    r = svdrot.special_orthogonalize(m)
    assert (r.mT @ r - torch.eye(n)).abs().max() <= 8 * n * torch.finfo(dtype).eps
    assert (torch.linalg.det(r) > 0).all()
    skew = (
        torch.randn(200, 1, n, n, dtype=dtype, generator=generator)
        * 10 ** -torch.linspace(0, 4, 200)[:, None, None, None]
    )
    other = r @ torch.linalg.matrix_exp((skew - skew.mT).to(dtype))
    tolerance = 16 * n * torch.finfo(dtype).eps * m.norm(dim=(-2, -1))
    assert ((m * other).sum((-2, -1)) <= (m * r).sum((-2, -1)) + tolerance).all()


def test_the_determinant_of_large_rotations_is_not_lost():
    """Of a rotation of 512 columns the product of the pivots is 0 in float32, on the way to 1."""
    m = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    for matrix in (m, torch.cat((-m[:1], m[1:]))):
        r = svdrot.special_orthogonalize(matrix)
        assert (r.mT @ r - torch.eye(512)).abs().max() < 64 * torch.finfo(r.dtype).eps
        assert torch.linalg.slogdet(r).sign == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rotations_from_both_sides_pass_through(dtype):
    m = well_defined(dtype)
    u, v = svdrot.random_rotation(2, len(m), dtype=dtype, generator=torch.Generator().manual_seed(0))
    m = m / m.abs().amax((-2, -1), keepdim=True)
    left = svdrot.special_orthogonalize(u @ m @ v)
    right = u @ svdrot.special_orthogonalize(m) @ v
    assert ((left - right).abs() <= rounding(dtype, m)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scale_changes_the_gradient_by_its_inverse_and_nothing_else(dtype):
    m = torch.randn(50, 3, 3, dtype=dtype, generator=torch.Generator().manual_seed(1))
    w = torch.randn(50, 3, 3, dtype=dtype, generator=torch.Generator().manual_seed(2))

    def result(scale):
        x = (m * scale).requires_grad_()
        r = svdrot.special_orthogonalize(x)
        return r.detach(), torch.autograd.grad(r, x, w)[0] * scale

    r, d = result(1.0)
    for exponent in (-30, -20, -6, 6, 15, 30):
        r_scaled, d_scaled = result(10.0**exponent)
        assert ((r - r_scaled).abs() <= rounding(dtype, m)).all()
        assert ((d - d_scaled).abs() <= rounding(dtype, m) * d.norm(dim=(-2, -1), keepdim=True) * 4).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_jacobian_is_symmetric_and_the_adjoint_identity_holds(dtype):
    m = well_defined(dtype)
    g, t = torch.randn(2, *m.shape, dtype=dtype, generator=torch.Generator().manual_seed(3))
    _, vjp = torch.func.vjp(svdrot.special_orthogonalize, m)
    _, jvp = torch.func.jvp(svdrot.special_orthogonalize, (m,), (t,))
    a, b = (vjp(g)[0] * t).double().sum((-2, -1)), (g * jvp).double().sum((-2, -1))
    scale = vjp(g)[0].double().norm(dim=(-2, -1)) * t.double().norm(dim=(-2, -1))
    scale += jvp.double().norm(dim=(-2, -1)) * g.double().norm(dim=(-2, -1))
    assert ((a - b).abs() <= rounding(dtype, m).flatten() * scale).all()

    jacobian = torch.func.vmap(torch.func.jacrev(svdrot.special_orthogonalize))(m).flatten(1, 2).flatten(2)
    jacobian = jacobian.double()
    assert (
        (jacobian - jacobian.mT).abs() <= rounding(dtype, m) * jacobian.norm(dim=(-2, -1), keepdim=True)
    ).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_at_a_rotation_is_the_skew_part(dtype):
    r = svdrot.random_rotation(100, dtype=dtype, generator=torch.Generator().manual_seed(4))
    r = torch.cat((torch.eye(3, dtype=dtype)[None], r)).requires_grad_()
    g = torch.randn(r.shape, dtype=dtype, generator=torch.Generator().manual_seed(5))
    (d,) = torch.autograd.grad(svdrot.special_orthogonalize(r), r, g)
    exact = (g - r @ g.mT @ r) / 2
    assert (d - exact).abs().max() <= 32 * torch.finfo(dtype).eps


@pytest.mark.parametrize("n", [2, 4, 5])
def test_gradient_at_the_identity_of_every_size_is_the_skew_part(n):
    eye = torch.eye(n, dtype=torch.float64).requires_grad_()
    g = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    (d,) = torch.autograd.grad(svdrot.special_orthogonalize(eye), eye, g)
    torch.testing.assert_close(d, (g - g.mT) / 2, rtol=0, atol=1e-14)


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_other_sizes_keep_bad_matrices_in_their_place(n):
    m = torch.randn(6, n, n, generator=torch.Generator().manual_seed(7))
    spoiled = m.clone()
    spoiled[1], spoiled[3, 0, 0], spoiled[4] = torch.nan, torch.inf, 0.0
    gradients = []
    for x in (m, spoiled):
        x.requires_grad_()
        r = svdrot.special_orthogonalize(x)
        gradients.append(torch.autograd.grad(r.sum(), x)[0])
        assert torch.equal(r[[0, 2, 5]], svdrot.special_orthogonalize(m)[[0, 2, 5]])
    assert torch.equal(gradients[0][[0, 2, 5]], gradients[1][[0, 2, 5]])
    assert r[[1, 3]].isnan().all() and gradients[1][[1, 3]].isnan().all()
    torch.testing.assert_close(r[4].detach(), torch.eye(n), rtol=0, atol=1e-6)
    assert torch.equal(gradients[1][4], torch.zeros(n, n))
    gap = svdrot.projection_gap(spoiled)
    assert gap[[1, 3]].isnan().all() and (gap[4] == 0 or n == 1)


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (4, 2), (7, 3), (2, 4), (3, 8), (1, 3), (3, 1)]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_orthogonalize_is_the_polar_factor(shape, dtype):
    m = torch.randn(40, *shape, dtype=dtype, generator=torch.Generator().manual_seed(8))
    q = svdrot.orthogonalize(m)
    for matrix, factor in zip(m, q, strict=True):
        side = "right" if shape[0] >= shape[1] else "left"
        exact, _ = scipy.linalg.polar(matrix.double().numpy(), side=side)
        s = torch.linalg.svdvals(matrix.double())
        gap = s[-1] + s[-2] if shape[0] == shape[1] > 1 else s[-1]
        error = (factor.double() - torch.from_numpy(exact)).norm()
        assert error <= 16 * max(shape) * torch.finfo(dtype).eps * s[0] / gap


def test_orthogonalize_keeps_the_sign_of_the_determinant():
    m = torch.randn(100, 3, 3, generator=torch.Generator().manual_seed(9))
    assert torch.equal(torch.linalg.det(m) > 0, torch.linalg.det(svdrot.orthogonalize(m)) > 0)


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (5, 2), (2, 5)])
def test_orthogonalize_of_rank_deficient_and_bad_matrices(shape):
    m = torch.zeros(3, *shape)
    m[1] = torch.nan
    m[2, 0, 0] = 1
    m.requires_grad_()
    q = svdrot.orthogonalize(m)
    (d,) = torch.autograd.grad(q.sum(), m)
    tall = q if shape[0] >= shape[1] else q.mT
    gram = tall.mT @ tall
    assert (gram[[0, 2]] - torch.eye(min(shape))).abs().max() < 1e-6
    assert q[1].isnan().all() and d[1].isnan().all() and d[[0, 2]].isfinite().all()


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_gap_is_the_smallest_signed_pair_sum(n):
    m = torch.randn(100, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(10))
    s = torch.linalg.svdvals(m)
    expected = s[:, -2] + s[:, -1] * torch.linalg.det(m).sign()
    torch.testing.assert_close(svdrot.projection_gap(m), expected, rtol=1e-12, atol=1e-13)


def test_gap_of_one_dimension_is_infinite():
    assert torch.equal(svdrot.projection_gap(torch.randn(4, 1, 1)), torch.full((4,), math.inf))


def test_gap_bounds_what_a_perturbation_can_do():
    """Moving M by less than half the gap leaves the rotation within asin(2 |E| / gap) of where it was."""
    generator = torch.Generator().manual_seed(11)
    m = torch.randn(2000, 3, 3, dtype=torch.float64, generator=generator)
    e = torch.randn(2000, 3, 3, dtype=torch.float64, generator=generator)
    gap = svdrot.projection_gap(m)
    e = e * (0.49 * gap / torch.linalg.matrix_norm(e, 2))[:, None, None]
    moved = svdrot.geodesic_distance(svdrot.special_orthogonalize(m), svdrot.special_orthogonalize(m + e))
    assert (moved <= math.pi / 2).all()
    assert (svdrot.projection_gap(m + e) > 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_rotation_as_roma(dtype):
    m = well_defined(dtype)
    m = m / m.abs().amax((-2, -1), keepdim=True)  # roma's damping is absolute
    ours, theirs = svdrot.special_orthogonalize(m), roma.special_procrustes(m)
    assert ((ours - theirs).abs() <= rounding(dtype, m)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_half_precision_is_rounded_once(dtype, n):
    m = torch.randn(20, n, n, generator=torch.Generator().manual_seed(12)).to(dtype).requires_grad_()
    r = svdrot.special_orthogonalize(m)
    assert r.dtype == dtype
    wide = m.detach().float().requires_grad_()
    expected = svdrot.special_orthogonalize(wide)
    assert torch.equal(r, expected.to(dtype))
    w = torch.randn(20, n, n).to(dtype)
    (d,) = torch.autograd.grad(r, m, w)
    assert torch.equal(d, torch.autograd.grad(expected, wide, w.float())[0].to(dtype))
    assert svdrot.projection_gap(m).dtype == svdrot.orthogonalize(m).dtype == dtype


@pytest.mark.parametrize("n", [2, 3, 4])
def test_autocast_gives_float32(n):
    m = torch.randn(20, n, n, generator=torch.Generator().manual_seed(13))
    for x in (m, m.bfloat16()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            results = svdrot.special_orthogonalize(x), svdrot.orthogonalize(x), svdrot.projection_gap(x)
        expected = (
            svdrot.special_orthogonalize(x.float()),
            svdrot.orthogonalize(x.float()),
            svdrot.projection_gap(x.float()),
        )
        for result, exact in zip(results, expected, strict=True):
            assert torch.equal(result, exact)


def test_any_layout_and_batch_shape():
    m = torch.randn(4, 5, 3, 3, generator=torch.Generator().manual_seed(14))
    r = svdrot.special_orthogonalize(m)
    assert torch.equal(svdrot.special_orthogonalize(m[2, 3]), r[2, 3])
    assert torch.equal(svdrot.special_orthogonalize(m.transpose(0, 1)), r.transpose(0, 1))
    assert torch.equal(svdrot.special_orthogonalize(m[:, ::2]), r[:, ::2])
    assert torch.equal(svdrot.special_orthogonalize(m[0, 0].expand(7, 3, 3)), r[0, 0].expand(7, 3, 3))
    stored_by_columns = m.mT.contiguous().mT
    assert torch.equal(svdrot.special_orthogonalize(stored_by_columns), r)
    for shape in ((0, 3, 3), (2, 0, 3, 3), (0, 4, 4), (0, 2, 2)):
        empty = torch.zeros(shape, requires_grad=True)
        result = svdrot.special_orthogonalize(empty)
        assert result.shape == shape
        result.sum().backward()
        assert svdrot.projection_gap(empty).shape == shape[:-2]
    with torch.inference_mode():
        assert torch.equal(svdrot.special_orthogonalize(m), r)
    # The imaginary part of a conjugate: numbers whose sign is still to be taken. At reflections another order
    # of roundings would give another rotation.
    reflections = -svdrot.random_rotation(100, generator=torch.Generator().manual_seed(15))
    conjugate = torch.complex(torch.zeros_like(reflections), -reflections).conj().imag
    assert conjugate.is_neg()
    assert torch.equal(svdrot.special_orthogonalize(conjugate), svdrot.special_orthogonalize(reflections))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: svdrot.special_orthogonalize(torch.zeros(3, 2)),
            ValueError,
            r"`matrix` .*\(\.\.\., n, n\).*\(3, 2\)",
        ),
        (
            lambda: svdrot.special_orthogonalize(torch.zeros(3)),
            ValueError,
            r"`matrix` .*\(\.\.\., n, n\).*\(3,\)",
        ),
        (
            lambda: svdrot.special_orthogonalize(torch.zeros(2, 0, 0)),
            ValueError,
            r"`matrix` .*n >= 1.*\(2, 0, 0\)",
        ),
        (
            lambda: svdrot.special_orthogonalize(torch.zeros(3, 3).long()),
            TypeError,
            r"`matrix` .*floating.*int64",
        ),
        (lambda: svdrot.special_orthogonalize([[1.0]]), TypeError, r"`matrix` .*tensor.*list"),
        (
            lambda: svdrot.special_orthogonalize(torch.eye(3), damping=-1.0),
            ValueError,
            r"`damping` .*>= 0.*-1",
        ),
        (
            lambda: svdrot.special_orthogonalize(torch.eye(3), damping=math.nan),
            ValueError,
            r"`damping` .*nan",
        ),
        (lambda: svdrot.orthogonalize(torch.zeros(3)), ValueError, r"`matrix` .*\(\.\.\., m, n\).*\(3,\)"),
        (
            lambda: svdrot.projection_gap(torch.zeros(2, 3)),
            ValueError,
            r"`matrix` .*\(\.\.\., n, n\).*\(2, 3\)",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_reflections_of_the_plane_are_equally_far_from_all_rotations(dtype):
    angle = 7 * torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c, s = angle.cos(), angle.sin()
    for scale in (1.0,) if dtype.itemsize < 4 else (1.0, 1e-30, 1e30, 3e38):
        mirrors = (scale * torch.stack((c, s, s, -c), -1)).reshape(-1, 2, 2).to(dtype)
        eye = torch.eye(2, dtype=dtype).expand(1000, 2, 2)
        assert torch.equal(svdrot.special_orthogonalize(mirrors), eye)
        assert torch.equal(svdrot.projection_gap(mirrors), mirrors.new_zeros(1000))


@pytest.mark.parametrize("scale", [1e-30, 1e-37, 1e30])
def test_a_reflection_stays_one_at_any_scale(scale):
    reflection = torch.diag(torch.tensor([1.0, 2.0, -3.0])) * scale
    nearest = svdrot.orthogonalize(reflection)
    torch.testing.assert_close(nearest, torch.diag(torch.tensor([1.0, 1.0, -1.0])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [2, 3])
def test_small_factors_are_those_of_the_decomposition(n, dtype):
    """Of both orientations and of any size, by the compiled loops and by what autograd sees through."""
    torch.manual_seed(0)
    m = torch.randn(1000, n, n, dtype=dtype)
    m[:100] *= 1e-18
    m[100:200] *= 1e18
    u, _, vh = torch.linalg.svd(m.double())
    sign = torch.ones(1000, n, dtype=torch.float64)
    sign[:, -1] = torch.linalg.det(u @ vh).sign()
    # Rounding is amplified by the gap, twice the smallest singular value and more: the tail of 1,000 draws.
    tolerance = 4000 * torch.finfo(dtype).eps
    for q in (svdrot.orthogonalize(m), svdrot.orthogonalize(m.clone().requires_grad_()).detach()):
        torch.testing.assert_close(q.double(), u @ vh, rtol=0, atol=tolerance)
    for r in (
        svdrot.special_orthogonalize(m),
        svdrot.special_orthogonalize(m.clone().requires_grad_()).detach(),
    ):
        torch.testing.assert_close(r.double(), u * sign[:, None] @ vh, rtol=0, atol=tolerance)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("function", [svdrot.orthogonalize, svdrot.special_orthogonalize])
def test_small_matrices_without_a_factor(function, n):
    m = torch.randn(5, n, n)
    m[0], m[1, 0, 0], m[2, 1, 1], m[3] = 0, torch.nan, -torch.inf, 1
    q = function(m)
    torch.testing.assert_close(q[0], torch.eye(n))
    assert q[1:3].isnan().all()
    torch.testing.assert_close(q[3:].mT @ q[3:], torch.eye(n).expand(2, n, n))
