"""The loop of ICP over two batches of clouds: each item iterates until it is done."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from svdrot import _kernels
from svdrot.engine.door import is_constant
from svdrot.registration._motions import Limits
from svdrot.registration.clouds import _steps
from svdrot.registration.clouds._clouds import Clouds
from svdrot.registration.clouds._verdict.settled import Reach, basis_of, settled
from svdrot.registration.clouds.neighbors import Followed, Neighbors
from svdrot.transform import Transform

# How stiff the softest motion is, over the stiffest. Above this, or so many times the variance that normals
# have by noise, these need not be looked at.
SOFT, NOISY = 0.05, 20.0


class Status(IntEnum):
    """Say why the iterations of a cloud ended; only `CONVERGED` is a success.

    Attributes:
        CONVERGED: the last step was below both tolerances.
        ITERATIONS: the last one allowed still moved the cloud.
        UNOBSERVABLE: the pairs leave directions open, along which the pose means nothing; of some 200
            pairs and more it was brought back along them to the start.
        NO_OVERLAP: fewer than three points have a usable neighbor within the distance.
        EMPTY: a cloud has no finite point that counts.
        NOT_FINITE: the initial transform or a step is not finite.

    Example:
        >>> import torch, svdrot
        >>> cloud = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
        >>> found = svdrot.registration.icp(cloud, cloud + 10, max_distance=0.5)
        >>> svdrot.registration.Status(found.status.item()).name
        'NO_OVERLAP'
    """

    CONVERGED = 0
    ITERATIONS = 1
    UNOBSERVABLE = 2
    NO_OVERLAP = 3
    EMPTY = 4
    NOT_FINITE = 5


@dataclass
class State:
    """Hold the poses and what is known of them, (B, ...); iterations change it in place."""

    rotation: Tensor
    translation: Tensor
    status: Tensor
    iterations: Tensor
    normal_matrix: Tensor
    pivot: Tensor
    radius: Tensor
    # Before the last step, and its pairs and weights; shapes depend on the scale.
    before: tuple[Tensor, Tensor] | None = None
    indices: Tensor | None = None
    weights: Tensor | None = None

    @staticmethod
    def of(start: Transform, from_: Tensor, to: Tensor, source: Tensor, target: Tensor) -> "State":
        """Make the state at `start`, given between the clouds as they are, for clouds moved to their centers.

        Args:
            start: from the source to the target, batch (B,).
            from_: the center of each source, (B, 3).
            to: the center of each target, (B, 3).
            source: which points count, (B, N).
            target: likewise, (B, M).
        """
        rotation = start.rotation.clone()
        translation = start.translation + (rotation @ from_[..., None])[..., 0] - to
        status = torch.full_like(start.scale, Status.ITERATIONS, dtype=torch.long)
        finite = rotation.isfinite().all(-1).all(-1) & translation.isfinite().all(-1) & start.scale.isfinite()
        status[~finite] = Status.NOT_FINITE
        status[~(source.any(1) & target.any(1))] = Status.EMPTY
        zero = torch.zeros_like(translation)
        matrix = zero.new_zeros(len(zero), 6, 6)
        return State(
            rotation, translation, status, torch.zeros_like(status), matrix, zero, torch.ones_like(zero[:, 0])
        )


@dataclass
class Aligner:
    """Align two batches of clouds at one scale."""

    source: Clouds
    target: Clouds
    method: _steps.Method
    kernel: str
    parameter: float | None
    limit: float
    limits: Limits | None  # of the motions
    neighbors: int = 20  # by which normals are estimated

    def __post_init__(self) -> None:
        self.marked, self.points = self.source.marked(), self.source.valid.sum(1)
        given = (self.source.points, self.target.points, self.source.weights)
        self.differentiable = not is_constant(given)
        self.targets, self.nearest = self.target.marked(), []
        if _kernels.side(self.targets) != "gpu":
            self.nearest = [Followed(Neighbors(cloud), self.limit) for cloud in self.targets]

    def run(
        self,
        state: State,
        count: int,
        angle_tolerance: float,
        length_tolerance: float,
        report: Callable[..., None],
    ) -> None:
        """Iterate until all items are done."""
        # `items` are the places in the batch of those that still iterate. Their poses are kept apart, and
        # written back to the state when they end.
        (items,) = ((state.status != Status.EMPTY) & (state.status != Status.NOT_FINITE)).nonzero(
            as_tuple=True
        )
        state.status[items] = Status.ITERATIONS
        state.before = state.rotation.clone(), state.translation.clone()
        state.indices = torch.zeros_like(self.source.valid, dtype=torch.long)
        state.weights = torch.zeros_like(self.source.weights)
        source, marked, points = self._sources(items)
        rotation, translation, pivot = state.rotation[items], state.translation[items], state.pivot[items]
        for number in range(count):
            if not len(items):
                break
            moved, distances, indices = self._search(marked, rotation, translation, items)
            taken, weights = self._take(
                source, rotation, translation, pivot, moved, distances, indices, items
            )
            moves = taken.enough & taken.finite
            still = moves & (taken.angle <= angle_tolerance) & (taken.length <= length_tolerance)
            done = still | ~moves if number + 1 < count else torch.ones_like(still)
            way = torch.where(moves, torch.stack((taken.angle, taken.length)), torch.nan)
            values = torch.cat((_quality(points, taken.found, taken.squares), way))
            if len(items) < len(self.marked):
                all_ = torch.full((4, len(self.marked)), torch.nan, dtype=values.dtype, device=values.device)
                values = all_.index_copy(1, items, values)
            (ended,) = done.nonzero(as_tuple=True)  # places, not a mask: on a GPU the host waits once
            if len(ended):
                at = items[ended]
                status = torch.where(still, int(Status.CONVERGED), int(Status.ITERATIONS))
                status = torch.where(taken.finite, status, int(Status.NOT_FINITE))
                state.status[at] = torch.where(taken.enough, status, int(Status.NO_OVERLAP))[ended]
                state.iterations[at] += number + 1
                for name in ("rotation", "translation", "normal_matrix", "pivot", "radius"):
                    getattr(state, name)[at] = getattr(taken, name)[ended]
                if self.differentiable:
                    state.before[0][at], state.before[1][at] = rotation[ended], translation[ended]
                    state.indices[at] = indices[ended]
                    state.weights[at] = torch.where(moves[:, None], weights, 0)[ended]
            report(number, *values)
            rotation, translation, pivot = taken.rotation, taken.translation, taken.pivot
            if len(ended):
                (kept,) = (~done).nonzero(as_tuple=True)
                items, rotation, translation, pivot = (x[kept] for x in (items, rotation, translation, pivot))
                source, marked, points = self._sources(items)
        # What stepped with a normal matrix that leaves a direction open has not converged.
        state.status[self._stepped(state) & (self._least(state) <= _steps.OBSERVABLE)] = Status.UNOBSERVABLE

    def settle(self, state: State, start: Transform) -> Transform:
        """Bring poses back to the start along what the normals of both clouds do not hold together.

        Noise of normals makes a wall look stiff along itself. Return the motions that were taken, (B,).
        """
        eye = torch.eye(3, dtype=state.rotation.dtype, device=state.rotation.device)
        back = Transform(
            eye.expand_as(state.rotation).clone(), torch.zeros_like(start.translation), start.scale
        )
        if self.method.target is None:  # pairs of points hold whatever they are
            return back
        least, allowed = self._least(state), None if self.limits is None else self.limits.projector
        away = (state.status == Status.NO_OVERLAP) & (state.iterations > 1)
        # Where heights stay, a floor has nothing to compare its noise with: all are looked at.
        all_ = self.limits is not None and self.limits.planar and not self.source.flat
        soft = (self._stepped(state) & ((least <= SOFT) | all_)) | away
        state.rotation, state.translation = state.rotation.clone(), state.translation.clone()
        for i in soft.nonzero()[:, 0].tolist():
            theirs = self.target.planes_of(i, self.neighbors)
            ours = None if self.method.source is None else self.source.planes_of(i, self.neighbors)
            noise = theirs.ripple if ours is None else torch.maximum(theirs.ripple, ours.ripple)
            if not all_ and least[i] > NOISY * noise + self.method.softest + _steps.OBSERVABLE:
                continue
            source, target = (c.points[i, c.valid[i]].detach() for c in (self.source, self.target))
            found = Transform(state.rotation[i], state.translation[i], start.scale[i])
            begun = Transform(start.rotation[i], start.translation[i], start.scale[i])
            basis = None if allowed is None else basis_of(allowed[i])
            reach = Reach(self.limit, self.neighbors, basis, self.source.flat)
            there = settled(source, target, ours, theirs, found, begun, reach)
            if there is None:  # what ran away has no pairs left, but may have had some
                there = settled(source, target, ours, theirs, begun, begun, reach)
                if there is None or not there.open_:
                    continue
            agreed = state.normal_matrix[i, 3:, 3:].trace() * there.matrix
            if allowed is not None:  # exactly 0 along what there is not
                agreed = allowed[i] @ agreed @ allowed[i]
            state.normal_matrix[i] = agreed
            state.pivot[i], state.radius[i] = there.center, there.radius
            if there.open_:
                state.status[i] = Status.UNOBSERVABLE
                way = there.transform @ found.inverse()
                back.rotation[i], back.translation[i] = way.rotation, way.translation
                state.rotation[i], state.translation[i] = (
                    there.transform.rotation,
                    there.transform.translation,
                )
        return back

    def _stepped(self, state: State) -> Tensor:
        """Return which items ended with a step."""
        ended = state.status == Status.CONVERGED
        for status in (Status.ITERATIONS, Status.UNOBSERVABLE):
            ended = ended | (state.status == status)
        return ended & (state.iterations > 0)

    def _least(self, state: State) -> Tensor:
        """Return how stiff the softest motion is over the stiffest."""
        values = _steps.eigen(state.normal_matrix, self.limits)[0]
        least, top = values[:, 0 if self.limits is None else self.limits.closed], values[:, -1]
        return torch.where(top > 0, least / torch.where(top > 0, top, 1), 0)

    def evaluate(self, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Return fitness, rmse and the index of each point's neighbor at the final poses, without a step."""
        items = torch.arange(len(state.rotation), device=state.rotation.device)
        _, distances, indices = self._search(self.marked, state.rotation, state.translation, items)
        found = distances.isfinite()
        squares = torch.where(found, distances, 0).square().sum(1)
        fitness, rmse = _quality(self.points, found.sum(1), squares)
        return fitness, rmse, indices

    def last_step(self, state: State) -> tuple[Tensor, Tensor]:
        """Return the final poses; where gradients are wanted, as functions of the clouds."""
        if not self.differentiable:
            return state.rotation, state.translation
        assert state.before is not None and state.indices is not None and state.weights is not None
        rotation, translation = state.before
        moved = self.source.points @ rotation.mT + translation[:, None]
        items = torch.arange(len(rotation), device=rotation.device)
        found = state.weights > 0
        pairs = self._pairs(self.source, rotation, moved, state.indices, found, items)
        own = self.source.weights
        weights = state.weights / torch.where(own > 0, own, 1).detach() * own
        step = self.method.step(pairs.weighted(weights))
        stepped = (state.weights > 0).any(1)
        new = step.rotation @ rotation
        shift = (step.rotation @ translation[..., None])[..., 0] + step.translation
        return (
            torch.where(stepped[:, None, None], new, state.rotation),
            torch.where(stepped[:, None], shift, state.translation),
        )

    def _sources(self, items: Tensor) -> tuple[Clouds, Tensor, Tensor]:
        """Return the clouds of the items, their points, NaN where they do not count, and how many do."""
        if len(items) == len(self.marked):
            return self.source, self.marked, self.points
        return self.source.take(items), self.marked[items], self.points[items]

    def _search(
        self, marked: Tensor, rotation: Tensor, translation: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the points where they are now, their distances from the target, and their neighbors."""
        if not len(items):
            empty = marked[..., 0]
            return marked, empty, empty.long()
        if not self.nearest:  # all clouds at once, and nobody waits
            moved = torch.baddbmm(translation[:, None], marked, rotation.mT)
            targets = self.targets if len(items) == len(self.targets) else self.targets[items]
            distances, indices = _kernels.select_neighbors(moved).nearest(moved, targets, 1, self.limit)
            return moved, distances[..., 0], indices[..., 0]
        clouds = zip(items.tolist(), marked, rotation, translation, strict=True)
        found = [self.nearest[i].query(*cloud) for i, *cloud in clouds]
        moved, distances, indices = (
            values[0][None] if len(values) == 1 else torch.stack(values)  # no copy of a single large cloud
            for values in zip(*found, strict=True)
        )
        return moved, distances, indices

    def _take(
        self,
        source: Clouds,
        rotation: Tensor,
        translation: Tensor,
        origin: Tensor,
        moved: Tensor,
        distances: Tensor,
        indices: Tensor,
        items: Tensor,
    ) -> tuple[_steps.Taken, Tensor]:
        """Take a step; return it and the weights of its pairs."""
        if _kernels.side(moved) != "cpu":
            pairs = self._pairs(source, rotation, moved, indices, distances.isfinite(), items)
            weights = pairs.weights
            if self.kernel != "none":
                residual = self.method.residual(pairs)
                weights = weights * _steps.robust_weights(self.kernel, residual, weights > 0, self.parameter)
            pairs = pairs.weighted(weights)
            return _steps.take_of_pairs(self.method, pairs, distances, rotation, translation), weights
        taken, weights, residuals = _steps.take(
            self.method,
            moved,
            indices,
            source.weights,
            items,
            rotation,
            translation,
            origin,
            self.target.points,
            self.target.weights,
            source.known,
            self.target.known,
            limits=self._limits(items),
            kernel=self.kernel,
            parameter=self.parameter,
        )
        return taken, torch.where(residuals.isfinite(), weights, 0) if self.differentiable else weights

    def _pairs(
        self,
        source: Clouds,
        rotation: Tensor,
        moved: Tensor,
        indices: Tensor,
        found: Tensor,
        items: Tensor,
    ) -> _steps.Pairs:
        target = self.target
        m = target.points.shape[1]
        # The neighbors of all items by one selection from the flattened targets: point k of item i is in row
        # m i + k.
        rows = (torch.where(found, indices, 0) + m * items[:, None]).flatten()

        def chosen(value: Tensor) -> Tensor:
            return value.flatten(0, 1).index_select(0, rows).unflatten(0, indices.shape)

        usable = found & (chosen(target.weights) > 0)
        normals, covariances = source.normals, source.covariances
        if covariances is not None:
            covariances = _steps.turn_packed(rotation, covariances)
        return _steps.Pairs(
            torch.where(found[..., None], moved, 0),
            chosen(target.points),
            torch.where(usable, source.weights, 0),
            None if normals is None else normals @ rotation.mT,
            None if target.normals is None else chosen(target.normals),
            covariances,
            None if target.covariances is None else chosen(target.covariances),
            self._limits(items),
        )

    def _limits(self, items: Tensor) -> Limits | None:
        return None if self.limits is None else self.limits.take(items)


def _quality(points: Tensor, found: Tensor, squares: Tensor) -> Tensor:
    """Return fitness and rmse, (2, B)."""
    return torch.stack((found / points.clamp(min=1), (squares / found).sqrt()))
