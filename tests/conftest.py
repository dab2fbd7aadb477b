"""Options and fixtures of the whole suite."""

import importlib
import os

import pytest

# One thread for each worker and for the processes that tests start: with threads that wait for a busy core in
# every operation, a test takes fifty times as long. Tests of threads ask for their own.
THREADS = 1
for library in ("OMP", "MKL", "OPENBLAS"):
    os.environ[f"{library}_NUM_THREADS"] = str(THREADS)

import hypothesis  # noqa: E402
import torch  # noqa: E402, which reads the environment

# Also in a checkout that cannot be written, and on a machine that is busy, where draws take their time.
hypothesis.settings.register_profile(
    "anywhere", database=None, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("anywhere")
torch.set_num_threads(THREADS)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: the GPU kernels then run on the CPU


def pytest_addoption(parser):
    parser.addoption(
        "--require-gpu", action="store_true", help="fail, do not skip, where a test finds no GPU"
    )


@pytest.fixture
def gpu(request) -> torch.device:
    """A CUDA device; without one the test is skipped, or fails under --require-gpu."""
    if not torch.cuda.is_available():
        missing = pytest.fail if request.config.getoption("--require-gpu") else pytest.skip
        missing("no CUDA device")
    return torch.device("cuda")


@pytest.fixture
def open3d():
    """open3d, for features, binary PCD and baselines; where it does not load, the test is skipped."""
    try:
        return importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        pytest.skip(f"open3d does not load: {error}")


@pytest.fixture(autouse=True)
def alone(request):
    """Each test begins with the same seed and number of threads, whatever ran before it."""
    if request.node.get_closest_marker("open3d"):
        request.getfixturevalue("open3d")
    torch.manual_seed(0)
    yield
    if torch.get_num_threads() != THREADS:
        torch.set_num_threads(THREADS)


def pytest_configure(config):
    config.addinivalue_line("markers", "open3d: needs open3d, which needs libusb, libGL and libX11")
    config.addinivalue_line("markers", "long: takes more than ten seconds")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "long" not in item.keywords)  # first, or one worker waits for another's last


def pytest_sessionstart(session):
    if session.config.getoption("--require-gpu") and not torch.cuda.is_available():
        raise pytest.UsageError("--require-gpu: torch finds no CUDA device")
