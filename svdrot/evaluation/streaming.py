"""Statistics of angles between rotations over a whole evaluation: metrics of `torchmetrics`, in degrees.

Batches are added by `update(estimate, truth)`, also on several processes with unequal shares, and `compute`
gives what one process would have given for all of the data, to the last bit: every metric keeps the angles
themselves (4 bytes each; metrics of a collection share them) and sums them in ascending order in float64.

An angle of NaN, of an estimate that is not finite, is a miss: it is above every threshold and percentile,
and makes the mean and the standard deviation NaN. Without any angle all are NaN.
"""

import pickle
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svdrot._checks import check_positive, check_shape
from svdrot.metrics import geodesic_distance

try:
    from torchmetrics import Metric, MetricCollection
    from torchmetrics.utilities import dim_zero_cat
except ImportError as error:
    raise ImportError(
        '`svdrot.evaluation.streaming` needs torchmetrics: `pip install "svdrot[metrics]"`.'
    ) from error


class AngleStatistic(Metric):
    """Compute a statistic of all the angles seen; subclasses say which, by `of_sorted`.

    Args:
        distance: from two batches of rotations (..., 3, 3) to radians (...); the geodesic one, or one that
            knows symmetries, as of `svdrot.losses`.
        settings: of `torchmetrics.Metric`.

    Example:
        >>> import torch, svdrot
        >>> class LargestDegrees(svdrot.evaluation.streaming.AngleStatistic):
        ...     def of_sorted(self, degrees):
        ...         return degrees[-1]
        >>> largest = LargestDegrees()
        >>> largest.update(torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, -1.0])))
        >>> largest.compute()
        tensor(180.)
    """

    is_differentiable: bool | None = False
    higher_is_better: bool | None = False
    full_state_update: bool | None = False

    def __init__(self, *, distance: Callable[[Tensor, Tensor], Tensor] = geodesic_distance, **settings: Any):
        super().__init__(**settings)
        self.distance = distance
        self._radians = _state(distance)
        self.add_state(self._radians, default=[], dist_reduce_fx="cat")

    def update(self, estimate: Tensor, truth: Tensor) -> None:
        """Add a batch of rotations and what they should be.

        Args:
            estimate: rotations, shape (..., 3, 3). What is not finite counts as a miss.
            truth: rotations, shape (..., 3, 3); batch dimensions broadcast.

        Raises:
            ValueError: if shapes do not fit.
            TypeError: if an argument is not a floating-point tensor.
        """
        check_shape("estimate", estimate, 3, 3)
        check_shape("truth", truth, 3, 3)
        getattr(self, self._radians).append(self.distance(estimate, truth).detach().flatten().to(self.dtype))

    def compute(self) -> Tensor:
        """Return the statistic of all angles so far.

        Returns:
            Shape (), in the dtype of the metric; NaN without any angle.
        """
        radians = getattr(self, self._radians)
        radians = dim_zero_cat(radians) if len(radians) else torch.empty(0, device=self.device)
        degrees = torch.rad2deg(radians.double()).sort().values  # NaN last
        value = self.of_sorted(degrees) if len(degrees) else degrees.new_tensor(torch.nan)
        return value.to(self.dtype)

    def of_sorted(self, degrees: Tensor) -> Tensor:
        """Return the statistic.

        Args:
            degrees: all angles, at least one, shape (N,), float64, ascending, NaN last.

        Returns:
            Shape ().
        """
        raise NotImplementedError


