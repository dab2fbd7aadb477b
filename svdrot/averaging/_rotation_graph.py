r"""Graphs of relative rotations, sparse systems of equations on them, and the one of the relaxation.

Without the constraint that $R_i$ be rotations, $\sum w |R_j - R_i R_{ij}|_F^2$ is least where a
sparse linear system with three right-hand sides says, in the unknowns $X_i = R_i^\top$: at each free j the
sum of $w (X_j - R_{ij}^\top X_i)$ over its edges is zero, and likewise at each free i. Far from its anchor a
block shrinks, and its nearest rotation is still good.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot._checks import check_floating, check_shape


@dataclass(frozen=True)
class Graph:
    """Hold checked arguments in float64 on the CPU, with nothing in them that is not finite."""

    i: Tensor
    j: Tensor
    relative: Tensor
    information: Tensor  # (E, 3, 3)
    isotropic: bool  # whether it is given as multiples of the identity
    component: Tensor
    broken: Tensor  # nodes of components with an edge that is no number
    free: Tensor  # nodes to be found: neither anchors nor broken

    @staticmethod
    def of(edges: Tensor, relative: Tensor, weights: Tensor | None, count: int | None) -> "Graph":
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
        sound = _is_semidefinite(information)
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
        return Graph(
            i,
            j,
            torch.where(live, relative, torch.eye(3, dtype=torch.float64, device="cpu")),
            torch.where(live, information, 0),
            weights is None or weights.ndim == 1,
            component,
            broken,
            free,
        )

    @property
    def weights(self) -> Tensor:
        return self.information.diagonal(dim1=-2, dim2=-1).mean(-1)

    def isotropic_with(self, weights: Tensor) -> "Graph":
        information = weights[:, None, None] * torch.eye(3, dtype=torch.float64, device="cpu")
        return replace(self, information=information, isotropic=True)

    def blank(self, rotations: Tensor) -> Tensor:
        """Return the rotations with NaN in the broken components."""
        return torch.where(self.broken[:, None, None], torch.nan, rotations)

    def solve(self, diagonal: Tensor, across: Tensor, right: Tensor, ridge: float = 0) -> Tensor:
        """Return the x of a symmetric Laplacian system, shape (M, k, n), 0 where nothing is free.

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
        # Unknowns are numbered by the free nodes alone, in their order. Each edge has up to four blocks
        # (k, k): those on the diagonal at its free ends, and the two across if both ends are free.
        place = torch.cumsum(self.free, 0) - 1
        at_i, at_j = self.free[self.i], self.free[self.j]
        both = at_i & at_j
        pi, pj = place[self.i], place[self.j]
        blocks = torch.cat((diagonal[at_i], diagonal[at_j], across[both], across[both].mT))
        rows = torch.cat((pi[at_i], pj[at_j], pi[both], pj[both]))
        columns = torch.cat((pi[at_i], pj[at_j], pj[both], pi[both]))
        # Entry (a, b) of block (p, q) is at (k p + a, k q + b); scipy adds entries of the same place.
        inner = torch.arange(k, device="cpu")
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


def _is_semidefinite(information: Tensor) -> Tensor:
    """Tell which (..., 3, 3) are finite, with no eigenvalue that is negative beyond rounding: (...)."""
    finite = information.isfinite().all(-1).all(-1)
    eigenvalues = torch.linalg.eigvalsh(torch.where(finite[..., None, None], information, 0))
    return finite & (eigenvalues[..., 0] >= -64 * torch.finfo(torch.float64).eps * eigenvalues[..., -1].abs())


def _information(weights: Tensor | None, edges: int) -> Tensor:
    if weights is None:
        return torch.eye(3, dtype=torch.float64, device="cpu").expand(edges, 3, 3)
    check_floating("weights", weights)
    if weights.shape not in ((edges,), (edges, 3, 3)):
        raise ValueError(
            f"`weights` must have shape ({edges},) or ({edges}, 3, 3); got {tuple(weights.shape)}."
        )
    weights = weights.detach().to("cpu", torch.float64)
    return (
        torch.diag_embed(weights[:, None].expand(-1, 3)) if weights.ndim == 1 else (weights + weights.mT) / 2
    )


def relaxation(graph: Graph) -> Tensor:
    w = graph.weights[:, None, None]
    eye = torch.eye(3, dtype=torch.float64, device="cpu")
    across = -w * graph.relative
    # What is not free is the identity, and goes to the right-hand side.
    right = torch.zeros(len(graph.free), 3, 3, dtype=torch.float64, device="cpu")
    right.index_add_(0, graph.i, torch.where(graph.free[graph.j, None, None], 0, -across))
    right.index_add_(0, graph.j, torch.where(graph.free[graph.i, None, None], 0, -across.mT))
    transposed = graph.solve(w * eye, across, right)
    return torch.where(graph.free[:, None, None], transposed.mT, eye)
