"""Options and fixtures of the whole suite."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: the GPU kernels then run on the CPU

THREADS = torch.get_num_threads()


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


@pytest.fixture(autouse=True)
def threads_as_before():
    """Trainings take as many threads as they are told to."""
    yield
    if torch.get_num_threads() != THREADS:
        torch.set_num_threads(THREADS)


def pytest_sessionstart(session):
    if session.config.getoption("--require-gpu") and not torch.cuda.is_available():
        raise pytest.UsageError("--require-gpu: torch finds no CUDA device")
