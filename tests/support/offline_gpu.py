"""What the GPU kernels compile to: instructions, registers and memory, without a GPU.

    python tests/support/offline_gpu.py                    a table of the maps of formulas and their gradients
    python tests/support/offline_gpu.py matrix_to_mrp      of these alone, with second derivatives
    python tests/support/offline_gpu.py --json lanes --targets=80,90
                                            or `products`, `pairs`, `neighbors`, `small_matrices`

Instructions / registers of NVIDIA's sm_80 to sm_120 and AMD's gfx942; `!` marks local memory.
"""

import itertools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Triton 3.4 brings no linker for AMD.
LINKS_FOR_AMD = tuple(map(int, version("triton").split(".")[:2])) > (3, 4)
TARGETS = (80, 90, 100, 120, *(["gfx942"] if LINKS_FOR_AMD else []))
NAMES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp64"}
# What rounds otherwise than IEEE 754 asks for, or flushes subnormal numbers.
APPROXIMATE = r"^\s*\S*(?:div\.(?:full|approx)|(?:sqrt|rcp|rsqrt|sin|cos|ex2|lg2|tanh)\.approx)\S*"


def compiled(which: str, *arguments: str) -> list[dict[str, Any]]:
    """What a function of this file finds, in a process of its own: Triton compiles or interprets, and decides
    on import."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, __file__, "--json", which, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def measure(source: Any, target: int | str, options: dict[str, Any], **labels: Any) -> dict[str, Any]:
    """A kernel of Triton's for a compute capability of NVIDIA or an architecture of AMD."""
    import triton
    from triton.backends.compiler import GPUTarget

    options = {"enable_fp_fusion": True, **options}
    if isinstance(target, str):
        options["num_warps"] = options.get("num_warps", 4) // 2  # of twice as many threads
        code = triton.compile(source, target=GPUTarget("hip", target, 64), options=options).asm["amdgcn"]
        found = _of_amd(code)
    else:
        kernel = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
        found = _of_nvidia(kernel.asm["cubin"])
        found["approximate"] = re.findall(APPROXIMATE, kernel.asm["ptx"], re.M)
        found["shared"] = kernel.metadata.shared
    return {**labels, "target": target, **found}


def _of_nvidia(cubin: bytes) -> dict[str, int]:
    from triton.backends import nvidia

    cuobjdump = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [cuobjdump, "-sass", "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)", text, re.M)
    return {
        "instructions": sum(word != "NOP" for word in words),
        "local": sum(word in ("LDL", "STL") for word in words),
        "registers": int(re.search(r"REG:(\d+)", text)[1]),  # pyright: ignore
        "stack": int(re.search(r"STACK:(\d+)", text)[1]),  # pyright: ignore
    }


def _of_amd(code: str) -> dict[str, int]:
    def number(name: str) -> int:
        return int(re.search(rf"\.{name}:\s+(\d+)", code)[1])  # pyright: ignore

    return {
        "instructions": len(re.findall(r"^\s+(?:[vs]|global|ds|buffer|flat|scratch)_\w+", code, re.M)),
        "local": len(re.findall(r"^\s+scratch_", code, re.M)),
        "registers": number("vgpr_count"),
        "stack": number("private_segment_fixed_size") + number("vgpr_spill_count"),
    }


# The kernels of the library -------------------------------------------------------------------------------


def formulas(*names: str, dtype: str, kinds: str, targets: str) -> list[dict[str, Any]]:
    """Programs of maps; all of these, where no names are given."""
    from formula_maps import MAPS, programs

    return [
        _program(program, target, dtype, map=name, kind=kind)
        for name in names or MAPS
        for kind, program in programs(name).items()
        if kind in kinds.split(",")
        for target in (int(t) if t.isdigit() else t for t in targets.split(","))
    ]


