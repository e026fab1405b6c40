"""The base of every estimator of every family: it knows parameters and a state, and no data."""

import contextlib
import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sklearn.base import clone
from torch import Tensor

from tsar.estimator.description import description
from tsar.estimator.documentation import PlainSignature, complete
from tsar.estimator.saving import save
from tsar.exceptions import NotFittedError, ParameterError
from tsar.params.constraints import check_parameters
from tsar.params.parameter_names import check_names

if TYPE_CHECKING:

    class BaseEstimator:
        """What scikit-learn's class has, which says no types: a checker would let all pass."""

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...

        def set_params(self, **params: Any) -> Self: ...

else:
    from sklearn.base import BaseEstimator

__all__ = ["Estimator"]


@dataclass(kw_only=True, eq=False, repr=False)
class Estimator(BaseEstimator, ABC):
    """An estimator of scikit-learn whose parameters are the fields of a dataclass.

    A subclass is a keyword-only dataclass; each field is a parameter, with its constraint as
    ``Annotated`` metadata. It gives :meth:`learned_state` and :meth:`restore_learned_state`,
    and calls :meth:`remember_parameters` when all else of ``fit`` has gone well.

    Attributes
    ----------
    fitted_parameters_ : dict
        The parameters that ``fit`` was called with.
    """

    # Parameters that may hold something outside of the model, which is not saved with it: what
    # was an object is passed again to tsar.load.
    references: ClassVar[frozenset[str]] = frozenset()
    # Those of them whose text names something that may have moved, such as a folder.
    moving_references: ClassVar[frozenset[str]] = frozenset()
    # The form of the record of :meth:`learned_state`, a TypedDict that loading checks it against.
    learned_record: ClassVar[Any] = dict[str, Any]

    # What the parameters that a class declares are about: "model", "training" or "data", and
    # those of them that are about something else. For docstrings and signatures.
    parameter_group: ClassVar[str] = "model"
    other_groups: ClassVar[Mapping[str, str]] = {}

    __signature__: ClassVar[Any] = PlainSignature()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        complete(cls)

    # ----------------------------------------------------------- parameters

    if not TYPE_CHECKING:  # A checker reads the signature of the constructor.

        def __new__(cls, *args: Any, **params: Any) -> Self:
            """Refuse names that the constructor does not have, before it does so in fewer words."""
            # One that a subclass made a class variable is none of them.
            if not params.keys() <= {field.name for field in fields(cls)}:
                check_names(cls.__name__, params, cls._get_param_names())
            return super().__new__(cls)

    @classmethod
    def upgrade_parameters(cls, saved: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters of a saved model as this version has them.

        Parameters
        ----------
        saved : dict
            As an earlier version wrote them, or this one; it stays as it is.
        """
        return dict(saved)

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of a part such as another estimator as ``<name>__<parameter>``.

        Parameters
        ----------
        **params

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            A part has no parameters that could be set, such as an optimiser, which never changes.
        UnknownParameterError
            There is no such parameter.
        """
        own = self.get_params(deep=False)
        check_names(self.name, {key: params[key] for key in params if "__" not in key}, own)
        for key, value in params.items():
            name, nested, inner = key.partition("__")
            part = params.get(name, own.get(name))
            if nested and name in own and not hasattr(part, "set_params"):
                raise ParameterError(
                    f"{self.name}: {key} would set a parameter of {name}={part!r}, which cannot be "
                    f"changed; pass a new one as {name}=, with {inner}={value!r}"
                )
        return super().set_params(**params)

    @property
    def name(self) -> str:
        """What messages call the estimator."""
        return type(self).__name__

    def check(self) -> None:
        """Check every parameter, and what involves several of them, before any work.

        Raises
        ------
        ParameterError
            One is outside its constraint, or some do not go together.
        """
        check_parameters(self)
        for part in self.parts:
            part.check()
        self._check_consistency()

    @property
    def parts(self) -> "Sequence[Estimator]":
        """The estimators among the parameters, as ``fit`` will use them; checked with it."""
        return ()

    def _check_consistency(self) -> None:
        """Check what involves several parameters; raise a ParameterError."""

    def check_stored(self) -> None:
        """Check the parameters of a saved model, as far as this machine can tell.

        Raises
        ------
        ParameterError
            As from :meth:`check`.
        """
        check_parameters(self)
        for part in self.parts:
            part.check_stored()
        # What they refer to may be elsewhere by now.
        if all(getattr(self, name) is None for name in self.moving_references):
            self._check_consistency()

    def __sklearn_clone__(self) -> Self:
        """Copy the parameters; what refers to something outside of the model is the same."""
        bare = copy.copy(self)
        shared = {name: bare.__dict__.pop(name) for name in self.moving_references}
        twin: Self = super(Estimator, bare).__sklearn_clone__()  # type: ignore[misc]
        twin.__dict__.update(shared)
        return twin

    # --------------------------------------------------------------- fitted

    def remember_parameters(self) -> None:
        """Keep the parameters of this fit, whatever ``set_params`` changes later."""
        parameters = self.get_params(deep=False)
        shared = {name: parameters.pop(name) for name in self.moving_references}
        self.fitted_parameters_ = _copied(parameters) | shared

    @property
    def as_fitted(self) -> Self:
        """The estimator with the parameters it was fitted with."""
        fitted = copy.copy(self)
        fitted.__dict__.update(self.fitted_parameters_)
        return fitted

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fitted_parameters_")

    def check_fitted(self) -> None:
        """Raise a NotFittedError unless ``fit`` was called."""
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(f"{self.name} is not fitted yet; call fit first")

    def describe(self) -> dict[str, Any]:
        """Return what was fitted, on which data and how, as plain values that JSON can hold.

        Returns
        -------
        dict
            ``model``, its class; ``manifest``, the data, times and versions of the fit of a
            forecaster, or None, with the reason in ``missing``; ``seed``; ``metrics``, the losses
            of the best epoch of a network; ``parameters`` as texts; ``members``, the same of the
            models that it is made of.

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        """
        self.check_fitted()
        return description(self)

    # ---------------------------------------------------------- persistence

    def save(self, folder: str | os.PathLike[str], *, training_state: bool = True) -> None:
        """Write the fitted model into a folder, to be read by :func:`tsar.load`.

        Parameters
        ----------
        folder : path or address
            Created, or replaced if it holds a saved model. At an address such as
            ``s3://bucket/name`` (the extra ``remote``) the manifest is written last, so that a
            model which is half written cannot be loaded.
        training_state : bool, default True
            Whether to save what ``partial_fit`` of a network goes on with, the moments of the
            optimiser above all: two numbers for each weight. Without, training continues from
            the weights with a fresh optimiser.

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        PersistenceError
            The folder holds something else or cannot be written.
        """
        with contextlib.nullcontext() if training_state else self.training_finished():
            save(self, folder)

    @contextlib.contextmanager
    def training_finished(self) -> Iterator[None]:
        """Leave out, inside of a ``with`` block, what training would go on with."""
        with contextlib.ExitStack() as stack:
            if self.__sklearn_is_fitted__():
                for member in self.members.values():
                    stack.enter_context(member.training_finished())
            yield

    @property
    def members(self) -> "Mapping[str, Estimator]":
        """Fitted estimators that this one is made of, by name; they are saved with it."""
        return {}

    @abstractmethod
    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what ``fit`` learned: a record for JSON, and tensors by name.

        What the members learned is theirs to say.
        """

    @abstractmethod
    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: "Mapping[str, Estimator]",
    ) -> None:
        """Undo :meth:`learned_state`, and :attr:`members`."""


def _copied(value: Any) -> Any:
    """Copy what a parameter holds that can be changed from outside: estimators, lists, dicts."""
    if isinstance(value, Estimator):
        return clone(value)
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    if type(value) is dict:
        return {name: _copied(item) for name, item in value.items()}
    return value


complete(Estimator)
