"""Surfaces behind clouds of points: one point per voxel, normals, and the covariances of neighborhoods."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from svdrot._checks import check_floating, check_positive, check_shape, check_whole, common_batch
from svdrot._stand_ins import takes_arrays
from svdrot.registration.clouds.neighbors import Neighbors

# (Width² - thickness²) / length² of a line, which has no normal: the eigenvalues of one are exact to 2e-8.
LINE = 1e-7
BORDER = 0.42  # of the root mean square distance of neighbors: where their middle is so far, a surface ends
SOME = 100  # points by which the noise of normals is judged
BLOCK = 2048  # points at a time
FULL = torch.tensor([[0, 1, 2], [1, 3, 4], [2, 4, 5]], device="cpu")  # of the entries xx, xy, xz, yy, yz, zz
COPIES = 4  # of a k-th of its neighbors in its own place a point has too many copies


@takes_arrays
def voxel_downsample(points: Tensor, voxel: float, *attributes: Tensor) -> tuple[Tensor, ...]:
    """Average the points in each voxel, and their attributes.

    The voxels are floor(x / voxel), the same for every cloud, in lexicographic order: the order of the points
    changes nothing but rounding. Differentiable, points held in their voxels.

    Args:
        points: shape (N, d), any floating dtype. Those that are not finite are left out.
        voxel: edge length, in the units of the points.
        attributes: tensors (N, ...) that are averaged likewise.

    Returns:
        Points (V, d), each in its voxel up to rounding, and attributes (V, ...). V is 0 if no point is
        finite. Means of unit normals are shorter than 1.

    Raises:
        ValueError: if `voxel` is not positive and finite, or lengths differ.
        TypeError: if an argument is not a floating-point tensor.

    Example:
        >>> import torch, svdrot
        >>> points = torch.tensor([[0.25, 0.0], [0.75, 0.0], [1.5, 0.5]])
        >>> weights = torch.tensor([1.0, 3.0, 5.0])
        >>> svdrot.registration.voxel_downsample(points, 1.0, weights)
        (tensor([[0.5000, 0.0000],
                [1.5000, 0.5000]]), tensor([2., 5.]))
    """
    check_floating("points", points)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ValueError(f"`points` must have shape (N, d); got {tuple(points.shape)}.")
    check_positive("voxel", voxel)
    for value in attributes:
        check_floating("attributes", value)
        if len(value) != len(points):
            raise ValueError(f"`attributes` must be as many as the points, {len(points)}; got {len(value)}.")
    with torch.no_grad():
        finite = points.isfinite().all(-1)
        kept = None if finite.all() else finite.nonzero()[:, 0]
        where = points if kept is None else points[kept]
        cells, inverse = number_cells((where.double() / voxel).floor())
        counts = torch.bincount(inverse, minlength=cells)
    return tuple(
        _means(value if kept is None else value[kept], inverse, counts) for value in (points, *attributes)
    )


def covariances(points: Tensor, k: int = 20, radius: float | None = None) -> Tensor:
    """Return the covariance of the k points nearest to each point, itself included.

    Args:
        points: shape (..., N, 3), any floating dtype; not differentiable.
        k: how many, at least 3.
        radius: beyond which no neighbor counts, in the units of the points. Default: any distance.

    Returns:
        Shape (..., N, 3, 3), in the square of the units of the points; NaN for points that are not finite or
        have fewer than three neighbors.

    Raises:
        ValueError: if the shape is another, k < 3 or radius is not positive.
        TypeError: if `points` is not a floating-point tensor.
    """
    check_shape("points", points, 3)
    k = check_whole("k", k, 3)
    if radius is not None:
        check_positive("radius", radius)
    with torch.no_grad():
        clouds = points.reshape(math.prod(points.shape[:-2]), *points.shape[-2:])
        found = [_covariances(cloud.double(), k, radius) for cloud in clouds]
        stacked = torch.stack(found) if found else clouds.new_empty(*clouds.shape, 3)
        return stacked.reshape(*points.shape, 3).to(points.dtype)


@takes_arrays
def estimate_normals(
    points: Tensor, k: int = 20, radius: float | None = None, *, viewpoint: Tensor | None = None
) -> Tensor:
    """Return unit normals: the direction in which the k points nearest to each point vary least.

    Args:
        points: shape (..., N, 3), any floating dtype; not differentiable.
        k: how many neighbors, the point itself included, at least 3.
        radius: beyond which no neighbor counts, in the units of the points. Default: any distance.
        viewpoint: shape (..., 3), to which the normals point. Without one their signs mean nothing.

    Returns:
        Shape (..., N, 3); NaN for points that are not finite, have fewer than three neighbors, or whose
        neighbors lie on a line.

    Raises:
        ValueError: if a shape does not fit, k < 3 or radius is not positive.
        TypeError: if an argument is not a floating-point tensor.

    Example:
        >>> import torch, svdrot
        >>> x, y = torch.rand(2, 100, generator=torch.Generator().manual_seed(0))
        >>> floor = torch.stack((x, y, torch.zeros(100)), -1)
        >>> camera = torch.tensor([0.0, 0.0, 2.0])
        >>> normals = svdrot.registration.estimate_normals(floor, viewpoint=camera)
        >>> torch.allclose(normals, torch.tensor([0.0, 0.0, 1.0]), atol=1e-6)
        True
    """
    check_shape("points", points, 3)
    with torch.no_grad():
        normals = least_direction(covariances(points.double(), k, radius))
        if viewpoint is not None:
            check_shape("viewpoint", viewpoint, 3)
            common_batch(viewpoint=viewpoint.shape[:-1], points=points.shape[:-2])
            outward = (normals * (viewpoint[..., None, :] - points)).sum(-1, keepdim=True) < 0
            normals = torch.where(outward, -normals, normals)
        return normals.to(points.dtype)


def spacing(points: Tensor) -> float:
    """Return the median distance of a point to the next, by at most 1,000 of them and coincident ones apart.

    Args:
        points: shape (N, 3), all finite.

    Returns:
        The distance in the units of the points; 0 where they are all in one place.
    """
    if len(points) < 2:
        return 0.0
    left, tree, k = points[:: max(1, len(points) // 1000)], Neighbors(points), 2
    found: list[Tensor] = []
    while len(left) and k < 4 * len(points):  # more and more of those that have so many copies
        nearest = tree.query(left, min(len(points), k))[0]
        distances = torch.where(nearest > 0, nearest, math.inf).amin(1)
        found.append(distances[distances.isfinite()])
        left, k = left[distances.isinf()], 4 * k
    distances = torch.cat(found)
    return distances.median().item() if len(distances) else 0.0


def plane_covariances(normals: Tensor, flatness: float = 1e-3) -> Tensor:
    """Return covariances of discs: `flatness` along the unit normal, 1 across it.

    Args:
        normals: shape (..., 3).
        flatness: variance along the normal.

    Returns:
        Shape (..., 3, 3).

    Source:
        Segal, Haehnel, Thrun, "Generalized-ICP", RSS 2009, section III.B.
    """
    check_shape("normals", normals, 3)
    eye = torch.eye(3, dtype=normals.dtype, device=normals.device)
    return eye - (1 - flatness) * normals[..., :, None] * normals[..., None, :]


def least_direction(covariance: Tensor) -> Tensor:
    r"""Return unit eigenvectors (..., 3) of the smallest eigenvalue of semidefinite matrices (..., 3, 3).

    With $A$ of trace 1, $B = A - I/3$ and $p^2 = \operatorname{tr} B^2 / 6$ the eigenvalue is $\lambda = 1/3
    + 2 p \cos(\varphi + 2\pi/3)$, $\cos 3\varphi = \det B / 2p^3$ (Smith, Comm. ACM 4, 1961), and the rows of
    $A - \lambda I$ are orthogonal to its vector: their largest cross product is the best. The cosine is
    inexact where two eigenvalues meet; but for a disc that is at its extremum, and a line has no normal. The
    error is below 64 units of rounding over the square of (width² - thickness²) / length². NaN where the
    matrix is not finite, zero, or that of a line.
    """
    a = covariance.double()
    trace = a.diagonal(dim1=-2, dim2=-1).sum(-1)
    sound = (trace > 0) & a.isfinite().all(-1).all(-1)
    a = torch.where(sound[..., None, None], a, 1) / torch.where(sound, trace, 1)[..., None, None]
    # One tensor for each entry: loops over whole tensors, not over threes.
    xx, yy, zz = a[..., 0, 0].clone(), a[..., 1, 1].clone(), a[..., 2, 2].clone()
    xy, xz, yz = a[..., 0, 1].clone(), a[..., 0, 2].clone(), a[..., 1, 2].clone()
    bx, by, bz = xx - 1 / 3, yy - 1 / 3, zz - 1 / 3
    p = ((bx * bx + by * by + bz * bz + 2 * (xy * xy + xz * xz + yz * yz)) / 6).sqrt()
    det = bx * (by * bz - yz * yz) - xy * (xy * bz - yz * xz) + xz * (xy * yz - by * xz)
    cosine = (det / (2 * torch.where(p > 0, p, 1) ** 3)).clamp(-1, 1)
    least = 1 / 3 + 2 * p * (cosine.acos() / 3 + 2 * math.pi / 3).cos()
    xx, yy, zz = xx - least, yy - least, zz - least
    rows = (xx, xy, xz), (xy, yy, yz), (xz, yz, zz)
    best, size = None, None
    for u, v in ((0, 1), (1, 2), (2, 0)):
        cross = _cross(rows[u], rows[v])
        square = cross[0] ** 2 + cross[1] ** 2 + cross[2] ** 2
        if best is None or size is None:
            best, size = cross, square
        else:
            larger = square > size
            best = tuple(torch.where(larger, new, old) for new, old in zip(cross, best, strict=True))
            size = torch.where(larger, square, size)
    assert best is not None and size is not None
    unit = size.sqrt()
    defined = sound & (unit > LINE)
    scale = torch.where(defined, 1 / torch.where(defined, unit, 1), torch.nan)
    return torch.stack(best, -1) * scale[..., None]


class Planes(NamedTuple):
    """Hold the planes through the neighbors of points, (..., N)."""

    normals: Tensor  # unit, (..., N, 3), NaN where there is none
    border: Tensor  # whether the neighbors lie to one side, as where a surface ends
    ripple: Tensor  # variance of the normals by their noise, squared radians in each direction, (...)


def planes(
    tree: Neighbors, k: int, at: Tensor | None = None, radius: float | None = None, flat: bool = False
) -> Planes:
    """Return the planes through the k nearest points of the points of a cloud, or of those `at`.

    Of a `flat` cloud they are upright: points of a curve at height 0 reach up as far as along it.

    A plane through k points with the variance a across it and b along it is tilted by a / (k b): of points
    with noise, and of points on a bend or an edge. The mean of some is the ripple.
    """
    found = hoods(tree, k, at, radius)
    if flat:
        found.covariance[:, 2, 2] = found.covariance[:, 0, 0] + found.covariance[:, 1, 1]
    some = found.covariance[:: max(1, len(found.covariance) // SOME)]
    values = torch.linalg.eigvalsh(torch.where(some.isfinite(), some, 0)).clamp(min=0)
    along = values[:, 1:].mean(1)
    tilt = torch.where(along > 0, values[:, 0] / (k * torch.where(along > 0, along, 1)), 0)
    return Planes(least_direction(found.covariance), found.border, tilt.sum() / max(len(tilt), 1))


def _cross(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def number_cells(cells: Tensor) -> tuple[int, Tensor]:
    """Return how many different rows there are, and for each row which one it is, in lexicographic order."""
    if not len(cells):
        return 0, torch.zeros(0, dtype=torch.long, device=cells.device)
    # Rows as digits of one integer: key = (c_0 w_1 + c_1) w_2 + c_2 ..., with the width w of each column.
    columns = []
    key, size = torch.zeros_like(cells[:, 0], dtype=torch.long), 1
    for column in cells.T.contiguous():
        column = column - column.min()
        width = column.max().item() + 1
        if size * width >= 2**62:  # too far apart for one integer: numbers of the values take their place
            values, column = torch.unique(column, return_inverse=True)
            width = len(values)
        columns.append((column, width))
        size *= width
    if size >= 2**62:
        rows, inverse = torch.unique(cells, dim=0, return_inverse=True)
        return len(rows), inverse
    for column, width in columns:
        key = key * int(width) + column.long()
    values, inverse = torch.unique(key, return_inverse=True)
    return len(values), inverse


def _means(value: Tensor, inverse: Tensor, counts: Tensor) -> Tensor:
    flat = (value.flatten(1) if value.ndim > 1 else value[:, None]).double()
    sums = flat.new_zeros(len(counts), flat.shape[1]).index_add(0, inverse, flat)
    return (sums / counts[:, None]).to(value.dtype).reshape(len(counts), *value.shape[1:])


def _covariances(points: Tensor, k: int, radius: float | None) -> Tensor:
    if not len(points):
        return points.new_empty(0, 3, 3)
    return hoods(Neighbors(points), k, None, radius).covariance


class Hoods(NamedTuple):
    """Hold what is known of the neighborhoods of points, (n, ...)."""

    covariance: Tensor  # (n, 3, 3), NaN of fewer than three points
    border: Tensor  # whether the neighbors lie to one side, boolean


def hoods(tree: Neighbors, k: int, at: Tensor | None = None, radius: float | None = None) -> Hoods:
    """Return the neighborhoods of the k nearest points of a cloud, of all its points or of those `at`."""
    points, n = tree.points, len(tree.points)
    own = torch.arange(n, device=points.device) if at is None else at
    distances, indices = tree.query(points[own], k, radius)
    if (distances[:, max(3, k // COPIES) - 1] == 0).any():  # of so many copies no surface follows
        different, places = torch.unique(points, dim=0, return_inverse=True)
        if len(different) < n:
            return hoods(Neighbors(different), k, places[own], radius)
    # Differences d from the point itself, so that far from the origin nothing is lost; what is missing is 0.
    # Sums of d and of the upper triangle of d d', in blocks that stay in the cache.
    places = torch.where(indices < n, indices, own[:, None])
    x, first, second = points.T.contiguous(), [], []
    for block, around in zip(own.split(BLOCK), places.split(BLOCK), strict=True):
        d = x[:, around.T.reshape(-1)].view(3, indices.shape[1], len(block)) - x[:, None, block]
        first.append(d.sum(1))
        second.append(torch.stack([(d[i] * d[j]).sum(0) for i in range(3) for j in range(i, 3)]))
    first, second = torch.cat(first, 1), torch.cat(second, 1)[FULL]
    count = (indices < n).sum(1)
    total = count.clamp(min=1)
    covariance = second / total - (first[:, None] * first) / total**2
    covariance = torch.where(count >= 3, covariance, torch.nan).permute(2, 0, 1)
    # Of a half disc the middle is 0.6 of the root mean square distance away; of twenty points in a disc 0.2.
    spread = second[0, 0] + second[1, 1] + second[2, 2]
    return Hoods(covariance, first.square().sum(0) > BORDER**2 * total * spread)
