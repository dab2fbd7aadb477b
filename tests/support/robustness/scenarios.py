"""What is done with public classes: functions that make an object and use it."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from svdrot import distributions, evaluation, losses, nn, optim, registration
from svdrot.registration import Transform

Scenarios = dict[str, Callable[..., Any]]


def scenarios() -> dict[type, Scenarios]:
    """For each public class that is more than a result, functions that make one and use it."""
    return {
        Transform: {
            "apply": lambda transform, points: transform.apply(points),
            "compose": lambda transform, then: then @ transform,
            "inverse": lambda transform: transform.inverse(),
            "from_matrix": lambda homogeneous: Transform.from_matrix(homogeneous),
            "from_quaternion": lambda quaternion, place: Transform.from_quaternion(quaternion, place),
            "exp": lambda twist: Transform.exp(twist),
            "log": lambda rigid: rigid.log(),
            "adjoint": lambda transform: transform.adjoint(),
            "rotate": lambda transform, points: transform.rotate(points),
            "interpolate": lambda transform, then, share, path: transform.interpolate(then, share, path),
            "distance": lambda transform, then: transform.distance(then),
            "identity": lambda d: Transform.identity(d),
        },
        registration.Neighbors: {"query": _query},
        losses.ReducedLoss: {"forward": _reduced},
        nn.SpecialOrthogonal: {"forward": lambda matrix: nn.SpecialOrthogonal()(matrix)},
        nn.SpecialOrthogonalize: {"forward": _project},
        nn.Stiefel: {"forward": lambda matrix: nn.Stiefel()(matrix)},
        nn.RotationLoss: {"forward": _loss_of_raw},
        nn.RotationHead: {"forward": _head(nn.RotationHead)},
        nn.RigidHead: {"forward": _head(nn.RigidHead)},
        nn.MatrixFisherHead: {"forward": _belief(nn.MatrixFisherHead)},
        nn.BinghamHead: {"forward": _belief(nn.BinghamHead)},
        nn.RotationLaplaceHead: {"forward": _belief(nn.RotationLaplaceHead)},
        nn.IsotropicGaussianHead: {"forward": _belief(nn.IsotropicGaussianHead)},
        nn.Always: {"forward": _strategy(nn.Always)},
        nn.AtInference: {"forward": _strategy(nn.AtInference)},
        nn.AfterWarmup: {"forward": _strategy(lambda: nn.AfterWarmup(1))},
        nn.ManifoldGradient: {"forward": _strategy(nn.ManifoldGradient)},
        optim.Muon: {"step": _steps(optim.Muon)},
        optim.ROOT: {"step": _steps(optim.ROOT)},
        optim.MuonEq: {"step": _steps(optim.MuonEq)},
        optim.MiMuon: {"step": _steps(lambda *given, **options: optim.MiMuon(*given, tau=0.1, **options))},
        distributions.MatrixFisher: _of_matrix(distributions.MatrixFisher)
        | {"fit": lambda rotations, weights: distributions.MatrixFisher.fit(rotations, weights).matrix},
        distributions.RotationLaplace: _of_matrix(distributions.RotationLaplace),
        distributions.Bingham: _of_matrix(distributions.Bingham)
        | {"fit": lambda quaternions, weights: distributions.Bingham.fit(quaternions, weights).matrix},
        distributions.UniformRotation: {"sample": _uniform},
        distributions.IsotropicGaussian: {
            "log_prob": _gaussian_density,
            "moments": _gaussian_moments,
            "rsample": _gaussian_sample,
            "score": _gaussian_score,
            "fit": lambda rotations, weights: _parts(distributions.IsotropicGaussian.fit(rotations, weights)),
        },
        **_of_streams(),
    }


def _of_streams() -> dict[type, Scenarios]:
    if find_spec("torchmetrics") is None:  # an optional package
        return {}
    streaming = evaluation.streaming
    return {
        streaming.MeanDegrees: {"compute": _metric(streaming.MeanDegrees)},
        streaming.StdDegrees: {"compute": _metric(streaming.StdDegrees)},
        streaming.MedianDegrees: {"compute": _metric(streaming.MedianDegrees)},
        streaming.PercentileDegrees: {"compute": _metric(lambda: streaming.PercentileDegrees(90))},
        streaming.AccuracyAtDegrees: {"compute": _metric(lambda: streaming.AccuracyAtDegrees(5))},
        streaming.AreaUnderAccuracy: {"compute": _metric(lambda: streaming.AreaUnderAccuracy(30))},
    }


def _of_matrix(kind: type) -> Scenarios:
    """What a distribution with one matrix answers."""

    def density(matrix, value):
        return kind(matrix, validate_args=False).log_prob(value)

    def validated_density(matrix, value):
        return kind(matrix).log_prob(value)

    def sample(matrix, sample_shape):
        return kind(matrix, validate_args=False).sample(sample_shape)

    def moments(matrix):
        of = kind(matrix, validate_args=False)
        return of.mean, of.mode, of.log_normalizer(), of.entropy()

    return {"log_prob": density, "validated": validated_density, "sample": sample, "moments": moments}


def _uniform(batch_shape, dtype, sample_shape):
    of = distributions.UniformRotation(batch_shape, dtype=dtype)
    drawn = of.sample(sample_shape)
    return drawn, of.log_prob(drawn), of.entropy()


def _gaussian_density(rotation, scale, evaluated):
    return distributions.IsotropicGaussian(rotation, scale, validate_args=False).log_prob(evaluated)


def _parts(found):
    return found.location, found.scale


def _gaussian_score(rotation, scale, evaluated):
    return distributions.IsotropicGaussian(rotation, scale, validate_args=False).score(evaluated)


def _gaussian_moments(rotation, scale):
    of = distributions.IsotropicGaussian(rotation, scale, validate_args=False)
    return of.mean, of.mode, of.entropy()


def _gaussian_sample(rotation, scale, sample_shape):
    return distributions.IsotropicGaussian(rotation, scale, validate_args=False).rsample(sample_shape)


def _head(kind: type) -> Callable[..., Any]:
    def forward(features, representation, training):
        head = kind(4, representation).train(training)
        floating = isinstance(features, Tensor) and features.is_floating_point()
        return head.to(features.dtype if floating else torch.float32)(features)

    return forward


def _belief(kind: type) -> Callable[..., Any]:
    def forward(features):
        head = kind(4)
        floating = isinstance(features, Tensor) and features.is_floating_point()
        found = head.to(features.dtype if floating else torch.float32)(features)
        return found.mode, found.entropy()

    return forward


def _strategy(make: Callable[[], nn.Strategy]) -> Callable[..., Any]:
    def forward(rotation_9d, training):
        return make().train(training)(rotation_9d, "svd")

    return forward


def _steps(make: Callable[..., torch.optim.Optimizer]) -> Callable[..., Any]:
    def step(parameter, lr, momentum):
        weight = torch.nn.Parameter(parameter.detach().clone())
        weight.grad = parameter.detach()
        make([weight], lr=lr, momentum=momentum).step()
        return weight.detach()

    return step


def _metric(make: Callable[[], Any]) -> Callable[..., Any]:
    def compute(estimate, truth):
        metric = make()
        metric.update(estimate, truth)
        return metric.compute()

    return compute


def _query(points, query, k, max_distance):
    return registration.Neighbors(points).query(query, k, max_distance)


def _project(matrix, damping):
    return nn.SpecialOrthogonalize(damping)(matrix)


def _loss_of_raw(rotation_9d, truth, reduction):
    return nn.RotationLoss("svd", "geodesic", reduction)(rotation_9d, truth)


def _reduced(estimate, truth, reduction):
    return losses.ReducedLoss(losses.geodesic, reduction)(estimate, truth)
