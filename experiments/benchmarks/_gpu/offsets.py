"""2^28 + 3 matrices, whose entries int32 cannot count: each row must be what a small call gives."""

import torch
from torch import Tensor

import svdrot
from experiments.benchmarks._gpu import Report

COST, COST_ON_CPU = 12, 2
REPEATED = 1 << 18  # rows that are repeated


def stage(report: Report) -> None:
    count, device = report.sizes.offsets, report.config.device
    if report.gpu:
        free = torch.cuda.mem_get_info()[0]
        if free < 6 * 36 * count:
            report.omit(f"{count:,} matrices, which need {6 * 36 * count / 2**30:.0f} GiB")
            return
    repeated = min(REPEATED, count - 3)
    base, w = torch.randn(2, repeated, 3, 3, device=device)
    small = base.clone().requires_grad_()
    r = svdrot.special_orthogonalize(small)
    (g,) = torch.autograd.grad(r, small, w)
    large = spread(base, count).requires_grad_()
    found = svdrot.special_orthogonalize(large)
    wrong = differing(found.detach(), r.detach())
    cotangent = spread(w, count)
    (gradient,) = torch.autograd.grad(found, large, cotangent)
    wrong_too = differing(gradient, g)
    row = {"matrices": count, "rows that differ": wrong, "gradients that differ": wrong_too}
    report.add("Offsets", **row)
    report.judge(
        f"{count:,} matrices, differing rows", "0", wrong + wrong_too, not wrong + wrong_too, "Checks"
    )


def spread(base: Tensor, count: int) -> Tensor:
    """Repeat rows up to a count."""
    found, n = torch.empty(count, *base.shape[1:], device=base.device, dtype=base.dtype), len(base)
    whole = count // n * n
    found[:whole].view(-1, *base.shape).copy_(base)
    found[whole:].copy_(base[: count - whole])
    return found


def differing(found: Tensor, base: Tensor) -> int:
    """Count rows that are not those of `base`, repeated; in portions, as comparing takes memory, too."""
    wrong = torch.zeros((), dtype=torch.int64, device=base.device)
    for start in range(0, len(found), len(base)):
        some = found[start : start + len(base)]
        wrong += (some != base[: len(some)]).any(-1).any(-1).sum()
    return int(wrong)
