r"""SGD and Adam for parameters that are matrices with orthonormal columns: SO(n), and Stiefel manifolds.

Tangents at Q are $\Delta = Q X + Q_\perp B$ with X skew. The metric is the canonical one of Edelman, Arias
and Smith, $\operatorname{tr} \Delta^\top (I - Q Q^\top / 2) \Delta$, in which the gradient is
$G - Q G^\top Q$. Of square matrices it is Q X with $X = Q^\top G - G^\top Q$, and X is what momenta are made
of: coordinates of the frame before Q, in which they need no transport. For 3x3 these are rotation vectors in
radians, and a step is that of torch's optimizer on `svdrot.nn.Rotation`. Of matrices that are not square
there is no such frame; their momenta are tangents, projected to the new tangent space after each step,
$Z - Q (Q^\top Z + Z^\top Q) / 2$.
"""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*, which torch's own optimizers are made of, are private in name only.

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from svdrot._checks import check_matrix
from svdrot._formulas.geometry import steps
from svdrot._kernels.operations import nearby
from svdrot._precision import in_full_precision

from ._tensors import grouped, stacked


class _Riemannian(Optimizer):
    """Step parameters of one shape together, along what `_direction` makes of gradients and states."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step all parameters that have a gradient.

        Args:
            closure: a function that computes gradients and returns the loss, called once before the step.

        Returns:
            What the closure returned, or None.

        Raises:
            ValueError: if a gradient is sparse.

        Example:
            >>> import torch, svdrot
            >>> p = torch.nn.Parameter(torch.eye(3))
            >>> p.grad = svdrot.hat(torch.tensor([0.0, 0.0, 0.5]))
            >>> svdrot.optim.RiemannianSGD([p], lr=0.1).step()
            >>> svdrot.matrix_to_axis_angle(p.detach()) + 0
            tensor([ 0.0000,  0.0000, -0.1000])
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if p.grad.layout != torch.strided:
                    raise ValueError(f"Gradients must be dense; got {p.grad.layout}.")
                self._begin(self.state[p], p, group)
            keys = [(p.shape, p.dtype, p.device, self._clock(self.state[p])) for p in params]
            for same in grouped(keys):
                self._step([params[i] for i in same], group)
        return loss

    def _step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[p] for p in params]
        names = [name for name in states[0] if name != "step"]
        gradients = [p.grad for p in params if p.grad is not None]
        q, g = _tall(stacked(params)), _tall(stacked(gradients).to(params[0].dtype))
        state = {name: _joined([s[name] for s in states], params[0].ndim - 2) for name in names}
        gradient = _gradient(q, -g if group["maximize"] else g)
        direction = self._direction(gradient, state, states, group)
        q = _moved(q, direction.mul_(-group["lr"]))
        if q.shape[-1] != q.shape[-2]:
            for name in self._tangents & {*names}:
                state[name] = _projected(q, state[name])
        torch._foreach_copy_(params, [*_untall(q, params)])
        for name, value in state.items():
            kept = [s[name] for s in states]
            torch._foreach_copy_(kept, [*value.reshape(len(kept), *kept[0].shape)])

    _tangents = frozenset({"momentum_buffer", "exp_avg"})

    def _begin(self, state: dict[str, Any], p: Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError

    def _clock(self, state: dict[str, Any]) -> float:
        """By what states must agree to be stepped together."""
        return float(state["step"])

    def _direction(
        self,
        gradient: Tensor,
        state: dict[str, Tensor],
        states: list[dict[str, Any]],
        group: dict[str, Any],
    ) -> Tensor:
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group and check it, as the constructor does for the first ones.

        Args:
            param_group: "params", and options that differ from the defaults.

        Raises:
            ValueError: as the constructor. The group is then not added.
            TypeError: as the constructor.

        Example:
            >>> import torch, svdrot
            >>> optimizer = svdrot.optim.RiemannianSGD([torch.nn.Parameter(torch.eye(3))], lr=0.1)
            >>> optimizer.add_param_group({"params": [torch.nn.Parameter(torch.eye(5, 2))], "lr": 0.01})
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            if not 0 <= group["lr"] < math.inf:
                raise ValueError(f"`lr` must be finite and not negative; got {group['lr']}.")
            self._check_options(group)
            for i, p in enumerate(group["params"]):
                _check_parameter(group, i, p)
        except Exception:
            self.param_groups.pop()
            raise

    def _check_options(self, group: dict[str, Any]) -> None:
        raise NotImplementedError


class RiemannianSGD(_Riemannian):
    r"""Step matrices with orthonormal columns down their Riemannian gradient, and keep them orthonormal.

    Of 3x3 matrices a step is $Q \leftarrow Q \exp([-\eta\, d]_\times)$, the same as that of
    `torch.optim.SGD` on `svdrot.nn.Rotation`; of others $Q \leftarrow \mathrm{polar}(Q - \eta D)$. All
    parameters of one shape in a group are taken together. There is no weight decay: all such matrices have
    the same norm.

    Args:
        params: parameters, named or not, or groups of them, each (..., m, n) with orthonormal columns, or
            rows where it is wide. Square ones keep the sign of their determinant.
        lr: learning rate; of rotations the step in radians over the gradient by radians.
        momentum: of the tangents, in [0, 1); see above for what carries them to the next tangent space.
        dampening: as in `torch.optim.SGD`.
        nesterov: as in `torch.optim.SGD`, on tangents.
        maximize: ascend.

    A NaN in the gradient of one matrix spoils that matrix alone.

    Raises:
        ValueError: if an option is out of range, or a parameter is not orthonormal: it says how far it is.
        TypeError: if a parameter is neither float32 nor float64.

    Source:
        Edelman, Arias and Smith, SIAM J. Matrix Anal. Appl. 20 (1998), section 2.4; Absil, Mahony and
        Sepulchre, "Optimization Algorithms on Matrix Manifolds" (2008), section 4.1; Bonnabel, IEEE TAC 58
        (2013), for stochastic gradients.

    Example:
        >>> import torch, svdrot
        >>> a = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
        >>> q = torch.nn.Parameter(svdrot.orthogonalize(torch.ones(4, 4).tril()[:, :2]))
        >>> optimizer = svdrot.optim.RiemannianSGD([q], lr=0.1, maximize=True)
        >>> for _ in range(200):
        ...     optimizer.zero_grad()
        ...     torch.trace(q.mT @ a @ q).backward()
        ...     optimizer.step()
        >>> round(torch.trace(q.mT @ a @ q).item(), 4)  # the two largest eigenvalues
        7.0
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ):
        options = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
        super().__init__(params, {"lr": lr, **options, "maximize": maximize})

    def _check_options(self, group: dict[str, Any]) -> None:
        for name in ("momentum", "dampening"):
            if not 0 <= group[name] < 1:
                raise ValueError(f"`{name}` must be in [0, 1); got {group[name]}.")
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError("`nesterov` needs a `momentum`, and no `dampening`.")

    def _begin(self, state: dict[str, Any], p: Tensor, group: dict[str, Any]) -> None:
        if group["momentum"] and "momentum_buffer" not in state:
            state["step"] = torch.zeros(())
            state["momentum_buffer"] = _tangent_of(p)

    def _clock(self, state: dict[str, Any]) -> float:
        return float("step" in state and state["step"] > 0)

    def _direction(
        self,
        gradient: Tensor,
        state: dict[str, Tensor],
        states: list[dict[str, Any]],
        group: dict[str, Any],
    ) -> Tensor:
        if "momentum_buffer" not in state:
            return gradient
        mu, buffer = group["momentum"], state["momentum_buffer"]
        if self._clock(states[0]):
            buffer = buffer.mul(mu).add_(gradient, alpha=1 - group["dampening"])
        else:
            buffer = gradient.clone()
        for s in states:
            s["step"] += 1
        state["momentum_buffer"] = buffer
        return gradient.add(buffer, alpha=mu) if group["nesterov"] else buffer.clone()


