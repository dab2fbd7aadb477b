"""One of two processes that evaluate unequal shares of the same rotations; both must say what one would.

    python streaming_worker.py RANK FILE

The file, which must not exist yet, is where the two meet. Run by `test_streaming`.
"""

import sys

import torch
import torch.distributed as dist
from torchmetrics import MetricCollection

from svdrot.evaluation.streaming import rotation_metrics
from svdrot.rotations import random_rotation

SHARES = (  # batches of each process
    ((7, 1, 30), (5,)),
    ((12,), ()),  # the second sees nothing
    ((4, 4), (4, 4)),
    ((), ()),
)


def added(metrics: MetricCollection, batches, generator) -> MetricCollection:
    for size in batches:
        metrics.update(*random_rotation(2, size, generator=generator))
    return metrics


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank = int(sys.argv[1])
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
    for shares in SHARES:
        alone = rotation_metrics(sync_on_compute=False)
        for process, batches in enumerate(shares):
            added(alone, batches, torch.Generator().manual_seed(process))
        expected = alone.compute()
        together = added(rotation_metrics(), shares[rank], torch.Generator().manual_seed(rank))
        for _ in range(2):  # what is computed once is not lost
            value = together.compute()
            assert value.keys() == expected.keys()
            for name, number in value.items():
                same = torch.equal(number.nan_to_num(-1), expected[name].nan_to_num(-1))
                assert same, (shares, name, number, expected[name])
    dist.destroy_process_group()
