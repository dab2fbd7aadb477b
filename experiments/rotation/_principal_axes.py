"""The rotation between a cloud and a copy of it by their principal axes: what needs no network.

The axes of the copy R x are R times those of the cloud x, each up to its sign: four of the choices are
rotations, and that is taken after which the points are nearest to each other. Of a copy of the same points
one is exact, whatever the cloud, if its axes differ in length. An estimator of such copies has to be held
against it.
"""

import torch
from torch import Tensor

import svdrot

EXACT = (
    "Principal axes solve copies of the same points exactly, without a network: this benchmark measures what"
    " a head learns, not alignment."
)
MOST = 256  # points of each that tell which choice is the nearest
SIGNS = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)


def by_principal_axes(source: Tensor, target: Tensor) -> Tensor:
    """Return the rotations (..., 3, 3) from clouds (..., points, 3) to others; batches broadcast.

    No label is asked for. Where two axes are equally long, they are any of many.
    """
    batch = torch.broadcast_shapes(source.shape[:-2], target.shape[:-2])
    axes, others = _axes(source.double()), _axes(target.double())
    signs = SIGNS.to(source.device)
    candidates = (others[..., None, :, :] * signs[:, None]) @ axes[..., None, :, :].mT
    candidates = candidates.expand(*batch, 4, 3, 3).flatten(0, -4)
    clouds = (x.expand(*batch, *x.shape[-2:]).flatten(0, -3) for x in (source, target))
    found = [_nearest(*each) for each in zip(candidates, *clouds, strict=True)]
    return torch.stack(found).reshape(*batch, 3, 3).to(source)


def _axes(cloud: Tensor) -> Tensor:
    """Return the principal axes as columns, right-handed, the longest last."""
    cloud = cloud - cloud.mean(-2, keepdim=True)
    axes = torch.linalg.eigh(cloud.mT @ cloud).eigenvectors
    return axes * torch.linalg.det(axes)[..., None, None].sign()


def _nearest(candidates: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Return that of the rotations (4, 3, 3) after which the points are nearest, there and back."""
    source, target = (x[:: -(-len(x) // MOST)] for x in (source, target))
    distances = torch.cdist(source @ candidates.to(source).mT, target.expand(4, -1, -1))
    apart = distances.amin(-1).mean(-1) + distances.amin(-2).mean(-1)
    return svdrot.special_orthogonalize(candidates[apart.argmin()])
