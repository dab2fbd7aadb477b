r"""Maximum likelihood: of the Bingham family by its second moments, of isotropic Gaussians by their score.

In the eigenbasis of $T = \sum w_i q_i q_i^\top$, of eigenvalues $t_1 \ge \dots \ge t_4$, the likelihood of
gaps $g_2, g_3, g_4$ is $-\sum g_i t_i - \ln \tilde c(g)$, concave, and greatest where $E q_i^2 = t_i$:
Newton's steps with the covariance of the $q_i^2$, from $g_i = 1 / 2 t_i - 1 / 2 t_1$, which is right at both
ends.
"""

import math

import torch
from torch import Tensor

from svdrot._checks import check_shape, common_batch
from svdrot._formulas.densities import isotropic_gaussian_score, log_isotropic_gaussian
from svdrot.interpolation import exp_map
from svdrot.projection import special_orthogonalize

from ._normalizer import eigen, moments, spectral

LARGEST = 1e10  # gap, at which log densities are right to 1e-5
STEPS = 60  # of Newton; from the start above some ten are enough, but where a gap is at its end
ROUNDS, SECTIONS, TURNS = 8, 45, 5


def weighted(name: str, value: Tensor, weights: Tensor | None, *event: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return values (..., N, *event) and weights (..., N) of sum 1 in float64, without gradients, and broken
    items (...); no weight at all leaves 0.
    """
    check_shape(name, value, *event)
    if value.ndim <= len(event):
        wanted = ", ".join(("...", "N", *map(str, event)))
        raise ValueError(f"`{name}` must have shape ({wanted}); got {tuple(value.shape)}.")
    n, ends = value.shape[-len(event) - 1], tuple(range(-len(event), 0))
    w = value.new_ones(n) if weights is None else weights
    check_shape("weights", w, n)
    batch = common_batch(**{name: value.shape[: -len(event) - 1], "weights": w.shape[:-1]})
    w = w.detach().double().expand(*batch, n)
    x = value.detach().double().expand(*batch, n, *event)
    finite = x.isfinite().all(ends)
    plain = torch.eye(*event, device=x.device).to(x) if len(event) > 1 else torch.zeros_like(x)
    x = torch.where(finite.reshape(*finite.shape, *[1] * len(event)), x, plain)
    broken = ((~finite & (w != 0)) | ~w.isfinite() | (w < 0)).any(-1)
    w = torch.where(broken[..., None], 0.0, w)
    total = w.sum(-1, keepdim=True)
    return x, w / torch.where(total > 0, total, 1.0), broken


@torch.no_grad()
def form_of_moments(t: Tensor, largest: float) -> Tensor:
    """Return the symmetric form, of largest eigenvalue 0, of greatest likelihood for second moments t of
    trace 1 or 0, (..., 4, 4): uniform for the latter. Gaps are at most `largest`.
    """
    first, below, vectors = eigen(t)
    some = first > 0
    wanted = torch.where(some[..., None], (first[..., None] - below).clamp_min(0), 0.25)
    first = torch.where(some, first, 0.25)
    floor = 0.5 / (largest + 0.5 / first[..., None])
    g = (0.5 / torch.maximum(wanted, floor) - 0.5 / first[..., None]).clamp(0, largest)
    for _ in range(STEPS):
        g = g.sort(-1).values  # as they are, but for rounding where two are equal
        _, second, fourth = moments(g)
        m = second[..., 1:]
        covariance = (fourth - second[..., :, None] * second[..., None, :])[..., 1:, 1:]
        pull = m - wanted
        held = ((g >= largest) & (pull > 0)) | ((g <= 0) & (pull < 0))
        pull = torch.where(held, 0.0, pull)
        # In units of the moments, whose sizes differ by as much as concentrations do.
        size = m.clamp_min(1e-300)
        free = ~(held[..., :, None] | held[..., None, :])
        scaled = torch.where(free, covariance / (size[..., :, None] * size[..., None, :]), 0.0)
        scaled = scaled + torch.diag_embed(held.double())
        step = torch.linalg.solve(scaled, (pull / size)[..., None])[..., 0] / size
        # Far below the end Newton doubles a gap at best; above it could leave the cone.
        g = torch.maximum(g + step, g / 4).clamp(0, largest)
    g = torch.where(some[..., None], g, 0.0)
    eigenvalues = torch.cat((torch.zeros_like(g[..., :1]), -g), -1)
    return spectral(vectors, eigenvalues)


@torch.no_grad()
def isotropic(r: Tensor, w: Tensor, least: float, largest: float) -> tuple[Tensor, Tensor]:
    """Return location and scale of greatest likelihood, (..., 3, 3) and (...), of scales in a range.

    In turns: the location by Fisher's scoring, with the information 1 / scale² of small scales, and for large
    ones a third of the mean square of scores; the scale by golden sections of an interval of its logarithm.
    """
    location = special_orthogonalize((w[..., None, None] * r).sum(-3))
    scale = torch.full_like(w[..., :1].sum(-1), 1.0)
    for _ in range(ROUNDS):
        scale = _scale(location, r, w, least, largest)
        tau = scale[..., None] ** 2 / 2
        for _ in range(TURNS):
            # From a location to a value the score is that of the value, at the other end of the arc.
            score = isotropic_gaussian_score(r, location[..., None, :, :], tau)
            information = (w * score.square().sum(-1)).sum(-1, keepdim=True) / 3
            information = torch.where((tau > 0.5) & (information > 0), information, 0.5 / tau)
            step = (w[..., None] * score).sum(-2) / information
            location = special_orthogonalize(exp_map(location, step.clamp(-1, 1)))
    return location, scale


def _scale(location: Tensor, r: Tensor, w: Tensor, least: float, largest: float) -> Tensor:
    low = torch.full_like(w.sum(-1), math.log(least))
    high = torch.full_like(low, math.log(largest))
    gain = (math.sqrt(5) - 1) / 2

    def cost(log_scale: Tensor) -> Tensor:
        tau = (2 * log_scale).exp()[..., None] / 2
        return -(w * log_isotropic_gaussian(location[..., None, :, :], r, tau)).sum(-1)

    a, b = high - gain * (high - low), low + gain * (high - low)
    fa, fb = cost(a), cost(b)
    for _ in range(SECTIONS):
        left = fa < fb
        low, high = torch.where(left, low, a), torch.where(left, b, high)
        a, b = high - gain * (high - low), low + gain * (high - low)
        fa, fb = cost(a), cost(b)
    return ((low + high) / 2).exp()
