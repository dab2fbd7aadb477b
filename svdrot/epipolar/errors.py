"""How far pairs of image points are from a matrix, and the points in space that they show."""

from torch import Tensor

from svdrot._checks import check_floating, check_shape
from svdrot._formulas.geometry import epipolar
from svdrot._stand_ins import takes_arrays
from svdrot.transform import Transform, check_transform


@takes_arrays
def algebraic_error(matrix: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""Return the algebraic error $b^\top M a$ of pairs of image points.

    Args:
        matrix: an essential matrix, or of pixels a fundamental one, shape (..., 3, 3).
        a: points in the first view, shape (..., N, 2).
        b: points in the second view, pair by pair. Batch dimensions broadcast.

    Returns:
        Shape (..., N), with its sign. It scales with the matrix, and is no distance.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not floating point.

    Source:
        Hartley and Zisserman, "Multiple View Geometry" (2004), section 11.1.

    Example:
        >>> import torch, svdrot
        >>> stereo = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
        >>> a, b = torch.tensor([[0.0, 0.1], [0.2, 0.3]]), torch.tensor([[0.3, 0.1], [0.4, 0.5]])
        >>> svdrot.epipolar.algebraic_error(stereo, a, b)  # the difference of rows
        tensor([0.0000, 0.2000])
    """
    return epipolar.algebraic_error(*_of_pairs(matrix, a, b))


@takes_arrays
def sampson_error(matrix: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""Return Sampson's error of pairs of image points: how far, to first order, both must move to fit.

    It is $b^\top M a / \sqrt{(M a)_1^2 + (M a)_2^2 + (M^\top b)_1^2 + (M^\top b)_2^2}$, for both points as
    one vector of four numbers. Its square is `cv2.sampsonDistance` and kornia's `sampson_epipolar_distance`.

    Args:
        matrix: an essential matrix, or of pixels a fundamental one, shape (..., 3, 3), of any scale.
        a: points in the first view, shape (..., N, 2).
        b: points in the second view, pair by pair. Batch dimensions broadcast.

    Returns:
        Shape (..., N), in the units of the points, with its sign, so that it is smooth where it is zero. It
        is 0 with zero gradient where both points are epipoles, and for a matrix without epipolar lines.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not floating point.

    Source:
        Sampson, Comput. Graph. Image Process. 18 (1982); Hartley and Zisserman, "Multiple View Geometry"
        (2004), equation 11.9.

    Example:
        >>> import torch, svdrot
        >>> stereo = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
        >>> a, b = torch.tensor([[0.0, 0.1], [0.2, 0.3]]), torch.tensor([[0.3, 0.1], [0.4, 0.5]])
        >>> svdrot.epipolar.sampson_error(stereo, a, b)  # half of the way each
        tensor([0.0000, 0.1414])
    """
    return epipolar.sampson_error(*_of_pairs(matrix, a, b))


@takes_arrays
def symmetric_epipolar_error(matrix: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""Return the root of the squared distances of both points from each other's epipolar lines.

    Its square is kornia's `symmetrical_epipolar_distance`.

    Args:
        matrix: an essential matrix, or of pixels a fundamental one, shape (..., 3, 3), of any scale.
        a: points in the first view, shape (..., N, 2).
        b: points in the second view, pair by pair. Batch dimensions broadcast.

    Returns:
        Shape (..., N), in the units of the points, with the sign of the algebraic error, so that it is smooth
        where it is zero. A line that has no direction, as of an epipole, counts for nothing.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not floating point.

    Source:
        Hartley and Zisserman, "Multiple View Geometry" (2004), equation 11.10.

    Example:
        >>> import torch, svdrot
        >>> stereo = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
        >>> a, b = torch.tensor([[0.0, 0.1], [0.2, 0.3]]), torch.tensor([[0.3, 0.1], [0.4, 0.5]])
        >>> svdrot.epipolar.symmetric_epipolar_error(stereo, a, b)
        tensor([0.0000, 0.2828])
    """
    return epipolar.symmetric_epipolar_error(*_of_pairs(matrix, a, b))


@takes_arrays
def triangulate(transform: Transform, a: Tensor, b: Tensor) -> Tensor:
    """Return the points that are in the middle between the rays of each pair, where these are nearest.

    Args:
        transform: takes points from the frame of the first camera to that of the second, batch shape (...).
        a: points in the first view, in the coordinates of the camera, shape (..., N, 2).
        b: points in the second view, pair by pair. Batch dimensions broadcast.

    Returns:
        Points in the frame of the first camera, shape (..., N, 3), in the units of the translation. Rays that
        meet behind a camera give the point there. Parallel ones, within 8 eps, have no such point: NaN.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if `transform` is not a `Transform`, or a point is not floating point.

    Source:
        Beardsley, Zisserman and Murray, "Navigation using affine structure from motion", ECCV 1994 (the
        midpoint method).

    Example:
        >>> import torch, svdrot
        >>> right = svdrot.Transform(torch.eye(3), torch.tensor([-1.0, 0.0, 0.0]), torch.tensor(1.0))
        >>> a, b = torch.tensor([[0.0, 0.1]]), torch.tensor([[-0.2, 0.1]])
        >>> points = svdrot.epipolar.triangulate(right, a, b)
        >>> torch.allclose(points, torch.tensor([[0.0, 0.5, 5.0]]), atol=1e-5)
        True
    """
    check_transform("transform", transform)
    _check_points(a, b)
    move = transform.translation / transform.scale[..., None]
    return epipolar.triangulated(transform.rotation[..., None, :, :], move[..., None, :], a, b)


def _of_pairs(matrix: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    check_shape("matrix", matrix, 3, 3)
    _check_points(a, b)
    return matrix[..., None, :, :], a, b


def _check_points(a: Tensor, b: Tensor) -> None:
    for name, value in (("a", a), ("b", b)):
        check_floating(name, value)
        if value.ndim < 2 or value.shape[-1] != 2:
            raise ValueError(f"`{name}` must have shape (..., N, 2); got {tuple(value.shape)}.")
