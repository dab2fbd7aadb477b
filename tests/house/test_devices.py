"""A default device changes nothing for tensors that are elsewhere; nor does who called first, and how."""

import subprocess
import sys

import pytest
import torch

import svdrot
from svdrot import _kernels
from svdrot import distributions as D
from svdrot.averaging import average_rotations, synchronize_rotations
from svdrot.polar import polar
from svdrot.registration import (
    estimate_normals,
    icp,
    kabsch,
    nearest,
    robust_kabsch,
    umeyama,
    voxel_downsample,
)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


M, X, R = drawn(100, 8, 8), drawn(50, 3), svdrot.special_orthogonalize(drawn(3, 3, 3))
Y = X @ R[0].mT + 0.01 * drawn(50, 3)
EDGES = torch.tensor([[0, 1], [1, 2], [0, 2]])
FUNCTIONS = {
    "polar": lambda: polar(M),
    "special": lambda: polar(M[:, :5, :5], special=True),
    "projection": lambda: svdrot.special_orthogonalize(M[:, :3, :3]),
    "kabsch": lambda: kabsch(X, Y).matrix,
    "lists": lambda: umeyama([X, X[:9]], [Y, Y[:9]]).matrix,
    "residual": lambda: kabsch(X, Y).residual,
    "robust": lambda: robust_kabsch(X, Y, 0.1).matrix,
    "reweighted": lambda: robust_kabsch(X, Y, 0.1, method="gnc_tls").matrix,
    "nearest": lambda: nearest(X, Y)[0],
    "nearest of eight": lambda: nearest(M[0], M[1])[0],
    "icp": lambda: icp(X, Y, max_distance=1.0).transform.matrix,
    "generalized": lambda: icp(X, Y, max_distance=1.0, method="generalized", kernel="tukey").transform.matrix,
    "average": lambda: average_rotations(R),
    "synchronization": lambda: synchronize_rotations(EDGES, R).rotations,
    "normals": lambda: estimate_normals(X),
    "voxels": lambda: voxel_downsample(X, 0.5)[0],
    "angles": lambda: svdrot.matrix_to_axis_angle(R),
    "10d": lambda: svdrot.matrix_to_symmetric_10d(R),
    "interpolation": lambda: svdrot.interpolate_rotations(R, X[:, 0].sigmoid()),
    "fisher": lambda: D.MatrixFisher(M[:3, :3, :3]).log_prob(R),
    "laplace": lambda: D.RotationLaplace(M[:3, :3, :3]).entropy(),
    "bingham": lambda: D.Bingham(M[:3, :4, :4]).entropy(),
    "gaussian": lambda: D.IsotropicGaussian(R, X[:3, 0].exp()).entropy(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_default_device_changes_nothing(name):
    wanted = FUNCTIONS[name]()
    with torch.device("meta"):
        found = FUNCTIONS[name]()
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


FIRST = """
import torch
from svdrot import distributions as D

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 9)
    def forward(self, x):
        return D.MatrixFisher(self.linear(x).unflatten(-1, (3, 3)), validate_args=False).entropy()

network, x = Network(), torch.randn(2, 4)
exported = torch.export.export(network, (x,)).module()
assert torch.equal(exported(x), network(x))
network(x).sum().backward()
assert type(network.linear.weight.grad) is torch.Tensor
"""
THEN = """
import torch
from svdrot import distributions as D
scale = torch.tensor(0.3, requires_grad=True)
with torch.inference_mode():
    D.IsotropicGaussian(torch.eye(3), scale).entropy()
D.IsotropicGaussian(torch.eye(3), scale).entropy().backward()
assert scale.grad.isfinite()
"""


@pytest.mark.parametrize("first", [FIRST, THEN], ids=["export", "inference"])
def test_what_the_first_call_of_a_process_leaves(first):
    subprocess.run([sys.executable, "-c", first], check=True, timeout=300)


@pytest.mark.parametrize("name", ["kabsch", "lists", "robust", "nearest", "icp"])
def test_a_device_without_kernels_takes_torch_operations(name, monkeypatch):
    """And the search of neighbors a copy on the CPU: nobody is handed the address of another memory."""
    expected = FUNCTIONS[name]()
    monkeypatch.setattr(_kernels, "side", lambda x: "other")
    torch.testing.assert_close(FUNCTIONS[name](), expected, rtol=1e-4, atol=1e-4)
