"""Draws by rejection, as operators: how many proposals they take is known only while drawing, which
`torch.compile` cannot trace and `vmap` cannot batch.

Each draws from a generator of its own, begun at a seed from torch's global one: then `randomness` of `vmap`
means for it what it means for `torch.randn`.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from svdrot._formulas.densities import SWITCH, images, log_heat_kernel


def draw(sampler: Any, parameters: Tensor) -> Tensor:
    """Draw by one of the two samplers below, from torch's global generator."""
    return sampler(parameters, torch.randint(torch.iinfo(torch.int64).max, (), device="cpu"))


@custom_op("svdrot::draw_bingham", mutates_args=())
def bingham(gaps: Tensor, seed: Tensor) -> Tensor:
    """Draw unit quaternions (N, 4) in the eigenbasis, from the gaps (N, 3), NaN for NaN.

    Rejection from the angular central Gaussian distribution: at worst about half of the proposals are taken.

    Source: Kent, Ganeiber and Mardia, "A New Unified Approach for the Simulation of a Wide Class of
    Directional Distributions", J. Comput. Graph. Stat. 27 (2018), section 3.
    """
    d = torch.cat((torch.zeros_like(gaps[..., :1]), gaps), -1)
    # sum 1 / (b + 2 d) = 1 is convex and decreasing in b: from b = 1, left of the root, Newton is monotone.
    b = torch.ones_like(d[..., :1])
    for _ in range(20):
        inverse = 1 / (b + 2 * d)
        b = b + (inverse.sum(-1, keepdim=True) - 1) / inverse.square().sum(-1, keepdim=True)
    b = b.clamp(1, 4)
    omega = 1 + 2 * d / b
    log_bound = (b[..., 0] - 4) / 2 + 2 * (4 / b[..., 0]).log()
    generator = _generator(d, seed)
    q = torch.full_like(d, torch.nan)
    pending = d.isfinite().all(-1).nonzero()[:, 0]
    while len(pending):
        y = torch.randn(len(pending), 4, dtype=d.dtype, device=d.device, generator=generator)
        y = y * omega[pending].rsqrt()
        y = y / torch.linalg.vector_norm(y, dim=-1, keepdim=True)
        y2 = y * y
        log_ratio = 2 * (y2 * omega[pending]).sum(-1).log() - (y2 * d[pending]).sum(-1) - log_bound[pending]
        taken = _uniform(log_ratio, generator).log() < log_ratio
        q[pending[taken]] = y[taken]
        pending = pending[~(taken | log_ratio.isnan())]
    return q


@custom_op("svdrot::draw_heat_angle", mutates_args=())
def heat_angle(tau: Tensor, seed: Tensor) -> Tensor:
    """Draw angles (N,) from the times (N,), by rejection.

    For small tau from the length of a normal vector, whose density the angle's exceeds by the factor
    sinc(omega / 2) times `images`, at most 4 / pi; for large from the uniform rotations, by f at most f(0).
    """
    small = tau < SWITCH
    generator = _generator(tau, seed)
    angle = torch.full_like(tau, torch.nan)
    pending = (tau > 0).nonzero()[:, 0]
    while len(pending):
        t, near = tau[pending], small[pending]
        normal = torch.randn(len(pending), 4, dtype=tau.dtype, device=tau.device, generator=generator)
        length = torch.linalg.vector_norm(normal[:, 1:], dim=-1)
        proposal = torch.where(near, (2 * t).sqrt() * length, 2 * torch.atan2(length, normal[:, 0].abs()))
        inside = proposal <= math.pi
        x = proposal.clamp(max=math.pi)
        t_near = torch.where(near, t, SWITCH / 2)
        by_images = torch.sinc(x / (2 * math.pi)) * images(x, t_near) * math.pi / 4
        by_peak = torch.exp(log_heat_kernel(x, t) - log_heat_kernel(torch.zeros_like(x), t))
        ratio = torch.where(near, by_images, by_peak)
        taken = inside & (_uniform(x, generator) < ratio)
        angle[pending[taken]] = proposal[taken]
        pending = pending[~(taken | ratio.isnan())]
    return angle


def _generator(like: Tensor, seed: Tensor) -> torch.Generator:
    return torch.Generator(like.device).manual_seed(int(seed))


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=generator)


@bingham.register_fake
def _(gaps, seed):
    return gaps.new_empty(len(gaps), 4)


@heat_angle.register_fake
def _(tau, seed):
    return torch.empty_like(tau)


def _batched(sampler: Any, info: Any, in_dims: tuple[int | None, ...], parameters: Tensor, seed: Tensor):
    """Draw for all of a batch of `vmap`: with one seed the same draws for each, otherwise different ones."""
    at, seeded_at = in_dims
    batch = parameters.expand(info.batch_size, *parameters.shape) if at is None else parameters.movedim(at, 0)
    if seeded_at is None:  # the same draws for all
        return torch.stack([sampler(one, seed) for one in batch]), 0
    drawn = sampler(batch.flatten(0, 1), seed.select(seeded_at, 0))
    return drawn.unflatten(0, batch.shape[:2]), 0


for each in (bingham, heat_angle):
    each.register_vmap(partial(_batched, each))
