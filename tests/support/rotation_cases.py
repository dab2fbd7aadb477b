"""Rotations that every law must survive, by name, in float64 and made by scipy."""

from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

DRAWS = 64
FIXTURES = Path(__file__).parent / "fixtures"


def _turned(angle: np.ndarray, seed: int) -> Tensor:
    axis = np.random.default_rng(seed).normal(size=(DRAWS, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    return torch.from_numpy(Rotation.from_rotvec(axis * angle[:, None]).as_matrix())


def _locked(sequence: str, middle: np.ndarray) -> Tensor:
    angles = np.random.default_rng(4).uniform(-np.pi, np.pi, (DRAWS, 3))
    angles[:, 1] = middle
    return torch.from_numpy(Rotation.from_euler(sequence, angles).as_matrix())


_TINY = np.logspace(-14, -1, DRAWS)  # from rounding in float64, over rounding in float32, to plain angles
HARD = {
    "identity": torch.eye(3, dtype=torch.float64).expand(DRAWS, 3, 3),
    "random": torch.from_numpy(Rotation.random(DRAWS, random_state=1).as_matrix()),
    "small": _turned(_TINY, 2),
    "near_half_turn": _turned(np.pi - _TINY, 3),
    "half_turn": _turned(np.full(DRAWS, np.pi), 5),
    "half_turn_about_axes": torch.tensor(
        [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64
    ).diag_embed(),
    "quarter_turns": torch.from_numpy(Rotation.create_group("O").as_matrix()),
    "gimbal_lock_xyz": _locked("XYZ", np.full(DRAWS, np.pi / 2)),
    "near_gimbal_lock_xyz": _locked("XYZ", -np.pi / 2 + _TINY),
    "gimbal_lock_zxz": _locked("ZXZ", np.zeros(DRAWS)),
    "near_gimbal_lock_zxz": _locked("ZXZ", np.pi - _TINY),
}