def _program(program: Any, target: int | str, dtype: str, **labels: Any) -> dict[str, Any]:
    import torch
    from triton.compiler import ASTSource

    from svdrot.engine.gpu import _writer as writer

    graph, stored = program.graph, getattr(torch, dtype)
    inputs, outputs = [stored] * len(graph.inputs), [stored] * len(graph.shapes)
    compute = torch.float64 if dtype == "float64" else torch.float32
    kernel = writer.kernel(
        program.name, graph, inputs, outputs, compute, dense=(True,) * len(inputs), levels=1
    )
    signature = {a: f"*{NAMES[dtype]}" if a[0] in "xy" else "i32" for a in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(len(inputs), len(inputs) + len(outputs))}
    source = ASTSource(kernel, signature=signature, constexprs={}, attrs=aligned)
    numbers = sum(map(math.prod, (*graph.inputs, *graph.shapes)))
    return measure(source, target, {}, dtype=dtype, numbers=numbers, **labels)


def lanes(targets: str = "") -> list[dict[str, Any]]:
    """The projection, its gap, and the derivatives of both."""
    from svdrot._formulas import projection

    found, turn = [], _turns(targets)
    programs = {
        "project": projection.project.program,
        "differentiate": projection.project.program.vjp((True,), (True,), True),
        "measure_gap": projection.gap.program,
        "differentiate_gap": projection.gap.program.vjp((True,), (True,), True),
    }
    for name, program in programs.items():
        for dtype in ("float32", "float64"):
            for target in next(turn):
                found.append(_program(program, target, dtype, kernel=name))
    return found


def _turns(targets: str) -> Iterator[Sequence[int]]:
    """Targets of one kernel after the other: those asked for, or Ampere and Hopper in turn.

    In turn each kernel and each dtype meets both. What it compiles to differs by 2 % between them.
    """
    asked = tuple(map(int, targets.split(","))) if targets else None
    return itertools.repeat(asked) if asked else itertools.cycle(((80,), (90,), (90,), (80,)))


def products(targets: str = "") -> list[dict[str, Any]]:
    from triton.compiler import ASTSource

    from svdrot._kernels.gpu import gram

    found, names, turn = [], gram._gram.arg_names, _turns(targets)
    for name, size in (("fp32", 4), ("bf16", 2)):
        block, depth, warps, stages = gram.TILES[size]
        for contiguous in ("x_column", "x_row"):  # a wide matrix, and a tall one transposed
            for target in next(turn):
                constants = {"BLOCK": block, "DEPTH": depth, contiguous: 1, "c_column": 1}
                kinds = dict.fromkeys(("x", "c", "result"), "*" + name)
                kinds |= {"alpha": "fp32", "beta": "fp32"} | dict.fromkeys(constants, "constexpr")
                multiples = {"x", "c", "result", "rows", "inner", "x_row", "x_column"} - set(constants)
                source = ASTSource(
                    gram._gram,
                    signature={a: kinds.get(a, "i32") for a in names},
                    constexprs={(names.index(a),): value for a, value in constants.items()},
                    attrs={(names.index(a),): [["tt.divisibility", 16]] for a in multiples},
                )
                options = {"num_warps": warps, "num_stages": stages}
                found.append(measure(source, target, options, kernel=contiguous, dtype=name))
    return found


