"""How exact the pose of pairs of points is, by what they leave over."""

import torch
from torch import Tensor

from svdrot._vectors import image, one_batch, product
from svdrot.registration._motions import Limits
from svdrot.registration._uncertainty import covariance_of

LEAST = 1e-14  # of the largest eigenvalue, of a motion that pairs hold


def pose_covariance(
    pairs: tuple[Tensor, ...],
    rotation: Tensor,
    translation: Tensor,
    scale: Tensor,
    residual: Tensor,
    centered: bool,
    limits: Limits | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the covariance (B, 6, 6) of twists about a center, that (B, 3), and a radius (B,), float64.

    The pair x, y leaves e = y - s R x - t. Of the twist (w, v) about the mean of s R x + t, from which p is
    the distance, the derivative of e is w x p + v, and the normal matrix of all is that of rotations, the sum
    of weight (|p|² - p p'), beside the total weight of translations: nothing of one in the other.
    """
    x, _, *given = (part.detach().double() for part in pairs)
    x = one_batch(x)
    w = one_batch(given[0], 1) if given else torch.ones_like(x[..., 0])
    used = w > 0
    x = torch.where(used[..., None], x, 0)
    total = w.sum(-1, keepdim=True)
    share = w / torch.where(total > 0, total, 1)
    turned = scale[:, None, None] * image(rotation[:, None], x)
    middle = (share[..., None] * turned).sum(1) if centered else torch.zeros_like(rotation[:, 0])
    p = turned - middle[:, None]
    square = (share[..., None, None] * p[..., :, None] * p[..., None, :]).sum(1)
    trace = square.diagonal(dim1=-2, dim2=-1).sum(-1)
    radius = torch.where(trace > 0, trace, 1).sqrt()
    eye = torch.eye(3, dtype=x.dtype, device=x.device)
    matrix = x.new_zeros(len(x), 6, 6)
    matrix[:, :3, :3] = (trace[:, None, None] * eye - square) / (radius * radius)[:, None, None]
    matrix[:, 3:, 3:] = eye if centered else 0
    if limits is not None:
        matrix = product(product(limits.projector, matrix), limits.projector)
    unknowns = (6 if centered else 3) if limits is None else 6 - limits.closed if centered else 1
    values = torch.linalg.eigvalsh(torch.where(matrix.isfinite(), matrix, 0))
    held = (values > LEAST * values[:, -1:]).sum(-1) == unknowns
    spare = 3 * used.sum(-1) - unknowns - (scale != 1).long()
    # Of residuals of unit weight the variance over the total weight, which the normal matrix has not got.
    known = held & (spare > 0)
    variance = torch.where(known, residual.double().square() / torch.where(known, spare, 1), torch.nan)
    return covariance_of(matrix, radius, variance, LEAST), middle + translation, radius
