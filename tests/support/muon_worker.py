"""One of two processes: optimizers of parameters that are replicated, or sharded, against one process.

    python muon_worker.py RANK FILE

The file, which must not exist yet, is where the two meet. Run by `test_optim`.
"""

import functools
import os
import sys
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from toy_optimizers import OPTIMIZERS

from svdrot import optim

STEPS = 3
# Gradients of half batches, averaged, differ from those of the batch by rounding; measured 4e-7.
TOLERANCE = 3e-6
STATE_TOLERANCE = TOLERANCE / 0.02  # states may hold directions, which a step multiplies by the learning rate


class Counting(optim.Muon):
    """Muon that counts the matrices it has seen."""

    seen = 0

    @optim.update_only
    def direction(self, update, stack):
        self.seen += len(update)
        return super().direction(update, stack)


def network() -> nn.Module:
    torch.manual_seed(0)
    hidden = (nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(54, 24), nn.Tanh(), nn.Linear(24, 24))
    return nn.Sequential(*hidden, nn.Tanh(), nn.Linear(24, 24), nn.LayerNorm(24), nn.Linear(24, 5))


def groups(module: nn.Module) -> list[dict]:
    """Those of `split_parameters`, but that one weight is of queries that share a key and a value."""
    split = optim.split_parameters(module)
    fused = ("7.weight", module[7].weight)
    for group in split:
        group["params"] = [(name, p) for name, p in group["params"] if name != fused[0]]
    return [*split, {"params": [fused], "view": optim.MatrixView(parts=(13, 6, 5))}]


def train(module: nn.Module, optimizer: torch.optim.Optimizer, part: slice) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x = torch.randn(8, 2, 5, 5, generator=generator)
        optimizer.zero_grad()
        module(x[part]).square().mean().backward()
        optimizer.step()


@functools.cache
def alone(make) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    module = network()
    optimizer = make(groups(module), 0.02)
    train(module, optimizer, slice(None))
    return [p.detach() for p in module.parameters()], [optimizer.state[p] for p in module.parameters()]


def check(make, shared: bool, sharded: bool):
    """Two ranks with half the batch each do as one process with all of it, and hold the same states."""
    module = network()
    group = dist.group.WORLD if shared else None
    if sharded:
        fully_shard(module, mesh=dist.device_mesh.init_device_mesh("cpu", (2,)))
        module.set_force_sum_reduction_for_comms(True)  # gloo has no average, which torch 2.8 asks it for
    optimizer = make(groups(module), 0.02, process_group=group)
    rank = dist.get_rank()
    trained = module if sharded else DistributedDataParallel(module)
    train(trained, optimizer, slice(4 * rank, 4 * rank + 4))
    for p, weight, states in zip(module.parameters(), *alone(make), strict=True):
        check_one(p, weight, TOLERANCE)
        assert [*optimizer.state[p]] == [*states]
        for name, state in optimizer.state[p].items():
            if sharded and states[name].shape == weight.shape and name != "step":
                assert state.to_local().shape == p.to_local().shape, "states are sharded as parameters are"
            check_one(state, states[name], STATE_TOLERANCE)
    return optimizer


def check_one(value, expected: torch.Tensor, tolerance: float) -> None:
    value = value.detach()
    if hasattr(value, "full_tensor"):
        value = value.full_tensor()
    torch.testing.assert_close(value, expected, rtol=0, atol=tolerance)
    first = value.clone()
    dist.broadcast(first, 0)
    assert torch.equal(first, value), "the ranks have come apart"


def check_shares(rank: int) -> None:
    # Costs 6 * 6 * 18, 24 * 24 * 54, 24 * 24 * 24, 5 * 5 * 24: the second as much as all the others.
    # In another group 13 * 13 * 24, 6 * 6 * 24, 5 * 5 * 24: the first as much as both others.
    assert check(Counting, shared=True, sharded=False).seen == STEPS * (1 + 1, 3 + 2)[rank]
    assert check(Counting, shared=True, sharded=True).seen < STEPS * 7
    assert check(Counting, shared=False, sharded=True).seen == STEPS * 7


def check_more_ranks_than_matrices(rank: int) -> None:
    weight = nn.Parameter(torch.ones(3, 2))
    weight.grad = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    optimizer = Counting([weight], 1.0, weight_decay=0, process_group=dist.group.WORLD, adjust_lr_fn=None)
    optimizer.step()
    expected = 1 - 1.5**0.5 * torch.eye(3, 2)
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-4)
    assert optimizer.seen == (1, 0)[rank]


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    rank = int(sys.argv[1])
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
    check_shares(rank)
    check_more_ranks_than_matrices(rank)
    for name, make in OPTIMIZERS.items():
        print(name, flush=True)
        for shared in (False, True):
            for sharded in (False, True):
                check(make, shared, sharded)
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # all is checked: a thread of gloo's now and then aborts an interpreter that shuts down
