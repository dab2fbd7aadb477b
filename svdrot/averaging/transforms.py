r"""One pose for many: the weighted mean of SE(3) and Sim(3), and how poses spread about it.

The mean M is where twists balance, $\sum w_i \log(M^{-1} T_i) = 0$, which no other frame before or after the
poses changes. Its rotation is the Karcher mean of the rotations, whatever the translations are, its scale the
geometric mean. The rest is linear: with the rotation vectors $\omega_i$ and logarithms $\lambda_i$ of the
scales from M to $T_i$, $P_i = \int_0^1 e^{s ([\omega_i]_\times + \lambda_i I)} ds$ and
$K_i = P_i^{-1} R^\top$, the translation t has $\sum w_i K_i (t_i - t) = 0$.
"""

import torch
from torch import Tensor

from svdrot._checks import check_mask, check_shape, common_batch
from svdrot._formulas.geometry import se3
from svdrot._precision import result_dtype
from svdrot._stand_ins import takes_arrays
from svdrot._vectors import image
from svdrot.transform import Transform, check_transform

from .rotations import average_rotations


@takes_arrays
def average_transforms(
    transforms: Transform, weights: Tensor | None = None, *, mask: Tensor | None = None
) -> Transform:
    r"""Find the mean of transforms of space: M with $\sum w_i \log(M^{-1} T_i) = 0$.

    Its rotation is the Karcher mean, "geodesic_l2" of `average_rotations`. Its translation is in general not
    the mean of the translations: M of two transforms is halfway along the screw motion between them. So the
    mean of $A T_i B$ is $A M B$ for all rigid A and B, where the mean of the translations has this for
    turns B alone. `transforms.translation.mean(-2)` is at hand for whoever wants that.

    Args:
        transforms: of batch shape (..., N), in space, of positive scales.
        weights: shape (..., N), at least 0, of any total. Batch dimensions broadcast. Default: 1.
        mask: boolean, shape (..., N): transforms that count. What does not count, and what has weight 0, may
            be NaN.

    Returns:
        Transforms of batch shape (...), computed in float64; the scale is the geometric mean. Differentiable
        twice in everything. No transform or a total weight of 0 gives the identity with zero gradient. NaN,
        infinity or a negative weight in what counts gives NaN for its item only. The mean is the only one if
        rotations lie within a quarter turn of one rotation.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not of the right kind.

    Source:
        Pennec and Arsigny, "Exponential Barycenters of the Canonical Cartan Connection and Invariant Means on
        Lie Groups", in Matrix Information Geometry (2012).

    Example:
        >>> import torch, svdrot
        >>> ends = svdrot.Transform.random(2, generator=torch.Generator().manual_seed(0))
        >>> mean, halfway = svdrot.averaging.average_transforms(ends), ends[0].interpolate(ends[1], 0.5)
        >>> torch.allclose(mean.matrix, halfway.matrix, atol=1e-5)
        True
    """
    r, t, s, w, empty = _items(transforms, weights, mask)
    turn = average_rotations(r, w, norm="geodesic_l2")
    size = (w * s.log()).sum(-1).exp()
    middle = (w[..., None] * t).sum(-2)
    pull = w[..., None, None] * se3.pull(turn[..., None, :, :], size[..., None], r, s)
    moved = image(pull, t - middle[..., None, :]).sum(-2)
    one = torch.eye(3, device="cpu").to(r)
    matrix = torch.where(empty[..., None, None], one, pull.sum(-3))
    translation = middle + se3.solved(matrix, moved)
    found = turn, translation, size
    results = (transforms.rotation, transforms.translation, transforms.scale)
    return Transform(*(x.to(result_dtype(of)) for x, of in zip(found, results, strict=True)))


@takes_arrays
def transform_covariance(
    average: Transform,
    transforms: Transform,
    weights: Tensor | None = None,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Return how transforms spread about one: $\sum w_i \xi_i \xi_i^\top$ of $\xi_i = \log(M^{-1} T_i)$.

    The weights are of sum one: of N independent measurements of weight 1 the unbiased estimate is N / (N - 1)
    times this.

    Args:
        average: M, of batch shape (...), as from `average_transforms` with the other arguments.
        transforms, weights, mask: see `average_transforms`.

    Returns:
        Symmetric matrices, shape (..., 6, 6), in the tangent space at M, of the frame before it, in the order
        (rotation vector in radians, translation part); `M.adjoint()` takes twists to the frame after it.
        Computed in float64. The logarithm of a scale has no part. 0 if nothing counts; NaN for an item with
        NaN in what counts.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not of the right kind.

    Source:
        Barfoot and Furgale, "Associating Uncertainty with Three-Dimensional Poses for Use in Estimation
        Problems", IEEE Transactions on Robotics 30 (2014).

    Example:
        >>> import torch, svdrot
        >>> noise = 0.1 * torch.randn(1000, 6, generator=torch.Generator().manual_seed(0))
        >>> poses = svdrot.Transform.random() @ svdrot.Transform.exp(noise)
        >>> mean = svdrot.averaging.average_transforms(poses)
        >>> covariance = svdrot.averaging.transform_covariance(mean, poses)
        >>> torch.allclose(covariance, 0.01 * torch.eye(6), atol=0.002)
        True
    """
    check_transform("average", average)
    r, t, s, w, _ = _items(transforms, weights, mask)
    if common_batch(average=average.shape, transforms=w.shape[:-1]) != w.shape[:-1]:
        raise ValueError(f"`average` must have shape {tuple(w.shape[:-1])}; got {tuple(average.shape)}.")
    base = average.double()
    start = base.rotation[..., None, :, :], base.translation[..., None, :], base.scale[..., None]
    twist = se3.relative_twist(*start, r, t, s)[..., :6]
    found = (w[..., None, None] * twist[..., :, None] * twist[..., None, :]).sum(-3)
    return found.to(result_dtype(transforms.rotation))


def _items(
    transforms: Transform, weights: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return checked arguments in float64: rotations, translations, scales, weights of sum 1 or 0; if 0.

    What has weight 0 is the identity, if it is not finite; what counts and is bad has the weight NaN.
    """
    check_transform("transforms", transforms)
    shape = transforms.shape
    if not shape:
        raise ValueError("`transforms` must have batch shape (..., N); got ().")
    n = shape[-1]
    w = transforms.rotation.new_ones(n) if weights is None else weights
    check_shape("weights", w, n)
    counts = torch.ones(n, dtype=torch.bool, device=w.device) if mask is None else check_mask("mask", mask, n)
    batch = common_batch(transforms=shape[:-1], weights=w.shape[:-1], mask=counts.shape[:-1])
    r = transforms.rotation.double().expand(*batch, n, 3, 3)
    t = transforms.translation.double().expand(*batch, n, 3)
    s = transforms.scale.double().expand(*batch, n)
    w = torch.where(counts, w.double(), 0).expand(*batch, n)
    sound = r.isfinite().all(-1).all(-1) & t.isfinite().all(-1) & s.isfinite() & (s > 0)
    ignored = ~counts.expand(*batch, n) | ((w == 0) & ~sound)
    one = torch.eye(3, device="cpu").to(r)
    r = torch.where(ignored[..., None, None], one, r)
    t, s = torch.where(ignored[..., None], 0, t), torch.where(ignored, 1, s)
    broken = (~(sound | ignored) | ~w.isfinite() | (w < 0)).any(-1, keepdim=True)
    w = torch.where(broken, torch.nan, w)
    total = w.sum(-1)
    empty = total == 0
    return r, t, s, w / torch.where(empty, 1, total)[..., None], empty
