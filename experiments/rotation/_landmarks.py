"""The network of `landmark_alignment`: landmarks of clouds, and the rotation between two sets of them."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

import svdrot
from experiments.shared.settings import Count, NotNegative, Settings


@dataclass(frozen=True)
class Shape(Settings):
    """Of the network."""

    widths: tuple[Count, ...] = (64, 128, 256)
    """Features of a point after each layer of the encoder."""
    hidden: Count = 512
    """Units between the features of the cloud and the landmarks."""
    landmarks: Count = 64
    slope: NotNegative = 0.01
    """Of the leaky ReLU below zero."""


class LandmarkPointNet(nn.Module):
    """Rotations (clouds, pairs, 3, 3) between every two of the views (clouds, views, points, 3) of clouds.

    The pairs are in the order of `pairs_of`; each rotation takes the first view to the second.

    A cloud has the largest of each feature of its points, which tells of the farthest alone, and the mean of
    those before the last layer, which hardly depends on the number of points, nor on any one of them.
    """

    def __init__(self, shape: Shape):
        super().__init__()
        self.encoder = perceptron((3, *shape.widths), shape.slope)
        self.decoder = perceptron((shape.widths[-1], shape.hidden, 3 * shape.landmarks), shape.slope)
        self.of_means = nn.Linear((3, *shape.widths)[-2], shape.hidden, bias=False)
        nn.init.zeros_(self.of_means.weight)
        self.head = svdrot.nn.RotationHead(9, "svd")
        nn.init.eye_(self.head.linear.weight)
        nn.init.zeros_(self.head.linear.bias)

    def landmarks(self, cloud: Tensor) -> Tensor:
        """Map (..., points, 3) to landmarks (..., 3, K), columns."""
        features = self.encoder[:-1](cloud)
        largest, means = self.encoder[-1](features).max(-2).values, features.mean(-2)
        hidden = self.decoder[0](largest) + self.of_means(means)
        return self.decoder[1:](hidden).unflatten(-1, (3, -1))

    def estimate(self, source: Tensor, target: Tensor) -> Tensor:
        """Estimate rotations (..., 3, 3) from the landmarks of one cloud to those of another."""
        return self.head((target @ source.mT).flatten(-2) / source.shape[-1])

    def forward(self, views: Tensor) -> Tensor:
        landmarks = self.landmarks(views)
        n = views.shape[1]
        rows = landmarks.flatten(1, 2)
        # One product for all pairs: to gather landmarks pair by pair took half of the time of a step.
        products = (rows @ rows.mT).unflatten(2, (n, 3)).unflatten(1, (n, 3)).transpose(2, 3)
        first, second = pairs_of(n)
        return self.head(products[:, second, first].flatten(-2) / landmarks.shape[-1])


def pairs_of(views: int) -> Tensor:
    """List first and second of each pair, (2, pairs)."""
    return torch.triu_indices(views, views, 1)


def perceptron(widths: tuple[Count, ...], slope: float) -> nn.Sequential:
    """Stack linear layers with a leaky ReLU between them; normalized before it, but for the first."""
    layers: list[nn.Module] = []
    for m, n in pairwise(widths):
        linear = nn.Linear(m, n)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, *([] if m == 3 else [nn.LayerNorm(n)]), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers[:-2])


# Half turns about the axes: what objects with wings, symmetric or nearly so, are most often mistaken by.
STARTS = torch.stack([torch.eye(3), *(torch.diag(torch.eye(3)[i] * 2 - 1) for i in range(3))])


@torch.no_grad()
def align(model: LandmarkPointNet, source: Tensor, target: Tensor, passes: int, starts: int = 1) -> Tensor:
    """Find rotations (..., 3, 3) from clouds `source` to `target`, (..., points, 3); batches broadcast.

    In each pass the target is turned back by the estimate so far, and what is left is estimated. With more
    than one start, up to 4, each begins with another of `STARTS`, and that is taken after which the landmarks
    of both are nearest to each other.
    """
    landmarks = model.landmarks(source)
    found, distances = [], []
    for start in STARTS[:starts].to(source):
        rotation = start.expand(*target.shape[:-2], 3, 3)
        for _ in range(passes):
            rotation = rotation @ model.estimate(landmarks, model.landmarks(target @ rotation))
        found.append(rotation)
        distances.append((model.landmarks(target @ rotation) - landmarks).square().sum((-2, -1)))
    best = torch.stack(distances).argmin(0)
    return torch.stack(found).gather(0, best[None, ..., None, None].expand(1, *found[0].shape))[0]


def normalized(cloud: Tensor) -> Tensor:
    """Return a cloud (points, 3) about its centroid, with a root mean square distance of 1 from it.

    It turns with the cloud, and stays as it is when the cloud is moved or scaled. Points that all coincide
    become NaN.
    """
    cloud = cloud - cloud.mean(0)
    cloud = cloud / cloud.abs().max()  # squares of the very small and the very large are not numbers
    return cloud / cloud.square().sum(-1).mean().sqrt()
