r"""Rotations and poses as parameters, which any optimizer of torch may step.

What an optimizer sees is a tangent x, to which it adds what it likes. What counts is the difference to the
tangent at the last forward: the rotation goes on from where it was then, $R \leftarrow R \exp(x - x_0)$, and
$x_0 \leftarrow x$. So

* derivatives are always taken at R itself, along $R \exp(y)$ at $y = 0$: the gradient is the Riemannian one,
  and a step of -g moves the rotation by exactly $\exp(-g)$;
* the parameter is never written to: an optimizer that puts it back, as the line search of LBFGS does, finds
  the rotation back, too, and momenta, which are of the frame before R, need no transport;
* each forward makes the rotation orthonormal anew, so that rounding does not add up.

Going on happens where a gradient may be asked for. Under `torch.no_grad`, in `torch.func`, in exported and
traced programs a forward writes nothing; its derivative is that of $R \exp(x - x_0)$ itself.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from svdrot._formulas.geometry import steps
from svdrot._precision import compute_dtype
from svdrot.engine.memory import is_exporting
from svdrot.projection import special_orthogonalize
from svdrot.representations import quaternion_to_matrix
from svdrot.transform import Transform

# How far from a rotation, in Frobenius norm, what is assigned or loaded may be: the rounding of bfloat16, in
# which a checkpoint may have been kept, is 0.01. A matrix that is no rotation at all is farther off.
NEAR = 0.02
HALVES = (torch.float16, torch.bfloat16)


class Rotation(nn.Module):
    r"""Hold rotations as parameters, which stay rotations under every optimizer.

    `forward()` returns them. The parameter that is trained is `turn`, a rotation vector in the frame before
    the rotation: a step of an optimizer that adds d to it makes R exp(d) of R, whatever steps there were
    before, and its gradient is taken at R. So `torch.optim.SGD` is Riemannian gradient descent, and the
    moments of Adam are of the three axes of that frame.

    A state dict has the rotations, under the one name `rotation`; one with quaternions w x y z there is
    loaded, too. `turn` itself has no meaning that outlives the module: only its differences count. Decoupled
    weight decay is such a difference, and turns back along the way that was gone: take `weight_decay=0`, or
    call `restart` after each step. The weights of an average of models (`torch.optim.swa_utils`) are averaged
    in the frame of the last rotation, exact to the second order of how far they are apart.

    Args:
        shape: batch shape, one whole number for each dimension, or all in one tuple; none for a single
            rotation.
        initial: rotations to begin with, (..., 3, 3), which broadcast to the shape; the identity if None.
        device: where to keep them.
        dtype: float32 or float64; that of `initial`, or `torch.get_default_dtype()`, if None. Steps are
            smaller than half precision tells apart: training in it is refused.

    Shape:
        () -> (*shape, 3, 3), orthonormal to a few units of rounding after any number of steps.

    A NaN in the gradient of one rotation spoils that rotation alone.

    Raises:
        ValueError: if `initial` are no rotations, or do not broadcast to the shape.
        TypeError: if `dtype` is not float32 or float64, or `shape` are no whole numbers.

    Source:
        Absil, Mahony and Sepulchre, "Optimization Algorithms on Matrix Manifolds" (2008), section 4.1;
        Lezcano-Casado, "Trivializations for Gradient-Based Optimization on Manifolds", NeurIPS 2019, arXiv
        1909.09501, of which this is the one that changes its basis at each step.

    Example:
        >>> import torch, svdrot
        >>> truth = svdrot.axis_angle_to_matrix(torch.tensor([0.3, -0.5, 1.0]))
        >>> rotation = svdrot.nn.Rotation()
        >>> optimizer = torch.optim.SGD(rotation.parameters(), lr=0.2)
        >>> for _ in range(50):
        ...     optimizer.zero_grad()
        ...     (rotation() - truth).square().sum().backward()
        ...     optimizer.step()
        >>> svdrot.geodesic_distance(rotation(), truth) < 1e-5
        tensor(True)
        >>> list(rotation.state_dict())
        ['rotation']
    """

    rotation: Tensor
    turn_before: Tensor

    def __init__(
        self,
        *shape: int | Sequence[int],
        initial: Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        batch, how = _batch(shape), _kind(initial, device, dtype)
        self.turn: nn.Parameter = nn.Parameter(torch.zeros(*batch, 3, **how))
        self.register_buffer("rotation", torch.eye(3, **how).repeat(*batch, 1, 1))
        self.register_buffer("turn_before", torch.zeros(*batch, 3, **how), persistent=False)
        if initial is not None:
            self.assign(initial)

    def forward(self) -> Tensor:
        """Return the rotations, as they are after the last step.

        Returns:
            Shape (*shape, 3, 3).

        Raises:
            TypeError: if the module was converted to half precision, and a gradient is wanted.
        """
        if not _goes_on(self.turn):
            return steps.turned(self.rotation, self.turn, self.turn_before)
        found = steps.carried(self.rotation.clone(), self.turn, self.turn_before.clone())
        _write((self.rotation, found), (self.turn_before, self.turn))
        return found

    @torch.no_grad()
    def assign(self, rotation: Tensor) -> None:
        """Put other rotations in place of those that are held; momenta of an optimizer stay what they are.

        Args:
            rotation: shape (..., 3, 3), which broadcasts to that of the module; each is replaced by the
                nearest rotation, of which it must not be farther off than rounding to half precision.

        Raises:
            ValueError: if a shape does not fit, or a matrix is no rotation.
            TypeError: if `rotation` is not floating point.

        Example:
            >>> import torch, svdrot
            >>> rotation = svdrot.nn.Rotation(4)
            >>> rotation.assign(svdrot.random_rotation(4))
        """
        self.rotation.copy_(_nearest("rotation", rotation, self.rotation.shape))
        self.turn_before.copy_(self.turn)

    @torch.no_grad()
    def restart(self) -> None:
        """Set `turn` to zero, and keep the rotations: what is subtracted in proportion to it is then nothing.

        Example:
            >>> import svdrot
            >>> svdrot.nn.Rotation().restart()
        """
        self._settle()
        self.turn.zero_()
        self.turn_before.zero_()

    def extra_repr(self) -> str:
        """Return the batch shape, as `print` shows it."""
        return ", ".join(map(str, self.turn.shape[:-1]))

    @torch.no_grad()
    def _settle(self) -> None:
        """Go on to where the tangents are."""
        found = steps.carried(self.rotation, self.turn, self.turn_before)
        _write((self.rotation, found), (self.turn_before, self.turn))

    @torch.no_grad()
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        if not self.turn.is_meta:
            self._settle()
        destination[prefix + "rotation"] = self.rotation.detach()

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        if not self.turn.is_meta:
            self._settle()
        error_msgs += _prepare(self, state_dict, prefix)
        found = missing_keys, unexpected_keys, error_msgs
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *found)
        _begin_anew(self)


class Pose(nn.Module):
    r"""Hold rigid transforms as parameters, which stay rigid under every optimizer.

    `forward()` returns them, as a `svdrot.Transform` of scale 1. Two parameters are trained, `turn`, in
    radians, and `shift`, in the units of the translation: together a twist in the frame before the pose, so
    that a step that adds $\xi$ to them makes $T \exp(\xi)$ of T, and the gradient is taken at T. They are
    two, so that an optimizer may have a learning rate for each. Everything else is as in `Rotation`.

    Args:
        shape: batch shape, one whole number for each dimension, or all in one tuple; none for a single pose.
        initial: rigid transforms to begin with, whose batch dimensions broadcast to the shape; the identity
            if None.
        device: where to keep them.
        dtype: float32 or float64; that of `initial`, or `torch.get_default_dtype()`, if None.

    Shape:
        () -> a `Transform` of batch shape `shape`.

    A state dict has `rotation` and `translation`.

    Raises:
        ValueError: if `initial` are not rigid, or do not broadcast to the shape.
        TypeError: if `dtype` is not float32 or float64, `initial` no `Transform`, or `shape` no whole
            numbers.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        appendix D.

    Example:
        >>> import torch, svdrot
        >>> points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
        >>> truth = svdrot.Transform.exp(torch.tensor([0.3, -0.5, 1.0, 1.0, 2.0, 3.0]))
        >>> pose = svdrot.nn.Pose()
        >>> optimizer = torch.optim.LBFGS(pose.parameters(), line_search_fn="strong_wolfe")
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = (pose().apply(points) - truth.apply(points)).square().sum()
        ...     loss.backward()
        ...     return loss
        >>> for _ in range(2):
        ...     loss = optimizer.step(closure)
        >>> torch.allclose(pose().matrix, truth.matrix, atol=1e-4)
        True
    """

    rotation: Tensor
    translation: Tensor
    turn_before: Tensor
    shift_before: Tensor

    def __init__(
        self,
        *shape: int | Sequence[int],
        initial: Transform | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if initial is not None and not isinstance(initial, Transform):
            raise TypeError(f"`initial` must be a Transform; got {type(initial).__name__}.")
        batch, how = _batch(shape), _kind(None if initial is None else initial.rotation, device, dtype)
        self.turn: nn.Parameter = nn.Parameter(torch.zeros(*batch, 3, **how))
        self.shift: nn.Parameter = nn.Parameter(torch.zeros(*batch, 3, **how))
        self.register_buffer("rotation", torch.eye(3, **how).repeat(*batch, 1, 1))
        self.register_buffer("translation", torch.zeros(*batch, 3, **how))
        self.register_buffer("turn_before", torch.zeros(*batch, 3, **how), persistent=False)
        self.register_buffer("shift_before", torch.zeros(*batch, 3, **how), persistent=False)
        if initial is not None:
            self.assign(initial)

    def forward(self) -> Transform:
        """Return the poses, as they are after the last step.

        Returns:
            Transforms of the batch shape, of scale 1.

        Raises:
            TypeError: if the module was converted to half precision, and a gradient is wanted.
        """
        goes_on = [_goes_on(self.turn), _goes_on(self.shift)]
        if not any(goes_on):
            return Transform(*steps.posed(*self._held()))
        found = steps.posed_and_carried(*self._held(clone=True))
        self._write(found)
        return Transform(*found)

    @torch.no_grad()
    def assign(self, transform: Transform) -> None:
        """Put other poses in place of those that are held; momenta of an optimizer stay what they are.

        Args:
            transform: rigid, in space, of batch dimensions that broadcast to those of the module; rotations
                as for `Rotation.assign`.

        Raises:
            ValueError: if a shape does not fit, a matrix is no rotation, or a scale is off 1 by more than
                0.02.
            TypeError: if `transform` is no `Transform`.

        Example:
            >>> import svdrot
            >>> pose = svdrot.nn.Pose(4)
            >>> pose.assign(svdrot.Transform.random(4))
        """
        if not isinstance(transform, Transform):
            raise TypeError(f"`transform` must be a Transform; got {type(transform).__name__}.")
        if not ((transform.scale - 1).abs() <= NEAR).all():
            raise ValueError("`transform` must be rigid, of scale 1; `Transform.scale` has other scales.")
        rotation = _nearest("transform.rotation", transform.rotation, self.rotation.shape)
        translation = _expanded("transform.translation", transform.translation, self.translation.shape)
        self.rotation.copy_(rotation)
        self.translation.copy_(translation)
        self.turn_before.copy_(self.turn)
        self.shift_before.copy_(self.shift)

    @torch.no_grad()
    def restart(self) -> None:
        """Set `turn` and `shift` to zero, and keep the poses; see `Rotation.restart`.

        Example:
            >>> import svdrot
            >>> svdrot.nn.Pose().restart()
        """
        self._settle()
        for x in (self.turn, self.turn_before, self.shift, self.shift_before):
            x.zero_()

    def extra_repr(self) -> str:
        """Return the batch shape, as `print` shows it."""
        return ", ".join(map(str, self.turn.shape[:-1]))

    def _held(self, clone: bool = False) -> list[Tensor]:
        rotation, translation, turn, shift = (
            self.rotation,
            self.translation,
            self.turn_before,
            self.shift_before,
        )
        if clone:
            rotation, translation, turn, shift = (x.clone() for x in (rotation, translation, turn, shift))
        return [rotation, translation, self.turn, turn, self.shift, shift]

    def _write(self, found: Sequence[Tensor]) -> None:
        _write(
            (self.rotation, found[0]),
            (self.translation, found[1]),
            (self.turn_before, self.turn),
            (self.shift_before, self.shift),
        )

    @torch.no_grad()
    def _settle(self) -> None:
        self._write(steps.posed_and_carried(*self._held()))

    @torch.no_grad()
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        if not self.turn.is_meta:
            self._settle()
        destination[prefix + "rotation"] = self.rotation.detach()
        destination[prefix + "translation"] = self.translation.detach()

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        if not self.turn.is_meta:
            self._settle()
        error_msgs += _prepare(self, state_dict, prefix)
        found = missing_keys, unexpected_keys, error_msgs
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *found)
        _begin_anew(self)


def _batch(shape: tuple[int | Sequence[int], ...]) -> torch.Size:
    """Return a shape that was given number by number, or in one piece."""
    numbers: Any = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    try:
        return torch.Size(numbers)
    except TypeError as error:
        raise TypeError(f"`shape` must be whole numbers, or one tuple of them; got {shape}.") from error


def _kind(
    initial: Tensor | None, device: torch.device | str | None, dtype: torch.dtype | None
) -> dict[str, Any]:
    """Return device and dtype of what is held."""
    if isinstance(initial, Tensor) and initial.is_floating_point():
        dtype, device = dtype or compute_dtype(initial), device or initial.device
    dtype = dtype or torch.get_default_dtype()
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"`dtype` must be float32 or float64; got {dtype}.")
    return {"device": device, "dtype": dtype}


def _goes_on(tangent: Tensor) -> bool:
    """Whether a gradient may be asked for, by a training, not by a transform or in a program."""
    if not (tangent.requires_grad and torch.is_grad_enabled()):
        return False
    if tangent.dtype in HALVES:
        raise TypeError(
            f"Rotations are not trained in {tangent.dtype}, which does not tell steps apart; keep the module "
            "in float32. Autocast, and inference in half precision, are fine."
        )
    if torch.compiler.is_compiling():
        return not is_exporting()
    if forward_ad._current_level >= 0:
        return False
    return not (torch._C._is_tracing() or torch._C._are_functorch_transforms_active())


@torch.no_grad()
def _write(*pairs: tuple[Tensor, Tensor]) -> None:
    for kept, found in pairs:
        kept.copy_(found)


def _expanded(name: str, value: Tensor, shape: torch.Size) -> Tensor:
    try:
        return value.expand(shape)
    except RuntimeError:
        wanted, got = tuple(shape), tuple(value.shape)
        raise ValueError(f"`{name}` must broadcast to shape {wanted}; got {got}.") from None


def _nearest(name: str, value: Tensor, shape: torch.Size | None) -> Tensor:
    """Return the nearest rotations of what is given as matrices, and is nearly that."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"`{name}` must be a floating-point tensor; got {kind}.")
    if value.shape[-2:] != (3, 3):
        raise ValueError(f"`{name}` must have shape (..., 3, 3); got {tuple(value.shape)}.")
    given = value.detach().to(compute_dtype(value))
    found = special_orthogonalize(given)
    off = (given - found).square().sum((-2, -1)).sqrt()
    if not given.is_meta and not (off <= NEAR).all():
        place = tuple((~(off <= NEAR)).nonzero()[0].tolist())
        raise ValueError(
            f"`{name}` must hold rotations, to {NEAR} in Frobenius norm; got one"
            f"{f' at {place}' if place else ''} that is {off[place].item():.2g} from the nearest rotation. "
            f"`svdrot.special_orthogonalize({name})` takes anything."
        )
    return found if shape is None else _expanded(name, found, shape)


def _prepare(module: nn.Module, state_dict: dict[str, Any], prefix: str) -> list[str]:
    """Make of what was saved what torch loads: rotations in either form, and tangents that begin at zero.

    Returns:
        What is wrong with it.
    """
    key, errors = prefix + "rotation", []
    held: Any = module.rotation
    saved = state_dict.get(key)
    if isinstance(saved, Tensor):
        for name, x in module.named_parameters(recurse=False):
            state_dict[prefix + name] = torch.zeros_like(x, device=saved.device)
        try:
            with torch.no_grad():
                matrices = saved.shape == held.shape or saved.shape != (*held.shape[:-2], 4)
                state_dict[key] = _nearest(key, saved if matrices else quaternion_to_matrix(saved), None)
        except (TypeError, ValueError) as error:
            errors.append(str(error))
    else:
        state_dict |= {prefix + name: x.detach() for name, x in module.named_parameters(recurse=False)}
    return errors


def _begin_anew(module: nn.Module) -> None:
    """Take tangents as they are for those of the last forward."""
    for name, x in module.named_parameters(recurse=False):
        setattr(module, f"{name}_before", x.detach().clone())
