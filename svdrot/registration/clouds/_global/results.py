"""What `register` returns: where the source lies, and what each step came to."""

from dataclasses import dataclass

from svdrot.registration.clouds.verdict import Verdict
from svdrot.transform import Transform


@dataclass(frozen=True)
class Stage:
    """Describe what one step of `register` came to.

    Attributes:
        name: "features" or "start", "robust", "local" and "verdict".
        transform: after the step, from source to target.
        fitness: as in `GlobalRegistration`, after the step.
        rmse: likewise.
        seconds: that the step took.

    Example:
        >>> import torch, svdrot
        >>> scan = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0))
        >>> found = svdrot.registration.register(scan, scan)  # doctest: +SKIP
        >>> [(stage.name, round(stage.fitness, 2)) for stage in found.stages]  # doctest: +SKIP
        [('features', 1.0), ('robust', 1.0), ('local', 1.0)]
    """

    name: str
    transform: Transform
    fitness: float
    rmse: float
    seconds: float


@dataclass(frozen=True)
class GlobalRegistration:
    """Describe where the source lies on the target, as `register` returns it.

    Attributes:
        transform: from source to target, rigid unless a scale was asked for.
        fitness: share of the source's voxels with a point of the target within 1.5 voxels, in [0, 1].
        rmse: root of the mean square of the distances of those, NaN if there are none.
        converged: whether the verdict is "aligned"; without one, whether more correspondences agree with the
            transform than would by chance.
        correspondences: number of matched features, at the voxel below.
        inliers: how many of them agree with the robust fit.
        voxel: at which the features were made, in the units of the target, 0 if the clouds determine none.
        stages: each `Stage`, in order; none if a cloud is too small.
        verdict: what `judge` says of it, with covariance, free motions and rivals; None if it was not asked.

    Example:
        >>> import torch, svdrot
        >>> found = svdrot.registration.register(torch.zeros(3, 3), torch.rand(9, 3))  # too few points
        >>> found.converged, found.fitness, found.transform.rotation.diagonal()
        (False, 0.0, tensor([1., 1., 1.]))
    """

    transform: Transform
    fitness: float
    rmse: float
    converged: bool
    correspondences: int
    inliers: int
    voxel: float
    stages: tuple[Stage, ...]
    verdict: Verdict | None = None
