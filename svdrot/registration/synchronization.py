r"""Rotations of the nodes of a graph from noisy relative rotations along its edges.

Convention: $R_i$ takes coordinates of node i to those of the world, and the edge (i, j) measures $R_{ij} =
R_i^\top R_j$, which takes coordinates of j to those of i, so that $R_j = R_i R_{ij}$. This is the EDGE_SE3
of g2o and the camera-to-world convention. For world-to-camera matrices $Q_i = R_i^\top$ with relative ones
$Q_{ij} = Q_j Q_i^\top$, as structure from motion has them, give `relative = Q_ij.mT` and take
`rotations.mT`.

Everything is known up to one rotation of the world for each connected component, and the node of the lowest
index in it is the identity.

*Relaxation.* Without the constraint that $R_i$ be rotations, $\sum w |R_j - R_i R_{ij}|_F^2$ is least where a
sparse linear system with three right-hand sides says, in the unknowns $X_i = R_i^\top$: at each free j the
sum of $w (X_j - R_{ij}^\top X_i)$ over its edges is zero, and likewise at each free i. Far from its anchor a
block shrinks, and its nearest rotation is still good.

*Refinement.* With residuals $r = \log(R_{ij}^\top R_i^\top R_j)$ and $R_i \leftarrow \exp(\omega_i) R_i$, $r$
changes by $A (\omega_j - \omega_i)$, $A = J_r^{-1}(r) R_j^\top$, with the right Jacobian $J_r$ of SO(3). A
step of Gauss-Newton on $\sum \rho(r^\top \Omega r)$ solves the Laplacian system with blocks $\rho' A^\top
\Omega A$. Where $\Omega = w I$, $A^\top \Omega r = w R_j r$ exactly, and the blocks are taken as $\rho' w I$,
which no curvature of the squared angle exceeds: the system falls apart into three of the size of the graph
with one matrix.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot._checks import check_floating, check_shape
from svdrot.projection import projection_gap, special_orthogonalize
from svdrot.registration._cycles import best_cycles
from svdrot.representations import axis_angle_to_matrix, matrix_to_axis_angle

Progress = Callable[[int, float], None]

DOUBTED = 1e-4  # what a doubtful edge counts at first: it holds a node that nothing else holds
# Times the median of the best cycles of all edges, which lies near 0.85 variances of one axis for a best of
# four. A single right cycle is above 21 variances with probability 1e-4.
FAR = 25
LEAST = 1e-12  # radians^2 of a cycle: rounding, which is no measure of noise
ROUGH = 1e-3  # radians: no stage before the last turns a node for less


@dataclass(frozen=True)
class Synchronization:
    """Rotations of the nodes, and how far the edges agree with them.

    Attributes:
        rotations: node to world, shape (M, 3, 3).
        residual: angles left along the edges, radians, shape (E,).
        trust: the share of its weight at which each edge counted in the end, in (0, 1], shape (E,).
        gap: `projection_gap` of each block of the relaxation, shape (M,), at most 2 up to noise: 2 for an
            anchor, and near 0 where the edges contradict each other so much that the start of the refinement
            was arbitrary.
        component: the connected component of each node, integers from 0, shape (M,). Between two of them
            nothing is known.
        scale: of the loss, in radians over the square root of a weight; infinite if it is squares.
        converged: whether the last step turned no node by more than 1e-7 radians, before the limit.
        iterations: steps of all stages.
        costs: of the final loss, before each of its steps and at the end: they decrease.
    """

    rotations: Tensor
    residual: Tensor
    trust: Tensor
    gap: Tensor
    component: Tensor
    scale: float
    converged: bool
    iterations: int
    costs: tuple[float, ...]


def synchronize_rotations(
    edges: Tensor,
    relative: Tensor,
    weights: Tensor | None = None,
    *,
    count: int | None = None,
    loss: str = "geman_mcclure",
    scale: float | None = None,
    max_iterations: int = 200,
    progress: Progress | None = None,
) -> Synchronization:
    r"""The rotations least at odds with relative ones: $R_j \approx R_i R_{ij}$.

    A local minimum of $\sum \rho(r^\top \Omega r)$ near the relaxation. "squared" has $\rho(d^2) = d^2$.
    "geman_mcclure" has $\rho = c^2 d^2 / (c^2 + d^2)$, which ignores edges that are far off: it starts from
    the edges that close a short cycle with others, by least absolute angles, then lowers c from where it
    ignores none of these to `scale`. Not differentiable.

    Args:
        edges: pairs (i, j) of different nodes, integers, shape (E, 2). The same pair may come again.
        relative: rotations $R_{ij}$ from j to i, shape (E, 3, 3).
        weights: at least 0, shape (E,), or information matrices of the rotation vector $r$ in the frame of
            j, shape (E, 3, 3): inverse variances up to a common factor. Default: 1. Where the weight is 0 the
            rotation may be NaN, and the edge connects nothing.
        count: number of nodes M; one more than the largest index if None. A node without edges is the
            identity.
        loss: a key of `LOSSES`.
        scale: c of "geman_mcclure", an edge whose distance is c counts a quarter; in radians if the weights
            are 1. If None, 8 times the deviation along one axis of the edges trusted.
        max_iterations: steps of the final loss. 0 gives the projected relaxation.
        progress: called with the number of each step and the cost before it.

    Returns:
        `Synchronization`, in the dtype and on the device of `relative`, computed in float64 on the CPU. NaN,
        infinity or a negative weight in an edge gives NaN throughout its component, and in no other.

    Raises:
        ValueError: if a shape does not fit, an index is out of range, an edge joins a node to itself, or
            `loss`, `scale` or `max_iterations` is none.
        TypeError: if an argument is not a tensor of the right kind.

    Source:
        Martinec and Pajdla, "Robust rotation and translation estimation in multiview reconstruction", CVPR
        2007 (relaxation); Carlone et al., "Initialization techniques for 3D SLAM", ICRA 2015 (projection);
        Chatterjee and Govindu, "Efficient and robust large-scale rotation averaging", ICCV 2013 (absolute
        angles, then a robust loss); Yang et al., "Graduated non-convexity for robust spatial perception",
        RA-L 5 (2020) (lowering c).
    """
    if loss not in LOSSES:
        raise ValueError(f"`loss` must be one of {', '.join(LOSSES)}; got {loss!r}.")
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"`scale` must be a positive number; got {scale!r}.")
    if max_iterations < 0:
        raise ValueError(f"`max_iterations` must be at least 0; got {max_iterations}.")
    graph = _Graph.of(edges, relative, weights, count)
    with torch.no_grad():
        blocks = _relax(graph)
        descent = _Descent(graph, special_orthogonalize(blocks), max_iterations, progress)
        LOSSES[loss](descent, scale)
        return descent.result(projection_gap(blocks), relative)


def chordal_relaxation(
    edges: Tensor, relative: Tensor, weights: Tensor | None = None, *, count: int | None = None
) -> Tensor:
    r"""The matrices for which $\sum w |R_j - R_i R_{ij}|_F^2$ is least, rotations or not.

    `special_orthogonalize` makes rotations of them, `projection_gap` says how well it can.

    Args:
        edges, relative, weights, count: as for `synchronize_rotations`; an information matrix counts as the
            mean of its diagonal.

    Returns:
        Shape (M, 3, 3), the identity at the first node of each component; not differentiable.

    Source:
        Martinec and Pajdla, CVPR 2007; Carlone et al., ICRA 2015, section III-A.
    """
    graph = _Graph.of(edges, relative, weights, count)
    with torch.no_grad():
        return graph.blank(_relax(graph)).to(relative.device, relative.dtype)


@dataclass(frozen=True)
class _Graph:
    """Checked arguments in float64 on the CPU, with nothing in them that is not finite."""

    i: Tensor
    j: Tensor
    relative: Tensor
    information: Tensor  # (E, 3, 3)
    isotropic: bool  # whether it is given as multiples of the identity
    component: Tensor
    broken: Tensor  # nodes of components with an edge that is no number
    free: Tensor  # nodes to be found: neither anchors nor broken

    @staticmethod
    def of(edges: Tensor, relative: Tensor, weights: Tensor | None, count: int | None) -> "_Graph":
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        i, j, count = _check_edges(edges, count)
        check_shape("relative", relative, 3, 3)
        if relative.shape != (len(i), 3, 3):
            raise ValueError(
                f"`relative` must have shape ({len(i)}, 3, 3), one per edge; got {tuple(relative.shape)}."
            )
        relative = relative.detach().to("cpu", torch.float64)
        information = _information(weights, len(i))
        unused = (information == 0).all(-1).all(-1)
        sound = (information.diagonal(dim1=-2, dim2=-1) >= 0).all(-1) & information.isfinite().all(-1).all(-1)
        sound = unused | (sound & relative.isfinite().all(-1).all(-1))
        used = (~unused).numpy()
        adjacency = coo_matrix((np.ones(used.sum()), (i.numpy()[used], j.numpy()[used])), (count, count))
        labels = connected_components(adjacency, directed=False)[1]
        component = torch.from_numpy(labels).long()
        anchors = torch.from_numpy(np.unique(labels, return_index=True)[1]).long()
        broken = torch.isin(component, component[i[~sound]])
        free = ~broken
        free[anchors] = False
        live = (~unused & ~broken[i])[:, None, None]
        return _Graph(
            i,
            j,
            torch.where(live, relative, torch.eye(3, dtype=torch.float64)),
            torch.where(live, information, 0),
            weights is None or weights.ndim == 1,
            component,
            broken,
            free,
        )

    @property
    def weights(self) -> Tensor:
        return self.information.diagonal(dim1=-2, dim2=-1).mean(-1)

    def isotropic_with(self, weights: Tensor) -> "_Graph":
        information = weights[:, None, None] * torch.eye(3, dtype=torch.float64)
        return replace(self, information=information, isotropic=True)

    def blank(self, rotations: Tensor) -> Tensor:
        """NaN in the broken components."""
        return torch.where(self.broken[:, None, None], torch.nan, rotations)

    def solve(self, diagonal: Tensor, across: Tensor, right: Tensor, ridge: float = 0) -> Tensor:
        """The x of a symmetric Laplacian system, shape (M, k, n), 0 where nothing is free.

        Args:
            diagonal: what each edge adds to the diagonal blocks of both of its ends, shape (E, k, k).
            across: what it adds to the block (i, j), and transposed to (j, i), shape (E, k, k).
            right: the right-hand sides, shape (M, k, n).
            ridge: added to the diagonal, times its largest entry.
        """
        from scipy.sparse import csc_matrix
        from scipy.sparse.linalg import splu

        k, n = right.shape[1:]
        solution = torch.zeros_like(right)
        size = int(self.free.sum())
        if size == 0:
            return solution
        place = torch.cumsum(self.free, 0) - 1
        at_i, at_j = self.free[self.i], self.free[self.j]
        both = at_i & at_j
        pi, pj = place[self.i], place[self.j]
        blocks = torch.cat((diagonal[at_i], diagonal[at_j], across[both], across[both].mT))
        rows = torch.cat((pi[at_i], pj[at_j], pi[both], pj[both]))
        columns = torch.cat((pi[at_i], pj[at_j], pj[both], pi[both]))
        inner = torch.arange(k)
        rows = (k * rows[:, None, None] + inner[:, None]).expand_as(blocks)
        columns = (k * columns[:, None, None] + inner).expand_as(blocks)
        entries = [x.reshape(-1).numpy() for x in (blocks, rows, columns)]
        matrix = csc_matrix((entries[0], (entries[1], entries[2])), (k * size, k * size))
        if ridge:
            matrix.setdiag(matrix.diagonal() + ridge * matrix.diagonal().max())
        # Symmetric and positive definite: no pivoting, and the ordering for symmetric patterns, with which
        # the relaxation of sphere2500 has half the fill and takes half the time of the default.
        factor = splu(
            matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        found: NDArray = factor.solve(right[self.free].reshape(k * size, n).numpy())
        solution[self.free] = torch.from_numpy(found).reshape(size, k, n)
        return solution


def _check_edges(edges: Tensor, count: int | None) -> tuple[Tensor, Tensor, int]:
    if not isinstance(edges, Tensor):
        raise TypeError(f"`edges` must be a tensor; got {type(edges).__name__}.")
    if edges.is_floating_point() or edges.is_complex() or edges.dtype == torch.bool:
        raise TypeError(f"`edges` must hold integers; got {edges.dtype}.")
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise ValueError(f"`edges` must have shape (E, 2); got {tuple(edges.shape)}.")
    i, j = edges.detach().to("cpu", torch.int64).unbind(1)
    largest = int(edges.max()) if len(i) else -1
    count = largest + 1 if count is None else count
    if len(i) and (int(edges.min()) < 0 or largest >= count):
        raise ValueError(
            f"`edges` must hold nodes from 0 to {count - 1}; got {int(edges.min())} to {largest}."
        )
    for edge in (i == j).nonzero()[:1, 0].tolist():
        raise ValueError(f"`edges` must join different nodes; edge {edge} joins {int(i[edge])} to itself.")
    return i, j, count


def _information(weights: Tensor | None, edges: int) -> Tensor:
    if weights is None:
        return torch.eye(3, dtype=torch.float64).expand(edges, 3, 3)
    check_floating("weights", weights)
    if weights.shape not in ((edges,), (edges, 3, 3)):
        raise ValueError(
            f"`weights` must have shape ({edges},) or ({edges}, 3, 3); got {tuple(weights.shape)}."
        )
    weights = weights.detach().to("cpu", torch.float64)
    return (
        torch.diag_embed(weights[:, None].expand(-1, 3)) if weights.ndim == 1 else (weights + weights.mT) / 2
    )


def _relax(graph: _Graph) -> Tensor:
    w = graph.weights[:, None, None]
    eye = torch.eye(3, dtype=torch.float64)
    across = -w * graph.relative
    # What is not free is the identity, and goes to the right-hand side.
    right = torch.zeros(len(graph.free), 3, 3, dtype=torch.float64)
    right.index_add_(0, graph.i, torch.where(graph.free[graph.j, None, None], 0, -across))
    right.index_add_(0, graph.j, torch.where(graph.free[graph.i, None, None], 0, -across.mT))
    transposed = graph.solve(w * eye, across, right)
    return torch.where(graph.free[:, None, None], transposed.mT, eye)


class _Descent:
    """Rotations on their way down. A loss takes every d^2 = r' Omega r to a cost and its slope."""

    def __init__(self, graph: _Graph, rotations: Tensor, limit: int, progress: Progress | None) -> None:
        self.graph, self.limit, self.progress = graph, limit, progress
        self.scale, self.converged, self.iterations = math.inf, False, 0
        self.costs: list[float] = []
        self.trust = torch.ones(len(graph.i), dtype=torch.float64)
        self._move_to(rotations)

    def _move_to(self, rotations: Tensor) -> None:
        g, self.rotations = self.graph, rotations
        self.residual = matrix_to_axis_angle(g.relative.mT @ rotations[g.i].mT @ rotations[g.j])[..., None]
        self.squared = (self.residual.mT @ g.information @ self.residual)[:, 0, 0]

    def start_from(self, other: "_Descent") -> None:
        self.iterations = other.iterations
        self._move_to(other.rotations)

    def step(self, loss: "Loss") -> float:
        """One step, halved until the cost is not above what it was. Returns the largest turn in radians."""
        before = self.rotations
        costs, self.trust = loss(self.squared)
        cost = costs.sum().item()
        if self.progress is not None:
            self.progress(self.iterations, cost)
        self.iterations += 1
        turn = self._turn()
        for _ in range(20):
            self._move_to(axis_angle_to_matrix(turn) @ before)
            # A sum of E costs is right to rounding only, and near the minimum they differ by less.
            if loss(self.squared)[0].sum().item() <= cost * (1 + 1e-12):
                break
            turn = turn / 2
        else:
            self._move_to(before)
            return 0.0
        return torch.linalg.vector_norm(turn, dim=-1).max().item() if len(turn) else 0.0

    def _turn(self) -> Tensor:
        """The Gauss-Newton step with the present trust, rotation vectors in the world, (M, 3)."""
        g, t = self.graph, self.trust[:, None, None]
        if g.isotropic:
            blocks = t * g.information[:, :1, :1]
            slope = blocks * (self.rotations[g.j] @ self.residual)
        else:
            a = _inverse_right_jacobian(self.residual[..., 0]) @ self.rotations[g.j].mT
            blocks = t * (a.mT @ g.information @ a)
            slope = t * (a.mT @ g.information @ self.residual)
        right = torch.zeros(len(g.free), 3, 1, dtype=torch.float64)
        right.index_add_(0, g.i, slope)
        right.index_add_(0, g.j, -slope)
        k = blocks.shape[-1]
        # The ridge holds a node none of whose edges is trusted.
        turn = g.solve(blocks, -blocks, right.reshape(-1, k, 3 // k), ridge=1e-12)
        return turn.reshape(-1, 3)

    def to_minimum(self, loss: "Loss") -> None:
        for _ in range(self.limit):
            self.costs.append(loss(self.squared)[0].sum().item())
            if self.step(loss) <= 1e-7:
                self.converged = True
                break
        costs, self.trust = loss(self.squared)
        self.costs.append(costs.sum().item())

    def result(self, gap: Tensor, like: Tensor) -> Synchronization:
        g = self.graph

        def give(x: Tensor, broken: Tensor) -> Tensor:
            return torch.where(broken, torch.nan, x).to(like.device, like.dtype)

        return Synchronization(
            g.blank(self.rotations).to(like.device, like.dtype),
            give(torch.linalg.vector_norm(self.residual[..., 0], dim=-1), g.broken[g.i]),
            give(self.trust, g.broken[g.i]),
            give(gap, g.broken),
            g.component.to(like.device),
            self.scale,
            self.converged,
            self.iterations,
            tuple(self.costs),
        )


def _inverse_right_jacobian(r: Tensor) -> Tensor:
    r"""$J_r^{-1} = I + K / 2 + (1 - \frac\theta2 \cot\frac\theta2) K^2 / \theta^2$ with $K = [r]_\times$."""
    x, y, z = r.unbind(-1)
    zero = torch.zeros_like(x)
    k = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    squared = (r * r).sum(-1)[:, None, None]
    small = squared < 1e-4  # the series is then right to 1e-16
    half = torch.where(small, 1, squared).sqrt() / 2
    closed = (1 - half * half.cos() / half.sin()) / (4 * half * half)
    series = 1 / 12 + squared / 720 + squared**2 / 30240
    return torch.eye(3, dtype=r.dtype) + k / 2 + torch.where(small, series, closed) * (k @ k)


Loss = Callable[[Tensor], tuple[Tensor, Tensor]]


def _squares(descent: _Descent, scale: float | None) -> None:
    descent.to_minimum(lambda squared: (squared, torch.ones_like(squared)))


def _graduated_geman_mcclure(descent: _Descent, scale: float | None) -> None:
    graph = descent.graph
    used = graph.weights > 0
    if descent.limit == 0 or not used.any():
        return
    # The way down is by weights that are numbers: with information matrices a step takes ten times as long.
    start, sure = _believe(graph, used)
    faith = torch.where(sure, 1.0, DOUBTED).double()
    rough = _Descent(graph.isotropic_with(graph.weights), start, descent.limit, descent.progress)

    def faithful(loss: Loss) -> Loss:
        def share(squared: Tensor) -> tuple[Tensor, Tensor]:
            costs, slopes = loss(squared)
            return faith * costs, faith * slopes

        return share

    for _ in range(20):
        if rough.step(faithful(_absolute(rough.squared[sure].median() / 16))) <= ROUGH:
            break
    # Rounding leaves angles of 1e-15 where there is no noise: below 1e-6 radians nothing is told apart.
    least = 1e-12 * graph.weights[used].mean().item()

    def wanted(descent: _Descent, edges: Tensor) -> float:
        return scale**2 if scale is not None else max(least, 64 * _variance(descent, edges))

    # While outliers still pull, the median is too large, and c would come to rest far above 8 deviations:
    # with 30 % of the loops of sphere2500 at random at 1.4 instead of 0.16. So lower, and then up again.
    c_squared, overshoot = 2 * rough.squared[sure].max().item(), 1.0 if scale is not None else 0.1
    while c_squared > max(least, overshoot * wanted(rough, sure)):
        rough.step(faithful(_geman_mcclure(c_squared)))
        c_squared /= 1.4
    descent.start_from(rough)
    for _ in range(0 if scale is not None else 12):
        if descent.step(_geman_mcclure(wanted(descent, used))) <= ROUGH:
            break
    c_squared = wanted(descent, used)
    descent.scale = math.sqrt(c_squared)
    descent.to_minimum(_geman_mcclure(c_squared))


def _believe(graph: _Graph, used: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations by the edges that their cycles do not contradict, and which these are.

    A right edge all of whose short cycles have a wrong one in them looks wrong, too. So there is a second
    look at those that do, at the cycles through whatever the others hold together.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    def best(some: Tensor, i: Tensor, j: Tensor, relative: Tensor) -> Tensor:
        values = torch.full((len(some),), torch.inf, dtype=torch.float64)
        values[some] = best_cycles(i[some], j[some], relative[some], graph.weights[some])
        return values

    def relaxed(sure: Tensor) -> Tensor:
        weights = torch.where(sure, 1.0, DOUBTED) * graph.weights
        return special_orthogonalize(_relax(graph.isotropic_with(weights)))

    found = best(used, graph.i, graph.j, graph.relative)
    checked = found.isfinite()
    if not checked.any():
        return relaxed(used), used
    limit = max(FAR * found[checked].median().item(), LEAST * graph.weights[used].mean().item())
    doubt = checked & (found > limit)
    rotations = relaxed(used & ~doubt)
    if doubt.any():
        held = (used & ~doubt).numpy()
        count, ends = len(graph.free), (graph.i.numpy()[held], graph.j.numpy()[held])
        adjacency = coo_matrix((np.ones(held.sum()), ends), (count, count))
        part = torch.from_numpy(connected_components(adjacency, directed=False)[1]).long()
        i, j = part[graph.i], part[graph.j]
        turned = rotations[graph.i] @ graph.relative @ rotations[graph.j].mT
        doubt &= ~(best(doubt & (i != j), i, j, turned) <= limit)
        rotations = relaxed(used & ~doubt)
    return rotations, used & ~doubt


def _variance(descent: _Descent, used: Tensor) -> float:
    """Of the noise in one axis, by the median of d^2, which nearly half the edges may spoil.

    2.366 is the median of chi squared with 3 degrees of freedom, and a fit of F free nodes leaves E edges
    the share 1 - F / E of their noise: none to a tree.
    """
    edges, nodes = int(used.sum()), int(descent.graph.free.sum())
    left = 1 - nodes / edges
    return descent.squared[used].median().item() / (2.366 * left) if left > 0 else 0.0


def _geman_mcclure(c_squared: float) -> Loss:
    def loss(squared: Tensor) -> tuple[Tensor, Tensor]:
        share = c_squared / (c_squared + squared)
        return squared * share, share * share

    return loss


def _absolute(smallest: Tensor) -> Loss:
    def loss(squared: Tensor) -> tuple[Tensor, Tensor]:
        distance = (squared + smallest).clamp_min(torch.finfo(squared.dtype).tiny).sqrt()
        return 2 * distance, 1 / distance

    return loss


LOSSES: dict[str, Callable[[_Descent, float | None], None]] = {
    "squared": _squares,
    "geman_mcclure": _graduated_geman_mcclure,
}
