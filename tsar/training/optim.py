"""Optimisers: by name, or as objects with parameters of their own.

An :class:`Optimizer` says how to step; a :class:`Stepper` steps, and holds what it remembers of
each parameter by the name of that parameter.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tsar.core.decay import no_decay_names
from tsar.exceptions import ParameterError, TrainingError
from tsar.params.constraints import Interval, check_choice, check_fields, matches
from tsar.params.objects import Storable
from tsar.params.registry import Registry, check_subclass_of
from tsar.training.device import has_fused_optimizers

__all__ = [
    "OPTIMIZERS",
    "OPTIMIZER_CLASSES",
    "Adam",
    "AdamW",
    "Optimizer",
    "ParameterGroup",
    "Stepper",
    "TorchOptimizer",
    "as_optimizer",
    "make_optimizer",
]

Momentum = Annotated[float, Interval(0, 1, open_high=True)]
Factor = Annotated[float, Interval(0, open_low=True)]


class ParameterGroup(NamedTuple):
    """Parameters that are moved in the same way.

    Parameters
    ----------
    parameters : dict of str to nn.Parameter
        By their names in the network.
    decays : bool
        Whether weight decay is for them.
    rate : float
        Factor of the learning rate.
    """

    parameters: dict[str, nn.Parameter]
    decays: bool = True
    rate: float = 1.0


class Stepper(ABC):
    """An optimiser at work on the parameters of a network.

    Parameters
    ----------
    groups : list of ParameterGroup
    learning_rate : float
        May be set anew before every step.

    Attributes
    ----------
    parameters : dict of str to nn.Parameter
    kind : str
        Says whose memory :meth:`moments` returns.
    """

    kind: str

    def __init__(self, groups: list[ParameterGroup], learning_rate: float) -> None:
        self.groups = groups
        self.learning_rate = learning_rate
        self.parameters = {name: p for group in groups for name, p in group.parameters.items()}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @abstractmethod
    def step(self) -> None:
        """Move every parameter that has a gradient."""

    @abstractmethod
    def moments(self) -> dict[str, dict[str, Tensor]]:
        """Return what is remembered of each parameter that was ever moved, by their names."""

    @abstractmethod
    def restore(self, moments: dict[str, dict[str, Tensor]]) -> None:
        """Take over copies of moments; a parameter without any begins anew.

        Raises
        ------
        TrainingError
            If they are not of such parameters.
        """


@dataclass(frozen=True, kw_only=True)
class Optimizer(Storable, ABC):
    """How weights follow their gradients, and in which precision these are computed.

    Parameters
    ----------
    clip : float, optional
        Largest norm of all gradients together; larger ones are scaled down to it.
    precision : {"float32", "bfloat16", "auto"}, default "float32"
        Of the forward and backward pass of a step, and of validation; "auto" is bfloat16 where
        the hardware has it. Weights and moments stay as they are.
    decay_all : bool, default True
        Whether weight decay is for all parameters, as in torch; otherwise biases, weights of
        normalisations, embeddings of positions, and what a module names in ``no_decay`` are
        left alone.
    rates : dict of str to float, optional
        Factors of the learning rate, by pattern of the names of parameters:
        ``{"*head.*": 10.0}``. The first pattern that fits counts.
    """

    kind: ClassVar[str] = "optimizer"

    clip: Factor | None = None
    precision: Literal["float32", "bfloat16", "auto"] = "float32"

    decay_all: bool = True
    rates: dict = field(default_factory=dict)

    @classmethod
    def known_classes(cls) -> Mapping[str, type["Optimizer"]]:
        return OPTIMIZER_CLASSES

    def __post_init__(self) -> None:
        check_fields(self)
        _check_rates(type(self).__name__, self.rates)

    @abstractmethod
    def build(self, network: nn.Module, learning_rate: float) -> Stepper:
        """Return the stepper of the parameters of a network that require gradients."""

    def group(self, network: nn.Module) -> list[ParameterGroup]:
        """Divide the parameters of a network that require gradients.

        Raises
        ------
        ParameterError
            If no parameter has a name of a pattern in ``rates``.
        """
        left_alone = set() if self.decay_all else no_decay_names(network)
        groups: dict[tuple[bool, float], dict[str, nn.Parameter]] = {}
        unused = set(self.rates)
        for name, parameter in network.named_parameters():
            pattern = next((p for p in self.rates if fnmatchcase(name, p)), None)
            unused.discard(pattern)
            if parameter.requires_grad:
                key = (name not in left_alone, self.rates.get(pattern, 1.0))
                groups.setdefault(key, {})[name] = parameter
        if unused:
            names = ", ".join(sorted(name for name, _ in network.named_parameters())[:8])
            raise ParameterError(
                f"{type(self).__name__}: rates has a pattern that is the name of no parameter or "
                f"of such as have another pattern before it, {min(unused)!r}; the parameters are "
                f"{names}, ..."
            )
        return [ParameterGroup(members, *key) for key, members in groups.items()]


def _check_rates(owner: str, rates: Mapping[Any, Any]) -> None:
    for pattern, factor in rates.items():
        if not (isinstance(pattern, str) and matches(factor, Factor)):
            raise ParameterError(
                f"{owner}: rates must give a number in (0, inf) for each pattern of names, got "
                f"{pattern!r}: {factor!r}"
            )


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam; weight decay is a part of the gradient.

    Parameters
    ----------
    weight_decay : float, default 0.0
    betas : pair of float, default (0.9, 0.999)
        How much of the running means of gradients and of their squares a step keeps.
    epsilon : float, default 1e-8
    clip, precision, decay_all, rates
        See :class:`Optimizer`.

    References
    ----------
    Kingma and Ba, "Adam", ICLR 2015, algorithm 1.
    """

    weight_decay: Annotated[float, Interval(0)] = 0.0
    betas: tuple[Momentum, ...] = (0.9, 0.999)
    epsilon: Annotated[float, Interval(0, open_low=True)] = 1e-8

    DECOUPLED: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.betas) != 2:
            raise ParameterError(
                f"{type(self).__name__}: betas must be two numbers, got {self.betas!r}"
            )

    def build(self, network: nn.Module, learning_rate: float) -> Stepper:
        return AdamStepper(self, self.group(network), learning_rate)


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: weights shrink by the rate times ``weight_decay``.

    Parameters
    ----------
    weight_decay : float, default 0.01
    betas, epsilon, clip, precision, decay_all, rates
        See :class:`Adam`.

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.
    """

    weight_decay: Annotated[float, Interval(0)] = 0.01

    DECOUPLED: ClassVar[bool] = True


class AdamStepper(Stepper):
    """The steps of Adam and AdamW.

    The same as those of ``torch.optim.Adam`` and ``AdamW``, which import the compiler of torch
    when the first of them is made: two seconds and 70 MB in every process that fits.

    Parameters
    ----------
    options : Adam
    groups : list of ParameterGroup
    learning_rate : float

    Attributes
    ----------
    state : dict of str to dict of str to Tensor
        Of each parameter that had a gradient: ``step``, a float32 Tensor of shape (), and the
        means ``exp_avg`` and ``exp_avg_sq``, shaped like the parameter.
    """

    kind = "adam"

    def __init__(self, options: Adam, groups: list[ParameterGroup], learning_rate: float) -> None:
        super().__init__(groups, learning_rate)
        self.options = options
        self.state: dict[str, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        for group in self.groups:
            alike: dict[tuple[torch.device, torch.dtype], list[str]] = {}
            for name, parameter in group.parameters.items():
                if parameter.grad is not None:
                    alike.setdefault((parameter.device, parameter.dtype), []).append(name)
                    if name not in self.state:
                        self.state[name] = {
                            "step": torch.zeros((), device=parameter.device),
                            "exp_avg": torch.zeros_like(parameter),
                            "exp_avg_sq": torch.zeros_like(parameter),
                        }
            for (device, _), names in alike.items():
                self._move(group, device, names)

    def _move(self, group: ParameterGroup, device: torch.device, names: list[str]) -> None:
        moved: list[Tensor] = [group.parameters[name] for name in names]
        gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
        steps, means, squares = (
            [self.state[name][entry] for name in names]
            for entry in ("step", "exp_avg", "exp_avg_sq")
        )
        torch._foreach_add_(steps, 1)
        move = self._fused if has_fused_optimizers(device) else self._plain
        rate = self.learning_rate * group.rate
        decay = self.options.weight_decay if group.decays else 0.0
        move(rate, decay, moved, gradients, means, squares, steps)

    def _fused(
        self,
        rate: float,
        decay: float,
        parameters: list[Tensor],
        gradients: list[Tensor],
        means: list[Tensor],
        squares: list[Tensor],
        steps: list[Tensor],
    ) -> None:
        """Move all parameters in one pass instead of a dozen small ones for each."""
        kernel = torch._fused_adamw_ if self.options.DECOUPLED else torch._fused_adam_
        kernel(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            lr=rate,
            beta1=self.options.betas[0],
            beta2=self.options.betas[1],
            weight_decay=decay,
            eps=self.options.epsilon,
            amsgrad=False,
            maximize=False,
        )

    def _plain(self, rate: float, decay: float, *tensors: list[Tensor]) -> None:
        """Move one parameter after the other, as the formula is written."""
        kept_of_mean, kept_of_squares = self.options.betas
        for parameter, gradient, mean, square, step in zip(*tensors, strict=True):
            if self.options.DECOUPLED:
                parameter.mul_(1 - rate * decay)
            else:
                gradient = gradient + decay * parameter
            mean.lerp_(gradient, 1 - kept_of_mean)
            square.lerp_(gradient.square(), 1 - kept_of_squares)
            size = rate / (1 - kept_of_mean**step)
            spread = (square / (1 - kept_of_squares**step)).sqrt_() + self.options.epsilon
            parameter.sub_(size * mean / spread)

    def moments(self) -> dict[str, dict[str, Tensor]]:
        return self.state

    def restore(self, moments: dict[str, dict[str, Tensor]]) -> None:
        self.state = {}
        for name, entries in moments.items():
            parameter = self.parameters[name]
            # The kernel trusts the shapes that it is given.
            means = (parameter.shape, parameter.dtype)
            expected = {"step": ((), torch.float32), "exp_avg": means, "exp_avg_sq": means}
            held = {entry: (tensor.shape, tensor.dtype) for entry, tensor in entries.items()}
            if held != expected:
                raise TrainingError(
                    f"training cannot continue, because the moments of {name!r} are "
                    f"{_listed(held)}, and should be {_listed(expected)}"
                )
            # A copy on its own device, too: steps are made in place.
            self.state[name] = {
                entry: tensor.to(parameter.device, copy=True) for entry, tensor in entries.items()
            }


def _listed(shapes: Mapping[str, tuple[Any, torch.dtype]]) -> str:
    return ", ".join(f"{name} {dtype} {tuple(shape)}" for name, (shape, dtype) in shapes.items())


@dataclass(frozen=True, init=False, repr=False)
class TorchOptimizer(Optimizer):
    """Any optimiser of ``torch.optim``, or of that kind.

    Parameters
    ----------
    factory : type
        A subclass of ``torch.optim.Optimizer`` whose steps need no closure.
    clip, precision, decay_all, rates
        See :class:`Optimizer`.
    **options
        As the class takes them, but for the learning rate, which is the schedule's.

    Examples
    --------
    >>> import torch
    >>> from tsar.training import TorchOptimizer
    >>> TorchOptimizer(torch.optim.SGD, momentum=0.9)
    TorchOptimizer(SGD, momentum=0.9)
    """

    factory: type = torch.optim.Optimizer
    options: dict = field(default_factory=dict)

    def __init__(
        self,
        factory: type,
        *,
        clip: float | None = None,
        precision: Literal["float32", "bfloat16", "auto"] = "float32",
        decay_all: bool = True,
        rates: dict[str, float] | None = None,
        **options: Any,
    ) -> None:
        stated = {
            **{"factory": factory, "options": options, "clip": clip, "precision": precision},
            **{"decay_all": decay_all, "rates": {} if rates is None else rates},
        }
        for name, value in stated.items():
            object.__setattr__(self, name, value)
        super().__post_init__()
        if not (isinstance(factory, type) and issubclass(factory, torch.optim.Optimizer)):
            raise ParameterError(
                f"TorchOptimizer: factory must be a class of optimisers such as torch.optim.SGD, "
                f"got {factory!r}"
            )
        closure = inspect.signature(factory.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise ParameterError(
                f"TorchOptimizer: a step of {factory.__name__} needs a closure, which there is "
                f"none of; take another optimiser"
            )
        if "lr" in options:
            raise ParameterError(
                f"TorchOptimizer: lr={options['lr']!r} is the learning rate of the training; give "
                f"it there as learning_rate"
            )

    def __repr__(self) -> str:
        shown = {name: value for name, value in self.options.items()}
        shown |= {
            option.name: getattr(self, option.name)
            for option in fields(Optimizer)
            if getattr(self, option.name) not in (option.default, {})
        }
        listed = [self.factory.__name__, *(f"{name}={value!r}" for name, value in shown.items())]
        return f"TorchOptimizer({', '.join(listed)})"

    def build(self, network: nn.Module, learning_rate: float) -> Stepper:
        groups = self.group(network)
        described = [
            {
                "params": list(group.parameters.values()),
                "lr": learning_rate * group.rate,
                **({} if group.decays else {"weight_decay": 0.0}),
            }
            for group in groups
        ]
        try:
            optimizer = self.factory(described, lr=learning_rate, **self.options)
        except (TypeError, ValueError, IndexError) as error:
            names = ", ".join(list(inspect.signature(self.factory).parameters)[2:])
            raise ParameterError(
                f"{self!r}: {error}; its options are {names}, as torch documents them"
            ) from None
        return TorchStepper(optimizer, groups, learning_rate)


class TorchStepper(Stepper):
    """Steps of an optimiser of torch.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its groups are ``groups``.
    groups : list of ParameterGroup
    learning_rate : float
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        groups: list[ParameterGroup],
        learning_rate: float,
    ) -> None:
        super().__init__(groups, learning_rate)
        self.optimizer = optimizer
        self.kind = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"

    def step(self) -> None:
        for group, described in zip(self.groups, self.optimizer.param_groups, strict=True):
            described["lr"] = self.learning_rate * group.rate
        self.optimizer.step()

    def moments(self) -> dict[str, dict[str, Tensor]]:
        held = {}
        for name, parameter in self.parameters.items():
            if parameter in self.optimizer.state:
                entries = self.optimizer.state[parameter].items()
                held[name] = {
                    entry: torch.as_tensor(value) for entry, value in entries if value is not None
                }
        return held

    def restore(self, moments: dict[str, dict[str, Tensor]]) -> None:
        places = {name: place for place, name in enumerate(self.parameters)}
        # Torch copies none of the tensors that already are where they belong.
        held = {
            places[name]: {entry: tensor.clone() for entry, tensor in entries.items()}
            for name, entries in moments.items()
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": held})


OPTIMIZERS: dict[str, type[Adam]] = {"adam": Adam, "adamw": AdamW}


def as_optimizer(optimizer: str | Optimizer) -> Optimizer:
    """Return the optimiser of a name with its defaults, or the object that is given.

    Parameters
    ----------
    optimizer : {"adam", "adamw"} or Optimizer

    Raises
    ------
    ParameterError
        If there is none of that name.
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    check_choice("make_optimizer", "optimizer", optimizer, OPTIMIZERS)
    return OPTIMIZERS[optimizer]()


# Those whose objects are saved with a model.
OPTIMIZER_CLASSES: Registry[type[Optimizer]] = Registry(
    "optimizer",
    "tsar.optimizers",
    {cls.__name__: cls for cls in (Adam, AdamW, TorchOptimizer)},
    check_subclass_of(Optimizer, "an optimizer", "tsar.training"),
)


def make_optimizer(optimizer: str | Optimizer, network: nn.Module, learning_rate: float) -> Stepper:
    """Build what moves the parameters of a network.

    Parameters
    ----------
    optimizer : {"adam", "adamw"} or Optimizer
    network : nn.Module
        Its parameters that do not require gradients are left as they are.
    learning_rate : float

    Raises
    ------
    ParameterError
        If there is none of that name.
    """
    return as_optimizer(optimizer).build(network, learning_rate)
