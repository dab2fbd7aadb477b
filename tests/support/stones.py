"""Clouds without symmetry, and where to move them."""

import torch

import svdrot
from svdrot.registration import Transform


def stone(n=4000, seed=0):
    """Points of a ball with bumps and dents, unlike itself however it is turned."""
    generator = torch.Generator().manual_seed(seed)
    sphere = torch.nn.functional.normalize(torch.randn(n, 3, dtype=torch.float64, generator=generator), dim=1)
    fixed = torch.Generator().manual_seed(4)
    centers = torch.nn.functional.normalize(torch.randn(14, 3, dtype=torch.float64, generator=fixed), dim=1)
    heights = torch.rand(14, dtype=torch.float64, generator=fixed) - 0.4
    bumps = heights * torch.exp(-(sphere[:, None] - centers).square().sum(2) / 0.08)
    return sphere * (1 + bumps.sum(1, keepdim=True))


def moved(seed=1, angle=2.0, length=1.0):
    generator = torch.Generator().manual_seed(seed)
    axis = torch.randn(3, dtype=torch.float64, generator=generator)
    rotation = svdrot.axis_angle_to_matrix(angle * axis / axis.norm())
    translation = length * torch.randn(3, dtype=torch.float64, generator=generator)
    return Transform(rotation, translation, torch.ones((), dtype=torch.float64))
