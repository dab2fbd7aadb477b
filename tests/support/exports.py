"""Exports with a dynamic batch: every public function by `torch.export`, and by ONNX where it can say it.

    PYTHONPATH=. python tests/support/exports.py RESULT.csv [part of a name ...]  # goes on where it stopped

What was exported at one batch size must give at three others what the function itself gives.
"""

import csv
import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim
from typical import Typical, found

EXAMPLE, OTHERS = 4, (2, 7, 12)  # 12 is also the number of points
ROADS = ("not strict", "strict", "onnx", "onnx, traced")  # the last by the exporter of older torch

# What is not exported, by which roads, and why: parts of names.
REASONS = {
    ("Transform.compose", "align_origins", "information_rmse"): ("strict", "Dynamo has no @ of objects"),
    ("interpolate_rotations", "recall_curve"): ("onnx", "ONNX has no searchsorted"),
    (
        "average_curvature",
        "Bingham",
        "MatrixFisher",
        "RotationLaplace",
        "singular_gap",
        "polar_certificate",
        "eight_point",
    ): (
        "onnx",
        "ONNX has no eigenvectors",
    ),
    ("IsotropicGaussian.log_prob", "IsotropicGaussian.score"): (
        "onnx",
        "onnxruntime has no arc tangent in float64",
    ),
    ("clip_outliers",): ("onnx", "ONNX has no kthvalue"),
    ("robust_umeyama",): ("onnx", "ONNX has no cdist"),
    ("minimum_over_symmetries",): ("onnx", "torch's decomposition for ONNX fails by an assertion of its own"),
    ("validated",): ("", "looks at the values, to refuse some"),
    ("sample",): ("", "draws as many as nobody knows before"),
    (".fit",): ("", "looks for a maximum, once"),
    ("icp", "nearest", "estimate_normals", "add_symmetric", "chamfer_distance"): (
        "",
        "searches for neighbors in memory",
    ),
    ("robust_kabsch", "relative_pose_error"): ("", "goes on by what values it meets"),
    ("streaming",): ("", "its state has no batch"),
    ("RotationHead", "RigidHead", "FisherHead", "BinghamHead", "LaplaceHead", "GaussianHead"): (
        "",
        "made within the call; test_export.py exports made ones",
    ),
}


def reason(name: str, road: str, value: str) -> str | None:
    """Why a function need not be exported by a road; None if it must."""
    if road == "onnx, traced" and not value.startswith("WRONG"):
        return "the exporter of older torch names an operation that it has not got"
    for names, (one, why) in REASONS.items():
        if one in ("", road) and any(part in name for part in names):
            return why
    return None


class _Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *x: Tensor):
        return self.function(*x)


def takes_part(name: str) -> bool:
    """Whether a function has a batch and tensors for a result."""
    call = Typical(name, EXAMPLE)
    return any(call.batched) and bool(call(*call.tensors))


def verdict(name: str, road: str) -> str:
    """`right`, what is wrong, or the error."""
    torch._dynamo.reset()
    dtype = torch.float32 if "onnx" in road else torch.float64
    call = Typical(name, EXAMPLE, dtype)
    batch = Dim("batch")
    dynamic = tuple({0: batch} if b else None for b in call.batched)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if "onnx" in road:
                run = _onnx(call, dynamic, is_traced=road != "onnx")
            else:
                module = _Module(call if road == "strict" else call.__call__)
                program = torch.export.export(
                    module, tuple(call.tensors), dynamic_shapes=(dynamic,), strict=road == "strict"
                )
                run = program.module()
            return _compared(name, run, dtype)
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        return f"{type(error).__name__}: {first[:160]}"


def _onnx(call: Typical, dynamic: tuple, is_traced: bool):
    import onnxruntime

    module, names = _Module(call.__call__), [f"x_{i}" for i in range(len(call.tensors))]
    if is_traced:
        # Without axes for results: what is exported is right for another batch or is not.
        axes = {name: {0: "batch"} for name, batched in zip(names, call.batched, strict=True) if batched}
        how = {"dynamo": False, "input_names": names, "dynamic_axes": axes, "opset_version": 17}
    else:
        how = {"dynamo": True, "dynamic_shapes": (dynamic,), "verbose": False}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(module, tuple(call.tensors), path, **how)
        session = onnxruntime.InferenceSession(path)
    names = [given.name for given in session.get_inputs()]

    def run(*x: Tensor) -> list[Tensor]:
        given = {name: x[int(name.split("_")[1])].numpy() for name in names}  # x_0, or x_0_orig
        return [torch.from_numpy(r) for r in session.run(None, given)]

    return run


def _compared(name: str, run, dtype: torch.dtype) -> str:
    rounding = torch.finfo(dtype).eps
    for seed, size in enumerate(OTHERS, 1):
        call = Typical(name, size, dtype, seed)
        expected, values = call(*call.tensors), run(*call.tensors)
        for a, b in zip(values, expected, strict=True):
            if a.shape != b.shape:
                return f"WRONG: shape {tuple(a.shape)} instead of {tuple(b.shape)} for a batch of {size}"
            if not b.is_floating_point():
                same = torch.equal(a, b)
            else:
                tolerance = 1e4 * rounding * max(1, b.nan_to_num().abs().max().item())
                same = torch.allclose(a.to(b.dtype), b, rtol=0, atol=tolerance, equal_nan=True)
            if not same:
                return f"WRONG: {(a - b).abs().max().item()} off for a batch of {size}"
    return "right"


def main(path: str, *only: str) -> None:
    torch._logging.set_logs(all=50)
    result, done = Path(path), set()
    if result.exists():
        with result.open(newline="") as file:
            done = {tuple(row[:2]) for row in csv.reader(file)}
    with result.open("a", newline="") as file:
        writer = csv.writer(file)
        for name in found():
            if (only and not any(part in name for part in only)) or not takes_part(name):
                continue
            for road in ROADS:
                if (name, road) not in done:
                    value = verdict(name, road)
                    writer.writerow((name, road, value))
                    file.flush()
                    if value != "right":
                        print(name, road, reason(name, road, value) or value, flush=True)
                    if torch._C._are_functorch_transforms_active():  # an export that failed has left one open
                        os.execv(sys.executable, [sys.executable, *sys.argv])

    with result.open(newline="") as file:
        bad = [row for row in csv.reader(file) if row[2] != "right" and not reason(*row)]
    sys.exit(f"{len(bad)} without a reason: {bad}" if bad else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
