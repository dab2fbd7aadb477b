"""What is installed, what of it works, and what is kept on disk."""

import importlib
import platform
import sys
from importlib import metadata

import torch

from svdrot._kernels.cpu.compiler import kept

PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "triton", "open3d", "trimesh", "matplotlib")


def versions() -> dict[str, str]:
    """Versions of everything that a result may depend on."""
    return {"svdrot": version("svdrot"), "python": platform.python_version(), "torch": torch.__version__} | {
        name: version(name) for name in PACKAGES
    }


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def report() -> str:
    rows = [
        *versions().items(),
        ("system", platform.platform()),
        ("devices", ", ".join(_devices())),
        ("CPU kernels", _cpu_kernels()),
        ("GPU kernels", _gpu_kernels()),
        ("binary PCD", _loads("open3d")),
        ("meshes", _loads("trimesh")),
        ("pictures", _loads("matplotlib")),
    ]
    return "\n".join(f"{name:<12} {value}" for name, value in rows)


def _devices() -> list[str]:
    cards = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return [f"cpu with {torch.get_num_threads()} threads", *cards]


def _cpu_kernels() -> str:
    files = kept.kept()
    where = ", ".join(str(folder) for folder in sorted({file.parent for file in files})) or "nowhere yet"
    size = sum(file.stat().st_size for file in files) / 2**20
    return f"{len(files)} compiled ({size:.1f} MiB), kept in {where}; others are compiled when first called"


def clear_cache() -> int:
    """Remove the compiled kernels; returns 2 if some could not be removed."""
    removed, left = kept.clear(), kept.kept()
    print(f"Removed {len(removed)} compiled kernels; they are compiled again when they are used.")
    for file in left:
        print(f"svdrot: {file} cannot be removed.", file=sys.stderr)
    return 2 if left else 0


def _gpu_kernels() -> str:
    if not torch.cuda.is_available():
        return "off: torch finds no CUDA device"
    try:
        importlib.import_module("svdrot.engine.gpu")
    except ImportError as error:
        return f"off, torch operations in their place: {error}"
    return "on"


def _loads(package: str) -> str:
    purpose = {"open3d": "files", "trimesh": "samples of surfaces", "matplotlib": "before and after"}[package]
    try:
        importlib.import_module(package)
    except (ImportError, OSError) as error:
        return f"off ({purpose}): {package} does not load: {error}"
    return f"on ({purpose}): {package} loads"
