"""One of two processes: checkpoints of parameters that are replicated, sharded or tensor-parallel.

    python checkpoint_worker.py RANK FILE FOLDER until_killed
    python checkpoint_worker.py RANK FILE FOLDER resumed

The file, which must not exist yet, is where the two meet. The first command checks states that stay in
memory, trains, saves halfway into the folder, says "saved" when it has done more steps, and then trains until
it is killed. The second goes on from what is in the folder, as the first did. Run by `test_checkpoints`.
"""

import copy
import os
import sys
import warnings
from collections.abc import Collection
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from toy_optimizers import OPTIMIZERS

from svdrot import optim

# Options to get a state with, and to set it with: of a full state that is offloaded, ranks but the first get
# nothing. Full and flat together torch 2.13 does not load, of its own AdamW neither.
FULL = {"full_state_dict": True}
OPTIONS = {
    "as they are": ({}, {}),
    "flat": ({"flatten_optimizer_state_dict": True},) * 2,
    "full": (FULL, FULL),
    "offloaded": ({"cpu_offload": True},) * 2,
    "full, from the first rank": (FULL | {"cpu_offload": True}, FULL | {"broadcast_from_rank0": True}),
    "flat, offloaded": ({"flatten_optimizer_state_dict": True, "cpu_offload": True},) * 2,
}

# In a few places for the tensor-parallel: in unequal shards of rows, of columns, and whole.
PLACEMENTS = {"0.weight": Shard(0), "2.weight": Shard(1), "4.weight": Replicate()}


def network(seed: int) -> nn.Module:
    """Seven rows are no multiple of two ranks, and one row leaves one rank without any."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 7), nn.LayerNorm(7), nn.Linear(7, 1))


class Training:
    """A module in one of the ways that two ranks share it, its optimizer, and the steps done."""

    def __init__(self, way: str, name: str, seed: int, lr, shared: bool):
        self.way, self.step = way, 0
        self.module = network(seed)
        self.called = self.module
        if way == "replicated":
            self.called = DistributedDataParallel(self.module)
        elif way == "sharded":
            fully_shard(self.module, mesh=mesh())
            self.module.set_force_sum_reduction_for_comms(
                True
            )  # gloo has no average, which torch 2.8 asks it for
        elif way == "tensor-parallel":
            for full_name, p in [*self.module.named_parameters()]:
                place, name_there = full_name.split(".")
                placement = PLACEMENTS.get(full_name, Replicate())
                placed = nn.Parameter(distribute_tensor(p.detach(), mesh(), [placement]))
                self.module[int(place)].register_parameter(name_there, placed)
        group = dist.group.WORLD if shared else None
        self.optimizer = OPTIMIZERS[name](self.groups(), lr, momentum=0.8, process_group=group)

    def groups(self) -> list[dict]:
        """Those of `split_parameters`, but that one weight has parts of different numbers of rows."""
        split = optim.split_parameters(self.module)
        for group in split:
            group["params"] = [(name, p) for name, p in group["params"] if name != "0.weight"]
        parted = [("0.weight", self.module[0].weight)]
        return [*split, {"params": parted, "view": optim.MatrixView(parts=(4, 2, 1))}]

    def train(self, steps: int) -> None:
        rank = dist.get_rank()
        for _ in range(steps):
            x = torch.randn(8, 5, generator=torch.Generator().manual_seed(self.step))
            if self.way == "tensor-parallel":
                x = distribute_tensor(x, mesh(), [Replicate()])
            elif self.way != "alone":
                x = x[4 * rank : 4 * rank + 4]
            self.optimizer.zero_grad()
            self.called(x).square().mean().backward()
            self.optimizer.step()
            self.step += 1

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and states, whole."""
        found = {}
        for name, p in self.module.named_parameters():
            for of, value in {"": p.detach(), **self.optimizer.state[p]}.items():
                whole = value.full_tensor() if hasattr(value, "full_tensor") else value
                found[f"{name}/{of}"] = whole.clone()
        return found

    def get(self, **options) -> dict:
        model, state = get_state_dict(self.module, self.optimizer, options=StateDictOptions(**options))
        return {"model": model, "optimizer": state}

    def set(self, state: dict, **options) -> None:
        """Model and optimizer apart: together torch waits forever where a rank has no state of the model."""
        how = StateDictOptions(**options)
        set_model_state_dict(self.module, state["model"], options=how)
        set_optimizer_state_dict(self.module, self.optimizer, state["optimizer"], options=how)


_mesh = []


def mesh():
    if not _mesh:
        _mesh.append(dist.device_mesh.init_device_mesh("cpu", (2,)))
    return _mesh[0]


