"""How much memory calls take at most beyond their arguments, and how much of it their results keep."""

from collections.abc import Callable
from typing import Any

import torch

import svdrot
from experiments.benchmarks import _device
from experiments.benchmarks._gpu import Report
from experiments.benchmarks._gpu.speed import by_svd

COST, COST_ON_CPU = 6, None


def stage(report: Report) -> None:
    rows = max(report.sizes.rows // 4, 1)
    m = torch.randn(rows, 3, 3, device="cuda")
    r = svdrot.special_orthogonalize(torch.randn_like(m))
    x = torch.randn(max(rows // 64, 1), 64, 3, device="cuda")
    some = m[: min(rows, report.sizes.svd)]
    subjects: dict[str, tuple[Callable[..., Any], torch.Tensor]] = {
        "special_orthogonalize": (svdrot.special_orthogonalize, m),
        "matrix_to_quaternion": (svdrot.matrix_to_quaternion, r),
        "geodesic_distance": (lambda x: svdrot.geodesic_distance(x, r), r),
        "kabsch, a row is a pair of points": (lambda x: svdrot.registration.kabsch(x, x).rotation, x),
        "torch SVD": (by_svd, some),
    }
    for name in report.each(subjects, "functions whose memory is measured"):
        f, given = subjects[name]
        number = given.numel() // 3 if "kabsch" in name else len(given)
        leaf = given.detach().clone().requires_grad_()
        w = torch.ones_like(f(given))

        def both(f: Callable[..., Any] = f, leaf: torch.Tensor = leaf, w: torch.Tensor = w) -> object:
            return torch.autograd.grad(f(leaf), leaf, w)

        most, kept = _device.peak(lambda f=f, given=given: f(given))
        back, _ = _device.peak(both)
        row = {"function": name, "rows": number, "bytes a row, most": most / number}
        row |= {"results": kept / number, "with backward, most": back / number}
        report.add("Peak memory", **row)
