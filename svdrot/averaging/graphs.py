r"""Rotations of the nodes of a graph from noisy relative rotations along its edges.

Convention: $R_i$ takes coordinates of node i to those of the world, and the edge (i, j) measures $R_{ij} =
R_i^\top R_j$, which takes coordinates of j to those of i, so that $R_j = R_i R_{ij}$. This is the EDGE_SE3
of g2o and the camera-to-world convention. For world-to-camera matrices $Q_i = R_i^\top$ with relative ones
$Q_{ij} = Q_j Q_i^\top$, as structure from motion has them, give `relative = Q_ij.mT` and take
`rotations.mT`.

Everything is known up to one rotation of the world for each connected component, and the node of the lowest
index in it is the identity. The start is the projected relaxation (`_rotation_graph`), the refinement a
descent from there (`_rotation_descent`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from svdrot._checks import check_choice
from svdrot._robust_kernels import KERNELS
from svdrot._stand_ins import takes_arrays
from svdrot.averaging._cycles import best_cycles
from svdrot.averaging._rotation_descent import Descent, Loss, Progress, absolute, robust
from svdrot.averaging._rotation_graph import Graph, relaxation
from svdrot.projection import projection_gap, special_orthogonalize

DOUBTED = 1e-4  # what a doubtful edge counts at first: it holds a node that nothing else holds
# Times the median of the best cycles of all edges, which lies near 0.85 variances of one axis for a best of
# four. A single right cycle is above 21 variances with probability 1e-4.
FAR = 25
LEAST = 1e-12  # radians^2 of a cycle: rounding, which is no measure of noise
ROUGH = 1e-3  # radians: no stage before the last turns a node for less


@dataclass(frozen=True)
class Synchronization:
    """Describe the rotations of the nodes, and how far the edges agree with them.

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

    Example:
        >>> import torch, svdrot
        >>> edges = torch.tensor([[0, 1], [1, 2], [3, 4]])
        >>> relative = svdrot.random_rotation(3, generator=torch.Generator().manual_seed(0))
        >>> found = svdrot.averaging.synchronize_rotations(edges, relative, loss="squared")
        >>> found.component, found.converged
        (tensor([0, 0, 0, 1, 1]), True)
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


@takes_arrays
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
    r"""Find the rotations of nodes least at odds with relative ones along edges: $R_j \approx R_i R_{ij}$.

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
        loss: "squared" or "geman_mcclure", a key of `LOSSES`.
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

    Example:
        >>> import torch, svdrot
        >>> truth = svdrot.random_rotation(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> edges = torch.combinations(torch.arange(6))
        >>> relative = truth[edges[:, 0]].mT @ truth[edges[:, 1]]
        >>> relative[0] = torch.eye(3)  # a wrong one
        >>> found = svdrot.averaging.synchronize_rotations(edges, relative)
        >>> torch.allclose(truth[0] @ found.rotations, truth), bool(found.trust[0] < 0.01)
        (True, True)
    """
    check_choice("loss", loss, LOSSES)
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"`scale` must be a positive number; got {scale!r}.")
    if max_iterations < 0:
        raise ValueError(f"`max_iterations` must be at least 0; got {max_iterations}.")
    graph = Graph.of(edges, relative, weights, count)
    with torch.no_grad():
        blocks = relaxation(graph)
        descent = Descent(graph, special_orthogonalize(blocks), max_iterations, progress)
        if (graph.weights > 0).any():
            LOSSES[loss](descent, scale)
        else:
            descent.converged = True
        return _result(descent, projection_gap(blocks), relative)


def chordal_relaxation(
    edges: Tensor, relative: Tensor, weights: Tensor | None = None, *, count: int | None = None
) -> Tensor:
    r"""Return the matrices for which $\sum w |R_j - R_i R_{ij}|_F^2$ is least, rotations or not.

    `special_orthogonalize` makes rotations of them, `projection_gap` says how well it can.

    Args:
        edges, relative, count: see `synchronize_rotations`.
        weights: likewise; an information matrix counts as the mean of its diagonal.

    Returns:
        Shape (M, 3, 3), the identity at the first node of each component; not differentiable.

    Source:
        Martinec and Pajdla, CVPR 2007; Carlone et al., ICRA 2015, section III-A.
    """
    graph = Graph.of(edges, relative, weights, count)
    with torch.no_grad():
        return graph.blank(relaxation(graph)).to(relative.device, relative.dtype)


