r"""Descent of the rotations of a graph on a robust cost, by Gauss and Newton.

With residuals $r = \log(R_{ij}^\top R_i^\top R_j)$ and $R_i \leftarrow \exp(\omega_i) R_i$, $r$ changes
by $A (\omega_j - \omega_i)$, $A = J_r^{-1}(r) R_j^\top$, with the right Jacobian $J_r$ of SO(3). A step of
Gauss-Newton on $\sum \rho(r^\top \Omega r)$ solves the Laplacian system with blocks $\rho' A^\top
\Omega A$. Where $\Omega = w I$, $A^\top \Omega r = w R_j r$ exactly, and the blocks are taken as $\rho' w I$,
which no curvature of the squared angle exceeds: the system falls apart into three of the size of the graph
with one matrix.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from svdrot._robust_kernels import RobustKernel
from svdrot.averaging._rotation_graph import Graph
from svdrot.representations import axis_angle_to_matrix, matrix_to_axis_angle

Progress = Callable[[int, float], None]
Loss = Callable[[Tensor], tuple[Tensor, Tensor]]


class Descent:
    """Move rotations down a loss, which takes every d^2 = r' Omega r to a cost and its slope."""

    def __init__(self, graph: Graph, rotations: Tensor, limit: int, progress: Progress | None) -> None:
        self.graph, self.limit, self.progress = graph, limit, progress
        self.scale, self.converged, self.iterations = math.inf, False, 0
        self.costs: list[float] = []
        self.trust = torch.ones(len(graph.i), dtype=torch.float64, device="cpu")
        self._move_to(rotations)

    def _move_to(self, rotations: Tensor) -> None:
        g, self.rotations = self.graph, rotations
        self.residual = matrix_to_axis_angle(g.relative.mT @ rotations[g.i].mT @ rotations[g.j])[..., None]
        self.squared = (self.residual.mT @ g.information @ self.residual)[:, 0, 0]

    def start_from(self, other: "Descent") -> None:
        self.iterations = other.iterations
        self._move_to(other.rotations)

    def step(self, loss: Loss) -> float:
        """Take a step, halved until the cost is not above what it was; return the largest turn in radians."""
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
        """Return the Gauss-Newton step with the present trust, rotation vectors in the world, (M, 3)."""
        g, t = self.graph, self.trust[:, None, None]
        if g.isotropic:
            blocks = t * g.information[:, :1, :1]
            slope = blocks * (self.rotations[g.j] @ self.residual)
        else:
            a = inverse_right_jacobian(self.residual[..., 0]) @ self.rotations[g.j].mT
            blocks = t * (a.mT @ g.information @ a)
            slope = t * (a.mT @ g.information @ self.residual)
        right = torch.zeros(len(g.free), 3, 1, dtype=torch.float64, device="cpu")
        right.index_add_(0, g.i, slope)
        right.index_add_(0, g.j, -slope)
        k = blocks.shape[-1]
        # The ridge holds a node none of whose edges is trusted.
        turn = g.solve(blocks, -blocks, right.reshape(-1, k, 3 // k), ridge=1e-12)
        return turn.reshape(-1, 3)

    def to_minimum(self, loss: Loss) -> None:
        for _ in range(self.limit):
            self.costs.append(loss(self.squared)[0].sum().item())
            if self.step(loss) <= 1e-7:
                self.converged = True
                break
        costs, self.trust = loss(self.squared)
        self.costs.append(costs.sum().item())


def inverse_right_jacobian(r: Tensor) -> Tensor:
    r"""Return the inverse of the right Jacobian of SO(3) at rotation vectors r, shape (..., 3, 3).

    $J_r^{-1} = I + K / 2 + (1 - \frac\theta2 \cot\frac\theta2) K^2 / \theta^2$ with $K = [r]_\times$.
    """
    x, y, z = r.unbind(-1)
    zero = torch.zeros_like(x)
    k = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    squared = (r * r).sum(-1)[:, None, None]
    small = squared < 1e-4  # the series is then right to 1e-16
    half = torch.where(small, 1, squared).sqrt() / 2
    closed = (1 - half * half.cos() / half.sin()) / (4 * half * half)
    series = 1 / 12 + squared / 720 + squared**2 / 30240
    return torch.eye(3, dtype=r.dtype, device="cpu") + k / 2 + torch.where(small, series, closed) * (k @ k)


def robust(kernel: RobustKernel, c_squared: float) -> Loss:
    def loss(squared: Tensor) -> tuple[Tensor, Tensor]:
        q = squared / c_squared
        return c_squared * kernel.cost(q), kernel.weight(q)

    return loss


def absolute(smallest: Tensor) -> Loss:
    def loss(squared: Tensor) -> tuple[Tensor, Tensor]:
        distance = (squared + smallest).clamp_min(torch.finfo(squared.dtype).tiny).sqrt()
        return 2 * distance, 1 / distance

    return loss
