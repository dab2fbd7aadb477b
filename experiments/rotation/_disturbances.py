"""What scans add to the points of a cloud: noise, and points that are elsewhere.

Clouds are about their centroid, and lengths in their root mean square distance from it, the radius.
"""

import torch
from torch import Generator, Tensor, nn

FAR = 3.0  # radii, of outliers in examinations: airplanes reach to 2 in the median


def disturbed(cloud: Tensor, noise: Tensor | float, far: Tensor, generator: Generator) -> Tensor:
    """Add normal noise to clouds, and put their first points elsewhere.

    Args:
        cloud: clouds (..., points, 3), in an order without a meaning.
        noise: standard deviation of each coordinate, for all, or (..., 1, 1).
        far: (..., k) distances from the origin, in directions of their own, that the first k points are put
            at; 0 leaves a point where it is.
        generator: of the noise, and then of the directions.
    """
    cloud = cloud + noise * _normal(cloud.shape, cloud, generator)
    k = min(far.shape[-1], cloud.shape[-2])
    far = far[..., :k, None]
    direction = nn.functional.normalize(_normal((*cloud.shape[:-2], k, 3), cloud, generator), dim=-1)
    first, others = cloud[..., :k, :], cloud[..., k:, :]
    return torch.cat([torch.where(far > 0, far * direction, first), others], -2)


def _normal(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)