def check_equal(a: Training, b: Training) -> None:
    ours, theirs = a.tensors(), b.tensors()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    for group, other in zip(a.optimizer.param_groups, b.optimizer.param_groups, strict=True):
        assert type(group["lr"]) is type(other["lr"])
        betas = [[*some.get("betas", ())] for some in (group, other)]  # of full states torch makes lists
        assert betas[0] == betas[1]
        assert all(group[option] == other[option] for option in group.keys() - {"params", "betas"})


def check_states(way: str, name: str, options: Collection[str], lr, other_lr, shared: bool) -> None:
    """What is got from one optimizer and set in another is all that it needs to go on as the first does."""
    first = Training(way, name, 0, lr, shared)
    first.train(1)
    for option in options:
        print(way, name, option, flush=True)
        to_get, to_set = OPTIONS[option]
        state = copy.deepcopy(first.get(**to_get))
        if "broadcast_from_rank0" in to_set and dist.get_rank():
            assert not state["model"] and not state["optimizer"], "only the first rank has it"
        second = Training(way, name, 1, other_lr, shared)
        second.set(state, **to_set)
        check_equal(first, second)
    second.step = first.step
    first.train(1)
    second.train(1)
    check_equal(first, second)


def check_copies(way: str) -> None:
    """A copy has the process group of its original, which cannot be copied, and steps as that does."""
    first = Training(way, "NorMuon", 0, 0.02, shared=True)
    first.train(2)
    second = copy.copy(first)
    second.module, second.optimizer = copy.deepcopy((first.module, first.optimizer))
    second.called = second.module if way == "tensor-parallel" else DistributedDataParallel(second.module)
    groups = second.optimizer.param_groups
    assert all(group["process_group"] is dist.group.WORLD for group in groups)
    before = first.tensors()
    second.train(1)
    assert all(torch.equal(value, before[name]) for name, value in first.tensors().items())
    first.train(1)
    check_equal(first, second)
    scheduler = torch.optim.lr_scheduler.StepLR(first.optimizer, 1)
    assert copy.deepcopy(scheduler).optimizer.defaults["process_group"] is dist.group.WORLD
    assert copy.copy(first.optimizer).param_groups is first.optimizer.param_groups


SAVED = (("replicated", "Muon"), ("sharded", "Muon"), ("sharded", "NorMuon"))


def until_killed(folder: Path) -> None:
    for way in ("replicated", "sharded", "tensor-parallel"):
        # One with a state that is not like its parameter, and shared; the other with a rate in a tensor.
        check_states(way, "NorMuon", OPTIONS, 0.02, 0.5, shared=True)
        some = ["as they are", "flat", "full, from the first rank"]
        check_states(way, "Muon", some, torch.tensor(0.02), torch.tensor(0.5), shared=False)
    for name in OPTIMIZERS:
        # Descent has no state, and torch asks for one; that of LossScaled is Muon's.
        if name not in ("NorMuon", "Muon", "Descent", "LossScaled"):
            check_states("sharded", name, ["flat"], 0.02, 0.5, shared=False)
    check_copies("replicated")
    check_copies("tensor-parallel")
    for way, name in SAVED:
        training = Training(way, name, 0, 0.02, shared=way == "replicated")
        training.train(3)
        checkpoint.save(training.get(), checkpoint_id=folder / f"{way}-{name}")
        at = training.tensors()
        training.train(3)
        after = training.tensors()
        if not dist.get_rank():
            torch.save((at, after), folder / f"{way}-{name}.pt")
        dist.barrier()
    print("saved", flush=True)
    while True:
        training.train(1)


def resumed(folder: Path) -> None:
    for way, name in SAVED:
        at, after = torch.load(folder / f"{way}-{name}.pt", weights_only=True)
        for other_way in (way, "alone"):  # a checkpoint of shards is also one of the whole
            training = Training(other_way, name, 1, 0.5, shared=way == "replicated")
            state = training.get()
            checkpoint.load(state, checkpoint_id=folder / f"{way}-{name}")
            training.set(state)
            found = training.tensors()
            assert found.keys() == at.keys() and all(torch.equal(found[key], at[key]) for key in at)
            if other_way == way:
                training.step = 3
                training.train(3)
                found = training.tensors()
                assert all(torch.equal(found[key], after[key]) for key in after), "another continuation"
        print(way, name, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", module="torch.distributed")  # of its checkpoints about themselves
    torch.set_num_threads(1)
    rank = int(sys.argv[1])
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
    {"until_killed": until_killed, "resumed": resumed}[sys.argv[4]](Path(sys.argv[3]))
    dist.barrier()
    os._exit(0)  # all is checked: a thread of gloo's now and then aborts an interpreter that shuts down
