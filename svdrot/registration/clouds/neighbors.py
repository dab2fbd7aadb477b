"""Nearest neighbors among points: a tree of boxes on CPU, all pairs in one fused pass on GPU."""

import math

import numpy as np
import torch
from torch import Tensor

from svdrot import _kernels
from svdrot._checks import check_floating, check_mask, check_whole, common_batch
from svdrot._formulas.geometry.points import distance
from svdrot._kernels import cpu
from svdrot._kernels.cpu.loops.neighbors import LEAF, SCRATCH
from svdrot._rules import batch_first, joined, parted
from svdrot._stand_ins import takes_arrays
from svdrot.engine.door import is_constant


@takes_arrays
def nearest(
    query: Tensor,
    points: Tensor,
    k: int = 1,
    max_distance: float | None = None,
    *,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the distances and the indices of the k points nearest to each query, nearest first.

    Of points equally near any may come first, always the same one; on GPU the one of the smallest index. On
    CPU a tree is made for each cloud: `Neighbors` keeps it. No matrix of all pairs is ever in memory.

    Args:
        query: shape (..., N, d), any floating dtype. NaN or infinity: such a query has no neighbors.
        points: shape (..., M, d); batch dimensions broadcast. Such points are nobody's neighbors.
        k: at least 1.
        max_distance: how far neighbors may be, included, in the units of the points. Default: any distance.
        mask: boolean, shape (..., M): points that count.

    Returns:
        distances: shape (..., N, k), without the last dimension if k = 1, infinite where there is no
            neighbor. Gradients reach query and points, with the choice of neighbors held fixed; that of a
            distance of 0 is 0.
        indices: of the same shape, into `points`; M where there is no neighbor.

    Raises:
        ValueError: if shapes do not fit, k < 1 or max_distance < 0.
        TypeError: if an argument is not a tensor of the right kind.

    Example:
        >>> import torch, svdrot
        >>> points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
        >>> query = torch.tensor([[0.0, 1.0], [100.0, 0.0]])
        >>> svdrot.registration.nearest(query, points, max_distance=10)
        (tensor([1., inf]), tensor([0, 3]))
    """
    check_floating("query", query)
    check_floating("points", points)
    if query.ndim < 2 or points.ndim < 2 or query.shape[-1] != points.shape[-1] or query.shape[-1] == 0:
        shapes = f"{tuple(query.shape)} and {tuple(points.shape)}"
        raise ValueError(f"`query` and `points` must have shapes (..., N, d) and (..., M, d); got {shapes}.")
    if mask is not None:
        check_mask("mask", mask, points.shape[-2])
        common_batch(points=points.shape[:-2], mask=mask.shape[:-1])
        points = torch.where(mask[..., None], points, torch.nan)
    dtype = torch.promote_types(query.dtype, points.dtype)
    batch = common_batch(query=query.shape[:-2], points=points.shape[:-2])
    size, (n, d), m = math.prod(batch), query.shape[-2:], points.shape[-2]
    x = query.to(dtype).expand(*batch, n, d).reshape(size, n, d)
    y = points.to(dtype).expand(*batch, m, d).reshape(size, m, d)
    constant = is_constant((x, y))
    search = _search_batch if constant else _Search.apply
    distances, indices = search(x, y, *_checked(k, max_distance))
    if not constant:
        distances = _differentiable(x, y, distances, indices)
    shape = (*batch, n) if k == 1 else (*batch, n, k)
    return distances.reshape(shape), indices.reshape(shape)


class Neighbors:
    """Make a cloud ready once for many queries: `query` is `nearest` without batch and gradients.

    In space and on lines and planes, on CPU, the tree is our own; of more dimensions it is scipy's. On GPU
    there is none.

    Args:
        points: shape (M, d), d >= 1, any floating dtype. Those that are not finite are nobody's neighbors.

    Raises:
        ValueError: if the shape is another.
        TypeError: if `points` is not a floating-point tensor.

    Example:
        >>> import torch, svdrot
        >>> tree = svdrot.registration.Neighbors(torch.tensor([[0.0], [1.0], [5.0]]))
        >>> tree.query(torch.tensor([[4.0], [0.25]]))
        (tensor([1.0000, 0.2500]), tensor([2, 0]))
    """

    @takes_arrays
    def __init__(self, points: Tensor):
        check_floating("points", points)
        if points.ndim != 2 or points.shape[1] == 0:
            raise ValueError(f"`points` must have shape (M, d); got {tuple(points.shape)}.")
        self._points = points.detach()
        self.tree: _Boxes | None = None
        if _kernels.side(points) == "gpu":
            self._search = self._try_all
        elif points.shape[1] <= 3:
            self.tree = _Boxes(self._points.cpu())
            self._search = self.tree.search
        else:
            self._search = _halves(self._points.cpu())

    @property
    def points(self) -> Tensor:
        """Return the cloud, shape (M, d)."""
        return self._points

    @takes_arrays
    def query(self, query: Tensor, k: int = 1, max_distance: float | None = None) -> tuple[Tensor, Tensor]:
        """Return the distances and the indices of the k points nearest to each query, nearest first.

        Args:
            query: shape (N, d), any floating dtype.
            k: at least 1.
            max_distance: how far neighbors may be, included, in the units of the points. Any distance if
            None.

        Returns:
            distances: shape (N, k), (N,) if k = 1; infinite where there is no neighbor. Not differentiable.
            indices: of the same shape; M where there is no neighbor.

        Raises:
            ValueError: if the shape does not fit, k < 1 or max_distance < 0.
            TypeError: if `query` is not a floating-point tensor.

        Example:
            >>> import torch, svdrot
            >>> tree = svdrot.registration.Neighbors(torch.tensor([[0.0], [1.0], [5.0]]))
            >>> tree.query(torch.tensor([[4.0]]), k=2)
            (tensor([[1., 3.]]), tensor([[2, 1]]))
        """
        check_floating("query", query)
        d = self._points.shape[1]
        if query.ndim != 2 or query.shape[1] != d:
            raise ValueError(f"`query` must have shape (N, {d}); got {tuple(query.shape)}.")
        where = query if _kernels.side(query) == "gpu" else query.cpu()
        distances, indices = self._search(where.detach(), *_checked(k, max_distance))
        dtype = torch.promote_types(query.dtype, self._points.dtype)
        distances, indices = distances.to(query.device, dtype), indices.to(query.device)
        return (distances[:, 0], indices[:, 0]) if k == 1 else (distances, indices)

    def _try_all(self, query: Tensor, k: int, limit: float) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(query.dtype, self._points.dtype)
        both = query[None].to(dtype), self._points[None].to(dtype)
        distances, indices = _kernels.select_neighbors(query).nearest(*both, k, limit)
        return distances[0], indices[0]


def _checked(k: int, max_distance: float | None) -> tuple[int, float]:
    k = check_whole("k", k)
    limit = math.inf if max_distance is None else max_distance
    if not limit >= 0:
        raise ValueError(f"`max_distance` must be at least 0; got {max_distance}.")
    return k, float(limit)


class _Search(torch.autograd.Function):
    """Search, without a derivative: a Function for the sake of transforms, whose wrappers have no memory."""

    @staticmethod
    def forward(x, y, k, limit):
        return _search_batch(x, y, k, limit)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx, *_):
        return None, None, None, None

    @staticmethod
    def jvp(ctx, *_):
        return None, None

    @staticmethod
    def vmap(info, in_dims, x, y, k, limit):
        x, y = batch_first(info, in_dims, x, y)
        found = _Search.apply(joined(x), joined(y), k, limit)
        return tuple(parted(t, *x.shape[:2]) for t in found), (0, 0)


def _search_batch(x: Tensor, y: Tensor, k: int, limit: float) -> tuple[Tensor, Tensor]:
    if _kernels.side(x) == "gpu":
        return _kernels.select_neighbors(x).nearest(x, y, k, limit)
    distances = x.new_empty(*x.shape[:2], k)
    indices = torch.empty_like(distances, dtype=torch.long)
    for i in range(len(x)):
        found = Neighbors(y[i]).query(x[i], k, limit)
        distances[i], indices[i] = (value.view(-1, k) for value in found)
    return distances, indices


def _differentiable(x: Tensor, y: Tensor, distances: Tensor, indices: Tensor) -> Tensor:
    """Return the same distances, as functions of the points."""
    (size, n, k), d = indices.shape, x.shape[-1]
    smooth = distances.isfinite() & (distances > 0)
    if y.shape[1] == 0:
        return distances
    # Row k q + j of `chosen` is neighbor j of query q; where there is none, any point: it is not used.
    chosen = torch.where(smooth, indices, 0).reshape(size, n * k, 1).expand(-1, -1, d)
    partners = torch.gather(y, 1, chosen).reshape(size, n, k, d)
    if d == 3:
        return torch.where(smooth, distance(x[:, :, None], partners), distances)
    difference = x[:, :, None] - partners
    return torch.where(smooth, torch.where(smooth[..., None], difference, 1).norm(dim=-1), distances)


class _Boxes:
    """Hold the tree of `svdrot._kernels.cpu.loops.neighbors`, of the finite points."""

    def __init__(self, points: Tensor):
        self.size = len(points)
        finite = points.isfinite().all(-1)
        (order,) = torch.nonzero(finite, as_tuple=True)
        points = points if len(order) == len(points) else points[finite]
        self.points = _in_space(points)
        self.depth = 2 * max(0, math.ceil(math.log(max(1, len(order)) / LEAF, 4)))
        self.boxes = cpu.empty((max(4, 2 << self.depth), 6), torch.float64)
        if len(order):
            plant = cpu.load("plant", torch.float64)
            plant(self.points.data_ptr(), order.data_ptr(), self.boxes.data_ptr(), len(order), self.depth)
        order = torch.cat((order, order.new_full((1,), self.size)))  # the last is of what is not found
        self.parts = (self.points, self.boxes, order, len(self.points), self.depth)

    def all_in_order(self) -> Tensor:
        """Return the indices of all points, near ones near each other; last what is not finite."""
        order = self.parts[2][:-1]
        absent = torch.ones(self.size, dtype=torch.bool, device="cpu")
        absent[order] = False
        return torch.cat((order, absent.nonzero()[:, 0]))

    def search(self, query: Tensor, k: int, limit: float) -> tuple[Tensor, Tensor]:
        n, shape = len(self.points), (len(query), k)
        if not n:
            return self.points.new_full(shape, math.inf), self.parts[2].new_full(shape, self.size)
        distances, indices = self.points.new_empty(shape), self.parts[2].new_empty(shape)
        queries, below = _in_space(query), _below(limit)
        arguments = (*self.parts, queries, k, below, distances, indices)
        cpu.run_rows("search", torch.float64, len(query), 72, arguments, SCRATCH, 1)
        return distances, indices


class Followed:
    """Find the nearest neighbors of one cloud that moves step by step.

    Exactly those of `Neighbors.query` with k = 1. On CPU, what moved too little to change its neighbor is
    not searched for: thirty iterations of ICP take 15 to 50 % less time.
    """

    def __init__(self, neighbors: Neighbors, max_distance: float):
        self.neighbors, self._limit = neighbors, max_distance
        self._memory: tuple[Tensor, Tensor, Tensor] | None = None
        self._turns: Tensor

    def query(self, cloud: Tensor, rotation: Tensor, translation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return where a motion takes a cloud, and the neighbors of its points there.

        Args:
            cloud: shape (N, 3), float64, the same one in every call.
            rotation: of the motion from where the cloud lies, (3, 3).
            translation: likewise, (3,).

        Returns:
            The points there (N, 3), the distances of their neighbors (N,), and the indices of these (N,).
        """
        cloud = cloud.contiguous()  # before memory is made like it
        tree = self.neighbors.tree
        if tree is None or not len(tree.points):
            moved = cloud @ rotation.mT + translation
            return moved, *self.neighbors.query(moved, 1, self._limit)
        if self._memory is None:
            places = torch.full((len(cloud), 2), len(tree.points), device="cpu")
            self._memory = torch.empty_like(cloud), torch.empty_like(cloud[:, 0]), places
            self._turns = _Boxes(cloud).all_in_order()
        moved, distances, indices = (torch.empty_like(x) for x in (cloud, cloud[:, 0], self._memory[2][:, 0]))
        queries = cloud, self._turns
        motion = rotation.contiguous(), translation.contiguous(), _below(self._limit)
        arguments = (*tree.parts, *queries, *motion, *self._memory, moved, distances, indices)
        cpu.run_rows("follow", torch.float64, len(cloud), 72, arguments, SCRATCH, 1)
        return moved, distances, indices


def _below(limit: float) -> float:
    """Return the number that squares of distances up to the limit are less than."""
    return math.inf if math.isinf(limit) else float(np.nextafter(limit * limit, math.inf))


def _in_space(points: Tensor) -> Tensor:
    """Copy to float64, with zeros for the coordinates that points of a plane or a line lack."""
    copy = points.new_zeros(len(points), 3, dtype=torch.float64)
    copy[:, : points.shape[1]] = points
    return copy


def _halves(points: Tensor):
    """Return a search by scipy's k-d tree."""
    from scipy.spatial import KDTree  # 0.1 s that `import svdrot` does not spend

    finite = points.isfinite().all(-1)
    (order,) = torch.nonzero(finite, as_tuple=True)
    order = torch.cat((order, order.new_full((1,), len(points))))
    tree = KDTree(points[finite].double().numpy())

    def search(query: Tensor, k: int, limit: float) -> tuple[Tensor, Tensor]:
        live = query.isfinite().all(-1)
        distances = torch.full((len(query), k), math.inf, dtype=torch.float64, device="cpu")
        places = torch.full((len(query), k), len(order) - 1, device="cpu")
        if len(order) > 1 and live.any():
            bound = 2 * limit + 1e-150  # which the tree excludes, and whose square must not be 0
            workers = torch.get_num_threads()
            near, at = tree.query(
                query[live].double().numpy(), k, distance_upper_bound=bound, workers=workers
            )
            within = near <= limit
            distances[live] = torch.from_numpy(np.where(within, near, math.inf)).view(-1, k)
            places[live] = torch.from_numpy(np.where(within, at, len(order) - 1)).view(-1, k)
        return distances, order[places]

    return search