def _result(descent: Descent, gap: Tensor, like: Tensor) -> Synchronization:
    g = descent.graph

    def give(x: Tensor, broken: Tensor) -> Tensor:
        return torch.where(broken, torch.nan, x).to(like.device, like.dtype)

    return Synchronization(
        g.blank(descent.rotations).to(like.device, like.dtype),
        give(torch.linalg.vector_norm(descent.residual[..., 0], dim=-1), g.broken[g.i]),
        give(descent.trust, g.broken[g.i]),
        give(gap, g.broken),
        g.component.to(like.device),
        descent.scale,
        descent.converged,
        descent.iterations,
        tuple(descent.costs),
    )


def _squares(descent: Descent, scale: float | None) -> None:
    descent.to_minimum(lambda squared: (squared, torch.ones_like(squared)))


def _graduated_geman_mcclure(descent: Descent, scale: float | None) -> None:
    graph, kernel = descent.graph, KERNELS["geman_mcclure"]
    used = graph.weights > 0
    if descent.limit == 0:
        return
    # The way down is by weights that are numbers: with information matrices a step takes ten times as long.
    start, sure = _believe(graph, used)
    faith = torch.where(sure, 1.0, DOUBTED).double()
    rough = Descent(graph.isotropic_with(graph.weights), start, descent.limit, descent.progress)

    def faithful(loss: Loss) -> Loss:
        def share(squared: Tensor) -> tuple[Tensor, Tensor]:
            costs, slopes = loss(squared)
            return faith * costs, faith * slopes

        return share

    for _ in range(20):
        if rough.step(faithful(absolute(rough.squared[sure].median() / 16))) <= ROUGH:
            break
    # Rounding leaves angles of 1e-15 where there is no noise: below 1e-6 radians nothing is told apart.
    least = 1e-12 * graph.weights[used].mean().item()

    def wanted(descent: Descent, edges: Tensor) -> float:
        return scale**2 if scale is not None else max(least, 64 * _variance(descent, edges))

    # While outliers still pull, the median is too large, and c would come to rest far above 8 deviations:
    # with 30 % of the loops of sphere2500 at random at 1.4 instead of 0.16. So lower, and then up again.
    c_squared, overshoot = 2 * rough.squared[sure].max().item(), 1.0 if scale is not None else 0.1
    while c_squared > max(least, overshoot * wanted(rough, sure)):
        rough.step(faithful(robust(kernel, c_squared)))
        c_squared /= 1.4
    descent.start_from(rough)
    for _ in range(0 if scale is not None else 12):
        if descent.step(robust(kernel, wanted(descent, used))) <= ROUGH:
            break
    c_squared = wanted(descent, used)
    descent.scale = math.sqrt(c_squared)
    descent.to_minimum(robust(kernel, c_squared))


def _believe(graph: Graph, used: Tensor) -> tuple[Tensor, Tensor]:
    """Return rotations by the edges that their cycles do not contradict, and which these are.

    A right edge all of whose short cycles have a wrong one in them looks wrong, too. So there is a second
    look at those that do, at the cycles through whatever the others hold together.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    def best(some: Tensor, i: Tensor, j: Tensor, relative: Tensor) -> Tensor:
        values = torch.full((len(some),), torch.inf, dtype=torch.float64, device="cpu")
        values[some] = best_cycles(i[some], j[some], relative[some], graph.weights[some])
        return values

    def relaxed(sure: Tensor) -> Tensor:
        weights = torch.where(sure, 1.0, DOUBTED) * graph.weights
        return special_orthogonalize(relaxation(graph.isotropic_with(weights)))

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


def _variance(descent: Descent, used: Tensor) -> float:
    """Estimate the variance of the noise in one axis, by the median of d^2.

    Nearly half of the edges may be wrong. 2.366 is the median of chi squared with 3 degrees of freedom, and a
    fit of F free nodes leaves E edges the share 1 - F / E of their noise: none to a tree.
    """
    edges, nodes = int(used.sum()), int(descent.graph.free.sum())
    left = 1 - nodes / edges
    return descent.squared[used].median().item() / (2.366 * left) if left > 0 else 0.0


LOSSES: dict[str, Callable[[Descent, float | None], None]] = {
    "squared": _squares,
    "geman_mcclure": _graduated_geman_mcclure,
}
