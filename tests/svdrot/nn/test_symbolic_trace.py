"""torch.fx.symbolic_trace: heads are nodes, with the same numbers for any batch."""

import pickle

import pytest
import torch
from torch.fx import symbolic_trace

import svdrot


def assert_same(traced, model, *shape):
    for batch in (2, 7):
        features = torch.randn(batch, *shape)
        wanted, found = model(features), traced(features)
        for a, b in zip(found, wanted, strict=True) if isinstance(wanted, tuple) else [(found, wanted)]:
            assert torch.equal(a, b)


@pytest.mark.parametrize("representation", svdrot.nn.REPRESENTATIONS)
def test_a_head_alone_and_in_a_network(representation):
    head = svdrot.nn.RotationHead(8, representation)
    assert_same(symbolic_trace(head), head, 8)
    network = torch.nn.Sequential(torch.nn.Linear(5, 8), head)
    traced = symbolic_trace(network)
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == ["0", "1"]
    assert_same(traced, network, 5)
    assert_same(pickle.loads(pickle.dumps(symbolic_trace(head))), head, 8)


@pytest.mark.parametrize("strategy", ["inference", "manifold_gradient", svdrot.nn.AfterWarmup(3)])
def test_strategies_still_know_whether_they_train(strategy):
    head = svdrot.nn.RotationHead(8, "svd", strategy)
    traced = symbolic_trace(head)
    for model in (head, traced):
        model.eval()
    assert_same(traced, head, 8)
    assert svdrot.is_rotation(traced(torch.randn(3, 8))).all()
    traced.train()
    assert svdrot.is_rotation(traced(torch.randn(3, 8))).all() == (strategy == "manifold_gradient")


def test_rigid_heads_and_projections():
    rigid = svdrot.nn.RigidHead(8, "6d")
    assert_same(symbolic_trace(rigid), rigid, 8)
    network = torch.nn.Sequential(torch.nn.Linear(5, 8), rigid)
    assert_same(symbolic_trace(network), network, 5)
    for model in (svdrot.nn.SpecialOrthogonalize(), svdrot.nn.SpecialOrthogonalize(1e-3)):
        assert_same(symbolic_trace(model), model, 3, 3)
        assert_same(symbolic_trace(torch.nn.Sequential(model)), model, 4, 4)


def test_heads_keep_their_precision_under_autocast():
    head = svdrot.nn.RotationHead(8, "svd")
    traced, features = symbolic_trace(head), torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(traced(features.bfloat16()), head(features.bfloat16()))


def test_gradients_are_those_of_the_head():
    head, features = svdrot.nn.RotationHead(8, "svd"), torch.randn(4, 8)
    wanted, found = (
        torch.autograd.grad(f(features)[..., 0].sum(), [*f.parameters()])
        for f in (head, symbolic_trace(head))
    )
    assert all(map(torch.equal, found, wanted))


class Losing(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.loss = svdrot.nn.RotationLoss("svd")

    def forward(self, raw, truth):
        return self.loss(raw, truth) + svdrot.projection_gap(truth).mean()


def test_losses_inside_a_network_are_nodes():
    raw, truth = torch.randn(5, 9), svdrot.random_rotation(5)
    assert torch.equal(symbolic_trace(Losing())(raw, truth), Losing()(raw, truth))