def pairs(targets: str = "") -> list[dict[str, Any]]:
    from triton.compiler import ASTSource

    from svdrot._kernels.gpu import pairs as pairs_gpu

    found, turn = [], _turns(targets)
    for kernel in (pairs_gpu._moments, pairs_gpu._gradients, pairs_gpu._misfits):
        names = kernel.arg_names
        for name in ("fp32", "fp64"):
            for weighted in (True, False):
                for target in next(turn):
                    constants = {"centered": True, "weighted": weighted}
                    constants |= {"BLOCK": pairs_gpu.BLOCK}
                    constants = {a: value for a, value in constants.items() if a in names}
                    kinds = dict.fromkeys(("x", "y", "w", "gx", "gy", "gw"), "*" + name)
                    kinds |= dict.fromkeys(("pivots", "m", "g", "rotations", "sums"), "*fp64")
                    kinds |= dict.fromkeys(constants, "constexpr")
                    source = ASTSource(
                        kernel,
                        signature={a: kinds.get(a, "i32") for a in names},
                        constexprs={(names.index(a),): value for a, value in constants.items()},
                    )
                    options = {"num_warps": pairs_gpu.BLOCK // 32}
                    found.append(measure(source, target, options, kernel=kernel.__name__, dtype=name))
    return found


def neighbors(targets: str = "") -> list[dict[str, Any]]:
    import triton.language as tl
    from triton.compiler import ASTSource

    from svdrot._kernels.gpu import neighbors as neighbors_gpu

    found, turn, kernel = [], _turns(targets), neighbors_gpu._nearest
    tile = {"QUERIES": neighbors_gpu.QUERIES, "POINTS": neighbors_gpu.POINTS}
    for name, dtype in (("fp32", tl.float32), ("fp64", tl.float64)):
        for d in (3, 33):
            for several in (False, True):
                constants = {"SEVERAL": several, "D": d, "DTYPE": dtype, **tile}
                kinds = dict.fromkeys(("queries", "points", "distances"), "*" + name) | {"indices": "*i64"}
                kinds |= dict.fromkeys(constants, "constexpr")
                names = kernel.arg_names
                source = ASTSource(
                    kernel,
                    signature={a: kinds.get(a, "i32") for a in names},
                    constexprs={(names.index(a),): value for a, value in constants.items()},
                )
                for target in next(turn):
                    found.append(measure(source, target, {}, kernel=f"{d} {several}", dtype=name))
    return found


def small_matrices(targets: str = "") -> list[dict[str, Any]]:
    import torch
    from triton.compiler import ASTSource

    from svdrot._kernels.gpu import polar

    found, turn = [], _turns(targets)
    variants: list[tuple[Any, dict[str, bool]]] = [(polar._polar, {"SPECIAL": True}), (polar._pullback, {})]
    variants += [(polar._differential, {"TALL": tall}) for tall in (False, True)]
    for dtype in (torch.float32, torch.float64):
        stored = "*" + NAMES[str(dtype).removeprefix("torch.")]
        for kernel, options in variants:
            names = kernel.arg_names
            for side in (16, 64):
                sizes = polar.tile(side * 2 if side == 16 and "TALL" in options else side, side, dtype)
                warps = {"num_warps": sizes.pop("num_warps")}
                constants = {**options, **polar.constants(dtype), **sizes}
                kinds = dict.fromkeys(("m", "q", "t", "g", "d", "kept", "residual", "steps"), stored)
                kinds |= dict.fromkeys(constants, "constexpr")
                source = ASTSource(
                    kernel,
                    signature={a: kinds.get(a, "i32") for a in names},
                    constexprs={(names.index(a),): value for a, value in constants.items()},
                )
                labels = {"kernel": kernel.__name__, "dtype": stored[1:], "side": side}
                for target in next(turn):
                    found.append(measure(source, target, warps, **labels))
    return found


def table(names: list[str]) -> None:
    kinds = "value,vjp,jvp,vjp of vjp" if names else "value,vjp"
    targets = ",".join(map(str, TARGETS))
    print(f"{'':36}", *(f"{target if isinstance(target, str) else f'sm_{target}':>10}" for target in TARGETS))
    for dtype in ("float32", "float64"):
        for name in names or [None]:
            rows: dict[str, list[str]] = {}
            for kernel in formulas(*([name] if name else []), dtype=dtype, kinds=kinds, targets=targets):
                mark = "!" if kernel["local"] or kernel["stack"] else ""
                cell = f"{kernel['instructions']}/{kernel['registers']}{mark}"
                rows.setdefault(f"{kernel['map']} {kernel['kind']}", []).append(cell)
            for label, cells in rows.items():
                print(f"{label + ' ' + NAMES[dtype]:36}", *(f"{cell:>10}" for cell in cells), flush=True)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    if sys.argv[1:2] == ["--json"]:
        which, *arguments = sys.argv[2:]
        options = dict(a[2:].split("=") for a in arguments if a.startswith("--"))
        names = [a for a in arguments if not a.startswith("--")]
        print(json.dumps(globals()[which](*names, **options)))
    else:
        os.environ.pop("TRITON_INTERPRET", None)
        table(sys.argv[1:])