def _state(distance: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Name the list of angles: collections merge metrics that have one, if they agree at first."""
    if distance is geodesic_distance:
        return "radians"
    try:
        return f"radians_{zlib.crc32(pickle.dumps(distance))}"
    except (pickle.PicklingError, AttributeError, TypeError):  # a function without a name
        return f"radians_{id(distance)}"


class MeanDegrees(AngleStatistic):
    """Compute the mean angle, in degrees.

    Args:
        distance, settings: see `AngleStatistic`.

    Example:
        >>> import torch, svdrot
        >>> mean = svdrot.evaluation.streaming.MeanDegrees()
        >>> for angle in (0.0, torch.pi / 2):  # batches of an evaluation
        ...     estimate = svdrot.axis_angle_to_matrix(torch.tensor([[angle, 0.0, 0.0]]))
        ...     mean.update(estimate, torch.eye(3))
        >>> mean.compute().round(decimals=3)
        tensor(45.)
    """

    def of_sorted(self, degrees: Tensor) -> Tensor:
        return degrees.mean()


class StdDegrees(AngleStatistic):
    """Compute the standard deviation of the angles about their mean, with N below the root, as numpy's.

    Args:
        distance, settings: see `AngleStatistic`.

    Example:
        >>> import torch, svdrot
        >>> std = svdrot.evaluation.streaming.StdDegrees()
        >>> turns = svdrot.axis_angle_to_matrix(torch.tensor([[0.0, 0.0, 0.0], [torch.pi / 2, 0.0, 0.0]]))
        >>> std.update(turns, torch.eye(3))
        >>> std.compute().round(decimals=3)
        tensor(45.)
    """

    def of_sorted(self, degrees: Tensor) -> Tensor:
        return degrees.std(correction=0)


class PercentileDegrees(AngleStatistic):
    """Compute the angle that `percent` percent of the angles do not exceed, linear between two, as numpy's.

    Args:
        percent: from 0 to 100.
        settings: of `AngleStatistic`.

    Raises:
        ValueError: if `percent` is out of range.

    Example:
        >>> import torch, svdrot
        >>> p75 = svdrot.evaluation.streaming.PercentileDegrees(75)
        >>> degrees = torch.tensor([0.0, 10.0, 20.0, 30.0, 40.0])
        >>> about_x = torch.deg2rad(degrees)[:, None] * torch.tensor([1.0, 0.0, 0.0])
        >>> p75.update(svdrot.axis_angle_to_matrix(about_x), torch.eye(3))
        >>> p75.compute().round(decimals=3)
        tensor(30.)
    """

    def __init__(self, percent: float, **settings: Any):
        super().__init__(**settings)
        if not 0 <= percent <= 100:
            raise ValueError(f"`percent` must be from 0 to 100; got {percent}.")
        self.percent = percent

    def of_sorted(self, degrees: Tensor) -> Tensor:
        degrees = torch.where(degrees.isnan(), torch.inf, degrees)
        place = self.percent / 100 * (len(degrees) - 1)
        below, share = int(place), place - int(place)
        low, high = degrees[below], degrees[min(below + 1, len(degrees) - 1)]
        return low if share == 0 or low == high else low + share * (high - low)  # both may be infinite


class MedianDegrees(PercentileDegrees):
    """Compute the median angle: of an even number of angles the mean of the middle two.

    Args:
        settings: of `AngleStatistic`.

    Example:
        >>> import torch, svdrot
        >>> median = svdrot.evaluation.streaming.MedianDegrees()
        >>> about_x = torch.deg2rad(torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0], [90.0, 0.0, 0.0]]))
        >>> median.update(svdrot.axis_angle_to_matrix(about_x), torch.eye(3))
        >>> median.compute().round(decimals=3)
        tensor(3.)
    """

    def __init__(self, **settings: Any):
        super().__init__(50, **settings)


class AccuracyAtDegrees(AngleStatistic):
    """Compute the share of the angles strictly below a threshold (Acc@5, ...), in [0, 1].

    Args:
        degrees: the threshold, positive.
        settings: of `AngleStatistic`.

    Raises:
        ValueError: if `degrees` is not positive and finite.

    Example:
        >>> import torch, svdrot
        >>> accuracy = svdrot.evaluation.streaming.AccuracyAtDegrees(5)
        >>> about_x = torch.deg2rad(torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0], [90.0, 0.0, 0.0]]))
        >>> accuracy.update(svdrot.axis_angle_to_matrix(about_x), torch.eye(3))
        >>> accuracy.compute()
        tensor(0.6667)
    """

    higher_is_better: bool | None = True

    def __init__(self, degrees: float, **settings: Any):
        super().__init__(**settings)
        check_positive("degrees", degrees)
        self.degrees = degrees

    def of_sorted(self, degrees: Tensor) -> Tensor:
        # In the rounding of the metric: an angle of 5 degrees in float32 is not below 5 degrees.
        limit = torch.rad2deg(torch.deg2rad(degrees.new_tensor(self.degrees)).to(self.dtype).double())
        return (degrees < limit).double().mean()


class AreaUnderAccuracy(AngleStatistic):
    r"""Compute the mean of the accuracy over all thresholds from 0 to a largest one (AUC), in [0, 1].

    The integral itself, $\frac 1 N \sum_i (1 - \theta_i / \theta_{\max})_+$.

    Args:
        degrees: the largest threshold, positive.
        settings: of `AngleStatistic`.

    Raises:
        ValueError: if `degrees` is not positive and finite.

    Example:
        >>> import torch, svdrot
        >>> area = svdrot.evaluation.streaming.AreaUnderAccuracy(30)
        >>> about_x = torch.deg2rad(torch.tensor([[0.0, 0.0, 0.0], [15.0, 0.0, 0.0], [90.0, 0.0, 0.0]]))
        >>> area.update(svdrot.axis_angle_to_matrix(about_x), torch.eye(3))
        >>> area.compute().round(decimals=3)
        tensor(0.5000)
    """

    higher_is_better: bool | None = True

    def __init__(self, degrees: float, **settings: Any):
        super().__init__(**settings)
        check_positive("degrees", degrees)
        self.degrees = degrees

    def of_sorted(self, degrees: Tensor) -> Tensor:
        return (1 - torch.where(degrees.isnan(), torch.inf, degrees) / self.degrees).clamp_min(0).mean()


def rotation_metrics(
    *,
    percentiles: Sequence[float] = (5, 25, 75, 95),
    accuracies: Sequence[float] = (1, 3, 5, 10, 15, 30),
    areas: Sequence[float] = (30,),
    **settings: Any,
) -> MetricCollection:
    """Collect the usual statistics of angles under their names: mean_deg, median_deg, std_deg, p95_deg, ...

    They share one list of angles.

    Args:
        percentiles: from 0 to 100, named p95_deg, ...
        accuracies: thresholds in degrees, named acc_5_deg, acc_7_5_deg, ...
        areas: largest thresholds in degrees, named auc_30_deg, ...
        settings: of `AngleStatistic`.

    Returns:
        A `MetricCollection`, updated by rotations and what they should be; `compute` returns a dictionary.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import torch, svdrot
        >>> metrics = svdrot.evaluation.streaming.rotation_metrics(percentiles=(), accuracies=(5,), areas=())
        >>> metrics.update(torch.eye(3).expand(10, 3, 3), torch.eye(3))
        >>> metrics.compute()["acc_5_deg"]
        tensor(1.)
    """
    metrics: dict[str, Metric] = {
        "mean_deg": MeanDegrees(**settings),
        "median_deg": MedianDegrees(**settings),
        "std_deg": StdDegrees(**settings),
    }
    metrics |= {f"p{_name(percent)}": PercentileDegrees(percent, **settings) for percent in percentiles}
    metrics |= {f"acc_{_name(degrees)}": AccuracyAtDegrees(degrees, **settings) for degrees in accuracies}
    metrics |= {f"auc_{_name(degrees)}": AreaUnderAccuracy(degrees, **settings) for degrees in areas}
    return MetricCollection(metrics, compute_groups=[[*metrics]])  # pyright: ignore[reportArgumentType]


def _name(number: float) -> str:
    """Write a number of degrees as it stands in a name: 7_5_deg."""
    shortest = np.format_float_positional(number, trim="-")
    return f"{shortest}_deg".replace(".", "_")  # the name of a module has no point
