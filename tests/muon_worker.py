"""One of two processes: Muon of parameters that are replicated, or sharded, against Muon in one process.

    python muon_worker.py RANK FILE

The file, which must not exist yet, is where the two meet. Run by `test_optim`.
"""

import os
import sys
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from svdrot import optim

STEPS = 3
# Gradients of half batches, averaged, differ from those of the batch by rounding; measured 4e-7.
TOLERANCE = 3e-6


class Counting(optim.Muon):
    """Muon that counts the matrices it has seen."""

    seen = 0

    def direction(self, update, group):
        self.seen += len(update)
        return super().direction(update, group)


def network() -> nn.Module:
    torch.manual_seed(0)
    hidden = (nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(54, 24), nn.Tanh(), nn.Linear(24, 24))
    return nn.Sequential(*hidden, nn.Tanh(), nn.Linear(24, 24), nn.LayerNorm(24), nn.Linear(24, 5))


def train(module: nn.Module, optimizer: torch.optim.Optimizer, part: slice) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x = torch.randn(8, 2, 5, 5, generator=generator)
        optimizer.zero_grad()
        module(x[part]).square().mean().backward()
        optimizer.step()


def alone() -> list[torch.Tensor]:
    module = network()
    train(module, optim.Muon(optim.split_parameters(module), 0.02), slice(None))
    return [p.detach() for p in module.parameters()]


def check_replicated(rank: int) -> None:
    module = network()
    optimizer = Counting(optim.split_parameters(module), 0.02, process_group=dist.group.WORLD)
    train(DistributedDataParallel(module), optimizer, slice(4 * rank, 4 * rank + 4))
    for p, expected in zip(module.parameters(), alone(), strict=True):
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=TOLERANCE)
        here = p.detach().clone()
        dist.broadcast(here, 0)
        assert torch.equal(here, p), "the ranks have come apart"
    # Costs 6 * 6 * 18, 24 * 24 * 54, 24 * 24 * 24 twice, 5 * 5 * 24: the second as much as all the others.
    assert optimizer.seen == STEPS * (1, 4)[rank]


def check_more_ranks_than_matrices(rank: int) -> None:
    weight = nn.Parameter(torch.ones(3, 2))
    weight.grad = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    optimizer = Counting([weight], 1.0, weight_decay=0, process_group=dist.group.WORLD, adjust_lr_fn=None)
    optimizer.step()
    expected = 1 - 1.5**0.5 * torch.eye(3, 2)
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-4)
    assert optimizer.seen == (1, 0)[rank]


def check_sharded(rank: int, shared: bool) -> None:
    module = network()
    fully_shard(module, mesh=dist.device_mesh.init_device_mesh("cpu", (2,)))
    group = dist.group.WORLD if shared else None
    optimizer = Counting(optim.split_parameters(module), 0.02, process_group=group)
    train(module, optimizer, slice(4 * rank, 4 * rank + 4))
    for p, expected in zip(module.parameters(), alone(), strict=True):
        torch.testing.assert_close(p.full_tensor().detach(), expected, rtol=0, atol=TOLERANCE)
        momentum = optimizer.state[p].get("momentum_buffer", p)
        assert momentum.to_local().shape == p.to_local().shape
    assert (optimizer.seen < STEPS * 5) == shared


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    rank = int(sys.argv[1])
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
    check_replicated(rank)
    check_more_ranks_than_matrices(rank)
    check_sharded(rank, shared=False)
    check_sharded(rank, shared=True)
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # all is checked: a thread of gloo's now and then aborts an interpreter that shuts down
