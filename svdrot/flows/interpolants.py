"""What flow matching teaches: ways from noise to data, and their velocities."""

from torch import Tensor

from svdrot._checks import as_number, check_floating
from svdrot._formulas import turns
from svdrot._stand_ins import takes_arrays


@takes_arrays
def geodesic_interpolant(start: Tensor, end: Tensor, time: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""Return the rotation at a time on the geodesic between two, and its velocity: what flow matching
    teaches.

    With $w = \log(R_0^\top R_1)$ they are $R_0 \exp(t w)$ and w, the same at all times.

    Args:
        start: rotations at time 0, shape (..., 3, 3).
        end: rotations at time 1, shape (..., 3, 3).
        time: a number or a tensor of shape (...). Batch dimensions broadcast.

    Returns:
        Rotations (..., 3, 3), and velocities (..., 3) in radians, in the frame of the rotation. Half a turn
        apart there are two geodesics; one is taken. NaN and infinity give NaN in their place.

    Raises:
        ValueError: if the last two dimensions of `start` or `end` are not (3, 3), or others do not broadcast.
        TypeError: if a tensor is not floating point, or `time` neither one nor a number.

    Source:
        Chen and Lipman, "Flow Matching on General Geometries", ICLR 2024, section 3.2.

    Example:
        >>> import torch, svdrot
        >>> start, end = torch.eye(3), svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, 1.0]))
        >>> rotation, velocity = svdrot.flows.geodesic_interpolant(start, end, 0.25)
        >>> svdrot.rotation_angle(rotation), bool((velocity - torch.tensor([0.0, 0.0, 1.0])).norm() < 1e-6)
        (tensor(0.2500), True)
    """
    check_floating("start", start)
    check_floating("end", end)
    return turns.geodesic_interpolant(start, end, as_number("time", time, start, end))
