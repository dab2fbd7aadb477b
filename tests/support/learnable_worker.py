"""One of two processes: rotations and orthonormal weights under DistributedDataParallel, against one process.

    python learnable_worker.py RANK FILE

The file, which must not exist yet, is where the two meet. Run by `test_learnable`.
"""

import sys

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import svdrot

STEPS = 20


class Network(nn.Module):
    """A rotation of each of four clouds after one that all share, and a pose."""

    def __init__(self):
        super().__init__()
        self.rotation = svdrot.nn.Rotation(4, dtype=torch.float64)
        self.pose = svdrot.nn.Pose(dtype=torch.float64)
        torch.manual_seed(0)
        self.shared = svdrot.nn.orthogonal(nn.Linear(3, 3, bias=False, dtype=torch.float64), special=True)

    def forward(self, points: Tensor) -> Tensor:
        return self.pose().apply(self.shared(points) @ self.rotation().mT)


def train(module: nn.Module, ranks: list[int]) -> list[Tensor]:
    network = module.module if isinstance(module, DistributedDataParallel) else module
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    truth = svdrot.Transform.random(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for step in range(STEPS):
        optimizer.zero_grad()
        for rank in ranks:
            generator = torch.Generator().manual_seed(2 * step + rank)
            points = torch.randn(4, 5, 3, dtype=torch.float64, generator=generator)
            loss = (module(points) - truth.apply(points)).square().mean()
            (loss / len(ranks)).backward()
        optimizer.step()
    return [x.detach() for x in (network.rotation(), network.shared.weight, network.pose().matrix)]


def main(rank: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    found = train(DistributedDataParallel(Network()), [rank])
    for x, y in zip(found, train(Network(), [0, 1]), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-10)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
