"""Clouds of unequal sizes as one tensor, from which every step draws points, and the sets of them."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from datasets import planes, shapes
from experiments.shared import data


@dataclass(frozen=True)
class Clouds:
    points: Tensor  # (clouds, longest, 3), the shorter filled up with their first point: no maximum notices
    sizes: Tensor  # (clouds,)

    @classmethod
    def pack(cls, clouds: list[np.ndarray]) -> "Clouds":
        sizes = torch.tensor([len(cloud) for cloud in clouds])
        points = torch.empty(len(clouds), int(sizes.max()), 3)
        for row, cloud in zip(points, clouds, strict=True):
            row[: len(cloud)] = torch.from_numpy(cloud)
            row[len(cloud) :] = row[0]
        return cls(points, sizes)

    def draw(self, which: Tensor, points: int, generator: Generator) -> Tensor:
        """Draw `points` points of each cloud of `which`, with replacement; all of them, filled up, if 0."""
        if points == 0:
            return self.points[which]
        big = torch.randint(2**31, (len(which), points), device=which.device, generator=generator)
        return self.points[which[:, None], big % self.sizes[which, None]]

    def draw_different(self, which: Tensor, points: int, generator: Generator) -> Tensor:
        """Draw `points` points of each cloud of `which`, no point twice; of the smallest at most all."""
        keys = torch.rand(len(which), self.points.shape[1], device=which.device, generator=generator)
        missing = torch.arange(keys.shape[1], device=which.device) >= self.sizes[which, None]
        order = keys.masked_fill(missing, 2.0).argsort(1)[:, : min(points, int(self.sizes[which].min()))]
        return self.points[which[:, None], order]

    def to(self, device: str) -> "Clouds":
        return Clouds(self.points.to(device), self.sizes.to(device))


@dataclass(frozen=True)
class Data:
    training: Clouds
    validation: Clouds

    def to(self, device: str) -> "Data":
        return Data(self.training.to(device), self.validation.to(device))

    def digest(self) -> str:
        digest = hashlib.sha256()
        for clouds in (self.training, self.validation):
            digest.update(clouds.points.numpy().tobytes())
        return digest.hexdigest()


def check_families(families: tuple[str, ...]) -> None:
    if unknown := [family for family in families if family not in shapes.FAMILIES]:
        raise ValueError(
            f"`families` must be some of {', '.join(shapes.FAMILIES)}; got {', '.join(unknown)}."
        )


@lru_cache(1)
def generated(families: tuple[str, ...], training: int, validation: int) -> Data:
    counts = enumerate((training, validation))
    return Data(*(Clouds.pack(list(shapes.clouds(n, seed=seed, families=families))) for seed, n in counts))


@lru_cache(1)
def airplanes(root: Path) -> Data:
    with data.reading(root, "planes"):
        clouds = planes.load(root)
    return Data(*(Clouds.pack([clouds[k] for k in part]) for part in planes.split(clouds)))
