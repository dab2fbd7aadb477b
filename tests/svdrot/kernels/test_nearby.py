"""Polar factors of what is nearly orthonormal: as those of any matrix, for less."""

import pytest
import torch
from torch import Tensor

import svdrot
from svdrot._kernels.operations import any_size, nearby

EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}
SHAPES = [(2, 2), (3, 3), (5, 3), (16, 16), (39, 39), (40, 40), (64, 41), (100, 100), (130, 128)]
AWAY = {"there": 0.0, "rounding": 1e-6, "a small step": 1e-3, "a step": 0.02, "a long step": 0.3, "far": 3.0}


def frames(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return svdrot.orthogonalize(x).to(dtype)


def moved(q: Tensor, away: float, kind: str) -> Tensor:
    """Off by a matrix of about this spectral norm."""
    generator = torch.Generator().manual_seed(1)
    d = torch.randn(q.shape, dtype=torch.float64, generator=generator).to(q.dtype)
    if kind == "of rank one":
        d = d[..., :1] @ d[..., :1, :].mT.mT
    elif kind == "tangent":
        d = q @ (q.mT @ d - d.mT @ q) / 2
    return q + away * d / torch.linalg.matrix_norm(d, 2)[..., None, None]


@pytest.mark.parametrize("dtype", EPS, ids=str)
@pytest.mark.parametrize("kind", ["any", "tangent", "of rank one"])
@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_polar_factor(shape, away, kind, dtype):
    m = moved(frames(2, *shape, dtype=dtype), AWAY[away], kind)
    found = nearby.orthogonalize(m)
    s = torch.linalg.svdvals(m.double())
    # Rounding of the matrix moves the factor by so much; what products add grows as the root of n.
    error = 32 * EPS[dtype] * shape[1] ** 0.5 * (s[..., :1] / s[..., -1:])[..., None]
    assert ((found - svdrot.orthogonalize(m.double())).abs() <= error).all()
    left = torch.linalg.matrix_norm(found.double().mT @ found.double() - torch.eye(shape[1]), 2)
    assert (left <= 16 * EPS[dtype] * shape[1] ** 0.5).all()


@pytest.mark.parametrize("n", [3, 16, 64])
@pytest.mark.parametrize("away", [0.0, 0.1, 2.5])
def test_rotations_have_determinant_one(n, away):
    q = svdrot.special_orthogonalize(frames(3, n, n, dtype=torch.float64))
    m = moved(q, away, "any")
    m[1] = -m[1] if n % 2 else torch.cat((-m[1, :, :1], m[1, :, 1:]), -1)
    for before in (None, q, svdrot.special_orthogonalize(m)):
        found = nearby.special_orthogonalize(m, before)
        far, least = (torch.linalg.matrix_norm(m - r) for r in (found, svdrot.special_orthogonalize(m)))
        torch.testing.assert_close(far, least, rtol=0, atol=1e-12)  # of a reflection many are as near
        torch.testing.assert_close(torch.linalg.det(found), torch.ones_like(found[:, 0, 0]))


def test_what_is_no_number_stays_in_its_place():
    m = moved(frames(3, 48, 48, dtype=torch.float32), 0.01, "any")
    whole = nearby.orthogonalize(m)
    m[1, 0, 0] = torch.nan
    found = nearby.orthogonalize(m)
    assert found[1].isnan().all()
    torch.testing.assert_close(found[[0, 2]], whole[[0, 2]], rtol=0, atol=1e-6)


def test_far_off_it_goes_the_way_of_any_matrix():
    """A singular value beyond √(7 / 3) would grow with every step."""
    q = frames(1, 64, 64, dtype=torch.float64)
    m = q.clone()
    m[..., 0] *= 1.8
    torch.testing.assert_close(nearby.orthogonalize(m), q, rtol=0, atol=1e-13)
    m = torch.randn(1, 150, 130, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(any_size.by_products(m), svdrot.orthogonalize(m), rtol=0, atol=1e-4)
    torch.testing.assert_close(nearby.orthogonalize(m), svdrot.orthogonalize(m), rtol=0, atol=1e-4)


def test_no_matrices_have_no_factors():
    assert nearby.orthogonalize(torch.zeros(0, 50, 50)).shape == (0, 50, 50)
    assert nearby.special_orthogonalize(torch.zeros(0, 50, 50)).shape == (0, 50, 50)
