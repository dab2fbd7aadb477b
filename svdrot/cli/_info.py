"""What is installed, and what of it works."""

import importlib
import platform
from importlib import metadata

import torch

PACKAGES = ("numpy", "scipy", "numba", "triton", "open3d", "trimesh", "matplotlib")


def versions() -> dict[str, str]:
    """Of everything that a result may depend on."""
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
        ("features", _loads("open3d")),
        ("meshes", _loads("trimesh")),
        ("pictures", _loads("matplotlib")),
    ]
    return "\n".join(f"{name:<12} {value}" for name, value in rows)


def _devices() -> list[str]:
    cards = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return [f"cpu with {torch.get_num_threads()} threads", *cards]


def _cpu_kernels() -> str:
    from svdrot.kernels import _machine_code

    folder = _machine_code._folder()
    kept = len([*folder.glob("*.o")])
    return f"{kept} compiled, in {folder}; what is new or has changed is compiled at its first call"


def _gpu_kernels() -> str:
    if not torch.cuda.is_available():
        return "off: torch finds no CUDA device"
    try:
        importlib.import_module("svdrot.kernels.gpu")
    except ImportError as error:
        return f"off, torch operations in their place: {error}"
    return "on"


def _loads(package: str) -> str:
    purpose = {"open3d": "FPFH", "trimesh": "samples of surfaces", "matplotlib": "before and after"}[package]
    try:
        importlib.import_module(package)
    except (ImportError, OSError) as error:
        return f"off ({purpose}): {package} does not load: {error}"
    return f"on ({purpose}): {package} loads"