class RiemannianAdam(_Riemannian):
    r"""Step matrices with orthonormal columns by Adam on their tangents, and keep them orthonormal.

    Of square matrices the moments are of the entries of $X = Q^\top G - G^\top Q$, coordinates of the frame
    before Q, of which there is one basis for all Q: of 3x3 it is `torch.optim.Adam` on `svdrot.nn.Rotation`.
    Others have no such basis, and one second moment for all entries of a matrix, the mean of their squares,
    as in the works below: with entries scaled apart the step would not be along a tangent. There is no
    weight decay: all such matrices have the same norm.

    Args:
        params: as for `RiemannianSGD`.
        lr: learning rate; of 3x3, about the radians of a step about each axis.
        betas: of the two moments, in [0, 1).
        eps: added to the root of the second moment.
        amsgrad: whether the second moment is the largest so far.
        maximize: ascend.

    Raises:
        ValueError: as `RiemannianSGD`.
        TypeError: as `RiemannianSGD`.

    Source:
        Bécigneul and Ganea, "Riemannian Adaptive Optimization Methods", ICLR 2019, arXiv 1810.00760; Li, Li
        and Todorovic, "Efficient Riemannian Optimization on the Stiefel Manifold via the Cayley Transform",
        ICLR 2020, arXiv 2002.01113 (which steps by another retraction).

    Example:
        >>> import torch, svdrot
        >>> truth = svdrot.axis_angle_to_matrix(torch.tensor([0.3, -0.5, 1.0]))
        >>> q = torch.nn.Parameter(torch.eye(3))
        >>> optimizer = svdrot.optim.RiemannianAdam([q], lr=0.05)
        >>> for _ in range(300):
        ...     optimizer.zero_grad()
        ...     (q - truth).square().sum().backward()
        ...     optimizer.step()
        >>> svdrot.geodesic_distance(q, truth) < 1e-3
        tensor(True)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        amsgrad: bool = False,
        maximize: bool = False,
    ):
        options = {"lr": lr, "betas": betas, "eps": eps, "amsgrad": amsgrad, "maximize": maximize}
        super().__init__(params, options)

    def _check_options(self, group: dict[str, Any]) -> None:
        if not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"`betas` must be in [0, 1); got {group['betas']}.")
        if not group["eps"] >= 0:
            raise ValueError(f"`eps` must not be negative; got {group['eps']}.")

    def _begin(self, state: dict[str, Any], p: Tensor, group: dict[str, Any]) -> None:
        if "exp_avg" not in state:
            first = _tangent_of(p)
            square = p.shape[-1] == p.shape[-2]
            second = first if square else first[..., :1, :1]
            state["step"] = torch.zeros(())
            state["exp_avg"] = first
            state["exp_avg_sq"] = torch.zeros_like(second, memory_format=torch.contiguous_format)
        if group["amsgrad"] and "max_exp_avg_sq" not in state:
            state["max_exp_avg_sq"] = torch.zeros_like(state["exp_avg_sq"])

    def _direction(
        self,
        gradient: Tensor,
        state: dict[str, Tensor],
        states: list[dict[str, Any]],
        group: dict[str, Any],
    ) -> Tensor:
        beta1, beta2 = group["betas"]
        square = gradient.square()
        if state["exp_avg_sq"].shape[1:] != gradient.shape[1:]:
            square = square.mean((-2, -1), keepdim=True)
        for s in states:
            s["step"] += 1
        time = self._clock(states[0])
        state["exp_avg"] = first = state["exp_avg"].lerp(gradient, 1 - beta1)
        state["exp_avg_sq"] = second = state["exp_avg_sq"].lerp(square, 1 - beta2)
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = second = torch.maximum(state["max_exp_avg_sq"], second)
        size = (second.sqrt() / math.sqrt(1 - beta2**time)).add_(group["eps"])
        return first / size / (1 - beta1**time)


def _check_parameter(group: dict[str, Any], i: int, p: Tensor) -> None:
    name = group["param_names"][i] if "param_names" in group else f"params[{i}]"
    check_matrix(name, p)
    if p.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"`{name}` must be float32 or float64; got {p.dtype}, too coarse for steps.")
    if p.is_meta:
        return
    q = _tall(p.detach()[None])
    far = nearby.orthonormality(q).max().item()
    if not far <= math.sqrt(torch.finfo(p.dtype).eps):  # a step takes off what rounding has left
        kind = "rows" if p.shape[-2] < p.shape[-1] else "columns"
        raise ValueError(
            f"`{name}` must have orthonormal {kind}; got |QᵀQ - I| up to {far:.2g}. "
            f"`svdrot.orthogonalize` makes the nearest that has."
        )


def _tall(stack: Tensor) -> Tensor:
    """Matrices (K, ..., m, n) as one batch of tall ones, (B, m, n)."""
    rows, columns = stack.shape[-2:]
    x = stack.reshape(-1, rows, columns)
    return (x.mT if rows < columns else x).contiguous()


def _untall(q: Tensor, params: list[Tensor]) -> Tensor:
    shape = params[0].shape
    return (q.mT if shape[-2] < shape[-1] else q).reshape(len(params), *shape)


def _joined(states: list[Tensor], batch: int) -> Tensor:
    """States (*batch, ...) of parameters as one, (B, ...)."""
    return stacked(states).flatten(0, batch)


def _tangent_of(p: Tensor) -> Tensor:
    """Zero, as momenta are kept: a vector of 3 for rotations of space, matrices of the tall shape else."""
    rows, columns = p.shape[-2:]
    batch = p.shape[:-2]
    if rows == columns == 3:
        return p.new_zeros(*batch, 3)
    return p.new_zeros(*batch, max(rows, columns), min(rows, columns))


def _gradient(q: Tensor, g: Tensor) -> Tensor:
    if q.shape[-2:] == (3, 3):
        return steps.algebra(q, g)
    return _canonical(q, g)


@in_full_precision
def _canonical(q: Tensor, g: Tensor) -> Tensor:
    a = q.mT @ g
    return a - a.mT if q.shape[-1] == q.shape[-2] else g - q @ a.mT


def _moved(q: Tensor, step: Tensor) -> Tensor:
    if q.shape[-2:] == (3, 3):
        return steps.advanced(q, step)
    return nearby.orthogonalize(_added(q, step))


@in_full_precision
def _added(q: Tensor, step: Tensor) -> Tensor:
    return torch.baddbmm(q, q, step) if q.shape[-1] == q.shape[-2] else q + step


@in_full_precision
def _projected(q: Tensor, z: Tensor) -> Tensor:
    a = q.mT @ z
    return z - q @ (a + a.mT).mul_(0.5)
