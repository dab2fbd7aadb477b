"""Matrices that every law must survive, by name: the easy, the hard and the singular."""

import torch
from torch import Tensor

DRAWS = 16


def _factors(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two batches of random rotations, (DRAWS, 3, 3) in float64."""
    q = torch.linalg.qr(torch.randn(2, DRAWS, 3, 3, dtype=torch.float64, generator=generator)).Q
    u, v = q * torch.linalg.det(q)[..., None, None]
    return u, v


def with_singular_values(*values: float, seed: int = 0) -> Tensor:
    """U diag(values) Vᵀ with random rotations U, V: a negative last value means det < 0. Shape (DRAWS, 3,
    3)."""
    u, v = _factors(torch.Generator().manual_seed(seed))
    return u @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ v.mT


def regular_matrices(dtype: torch.dtype) -> dict[str, Tensor]:
    """Full-rank and rank-two matrices whose nearest rotation is unique, shape (DRAWS, 3, 3) each."""
    generator = torch.Generator().manual_seed(1)
    gaussian = torch.randn(DRAWS, 3, 3, dtype=torch.float64, generator=generator)
    noise = torch.randn(DRAWS, 3, 3, dtype=torch.float64, generator=generator)
    rotation = with_singular_values(1, 1, 1)
    eps = torch.finfo(dtype).eps
    cases = {
        "gaussian": gaussian,
        "near_rotation": rotation + 1e-3 * noise,
        "nearer_rotation": rotation + 4 * eps * noise,
        "rotation": rotation,
        "identity": torch.eye(3, dtype=torch.float64).expand(DRAWS, 3, 3),
        "two_equal_large": with_singular_values(2, 2, 0.7),
        "two_equal_small": with_singular_values(2, 0.7, 0.7),
        "nearly_equal_large": with_singular_values(1 + 1e-4, 1, 0.3),
        "nearly_equal_small": with_singular_values(1, 0.3, 0.3 * (1 + 1e-5)),
        "negative": with_singular_values(1.5, 1, -0.4),
        "negative_equal_large": with_singular_values(1, 1, -0.5),
        "negative_nearly_equal": with_singular_values(1, 1 - 1e-3, -(1 - 2e-3)),
        "negative_small_gap": with_singular_values(1, 0.5, -0.5 * (1 - 1e-2)),
        "negative_tiny_gap": with_singular_values(1, 0.5, -0.5 * (1 - 200 * eps)),
        "nearly_reflection": with_singular_values(1, 1, -(1 - 1e3 * eps)),
        "ill_conditioned": with_singular_values(1, 1e-2, 1e-4),
        "nearly_rank_one": with_singular_values(1, 300 * eps, 100 * eps),
        "rank_two": with_singular_values(1, 0.6, 0),
        "rank_two_equal": with_singular_values(1, 1, 0),
        "axis_aligned": torch.diag_embed(torch.rand(DRAWS, 3, dtype=torch.float64, generator=generator)),
    }
    for exponent in (-35, -30, -20, -5, 5, 15, 30, 35):
        cases[f"scale_1e{exponent}"] = gaussian * 10.0**exponent
    return {name: matrix.to(dtype) for name, matrix in cases.items()}


def ambiguous_matrices(dtype: torch.dtype) -> dict[str, Tensor]:
    """Matrices with more than one nearest rotation, shape (DRAWS, 3, 3) each."""
    identity = torch.eye(3, dtype=torch.float64).expand(DRAWS, 3, 3)
    cases = {
        "zero": torch.zeros(DRAWS, 3, 3, dtype=torch.float64),
        "reflection": -identity,
        "random_reflection": with_singular_values(1, 1, -1),
        "no_gap": with_singular_values(1, 0.5, -0.5),
        "rank_one": with_singular_values(1, 0, 0),
        "rank_one_axis": identity * torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64),
        "ones": torch.ones(DRAWS, 3, 3, dtype=torch.float64),
        "denormal": with_singular_values(1, 0.5, 0.2) * (torch.finfo(dtype).tiny / 1024),
    }
    return {name: matrix.to(dtype) for name, matrix in cases.items()}


def hard_matrices(dtype: torch.dtype) -> dict[str, Tensor]:
    return regular_matrices(dtype) | ambiguous_matrices(dtype)
