"""Self-supervised pre-training of networks over patches: hide patches and reconstruct them.

Dimension letters: B windows in a batch, L context steps, C variates, P patches, D width of a
token.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self, TypedDict

import torch
from torch import Tensor, nn

from tsar.core.dropout import Dropout
from tsar.core.linear import Linear
from tsar.data.covariates import CovariateCoding
from tsar.data.panel import Panel
from tsar.data.stored_panel import PanelRecord
from tsar.data.windows import Windows
from tsar.estimator.base import Estimator
from tsar.exceptions import ParameterError, PersistenceError, PretrainingWarning, warn
from tsar.forecasting.layers.embedding import PatchEmbedding
from tsar.forecasting.layers.instance_norm import RevIN
from tsar.forecasting.network import (
    NetworkFitted,
    NetworkForecaster,
    NetworkRecord,
    NetworkSpec,
)
from tsar.forecasting.network_spec import digest_of_series
from tsar.forecasting.outputs.losses import MSELoss
from tsar.forecasting.outputs.objective import ForecastNetwork, ForecastObjective
from tsar.forecasting.outputs.output import PointOutput
from tsar.forecasting.probabilistic.calibration import CalibrationRecord
from tsar.forecasting.run_manifest import ManifestRecord
from tsar.params.arguments import Frame
from tsar.params.constraints import Interval, check_value
from tsar.params.records import check_record
from tsar.training.checkpoint import Checkpoint, checkpoints_in
from tsar.training.device import resolve_device
from tsar.training.objective import Objective
from tsar.training.options import Phase, TrainingOptions
from tsar.training.seeding import make_generator, seeded
from tsar.training.state import TrainingRecord, load_weights

__all__ = ["PatchNetwork", "PretrainedForecaster"]


def draw_hidden(n_series: int, n_patches: int, n_hidden: int, generator: torch.Generator) -> Tensor:
    """Choose ``n_hidden`` patches of every series, each choice as likely as any other.

    Parameters
    ----------
    n_series, n_patches, n_hidden : int
    generator : torch.Generator
        On the CPU, so that the choice is the same on every device.

    Returns
    -------
    bool Tensor of shape (n_series, n_patches)
        True where a patch is hidden.
    """
    order = torch.rand(n_series, n_patches, generator=generator).argsort(dim=1)
    hidden = torch.zeros(n_series, n_patches, dtype=torch.bool)
    return hidden.scatter_(1, order[:, :n_hidden], True)


@dataclass(frozen=True)
class MaskedPatches:
    """What the network sees of a batch: patches (B * C, P, patch_length), 0 where hidden,
    and which of them hold an observation, (B * C, P) or None.
    """

    patches: Tensor
    readable: Tensor | None


@dataclass(frozen=True)
class MaskedBatch:
    """A batch of the reconstruction task, in the form of :class:`tsar.data.windows.Batch`.

    Parameters
    ----------
    inputs : MaskedPatches
    target : Tensor of shape (B * C, P, patch_length)
        All patches of the normalised windows.
    observed : bool Tensor of the same shape
        True where a hidden patch was measured, which is what the loss counts.
    measured : bool Tensor of the same shape or None
        True where any patch was; None when all of them were.
    scale, shift : None
        Errors are those of normalised windows.
    """

    inputs: MaskedPatches
    target: Tensor
    observed: Tensor
    measured: Tensor | None = None
    scale: None = None
    shift: None = None


class MaskedWindows:
    """Windows as a reconstruction task: some patches hidden, and what they were.

    Each window and variate is normalised (RevIN) and cut into patches; ``n_hidden`` of them,
    drawn for every variate anew, are set to 0.

    Parameters
    ----------
    windows : Windows
        Their futures are not read.
    embedding : PatchEmbedding
        Says how to cut.
    n_hidden : int
        Patches to hide of each window and variate.
    seed : int
        Of the choice.
    fixed : bool, default False
        Whether a batch of the same windows always hides the same patches, as validation
        needs; otherwise every batch draws on.

    References
    ----------
    Nie et al., "A time series is worth 64 words", ICLR 2023, section 3.2.
    """

    def __init__(
        self,
        windows: Windows,
        *,
        embedding: PatchEmbedding,
        n_hidden: int,
        seed: int,
        fixed: bool = False,
    ) -> None:
        self.windows = windows
        self.embedding = embedding
        self.n_hidden = n_hidden
        self.seed = seed
        self.fixed = fixed
        self.generator = make_generator(seed)
        self.revin = RevIN()

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, index: Tensor) -> MaskedBatch:
        """Cut and mask the windows with the given numbers, an int Tensor of shape (B,)."""
        inputs = self.windows.batch(index).inputs
        normalised, _, _ = self.revin(inputs.target, inputs.observed)
        patches = self.embedding.cut(normalised)
        if self.fixed:
            self.generator.manual_seed(self.seed + int(index[0]))
        n_series, n_patches, _ = patches.shape
        hidden = draw_hidden(n_series, n_patches, self.n_hidden, self.generator)
        hidden = hidden.to(patches.device).unsqueeze(-1)
        counted, measured, readable = hidden.expand_as(patches), None, None
        if inputs.observed is not None:
            measured = self.embedding.cut(inputs.observed)
            counted = counted & measured
            readable = self.embedding.mask(inputs.observed)
        return MaskedBatch(MaskedPatches(patches * ~hidden, readable), patches, counted, measured)


class PatchNetwork(ForecastNetwork):
    """A forecasting network whose parts below the head can be pre-trained.

    Attributes
    ----------
    embedding : PatchEmbedding
    BACKBONE : tuple of str
        Names of the modules below the head.
    """

    BACKBONE: ClassVar[tuple[str, ...]]
    embedding: PatchEmbedding

    def encode(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode embedded patches (B * C, P, D); ``mask`` (B * C, P) says which to read."""
        raise NotImplementedError

    def backbone_weights(self) -> dict[str, Tensor]:
        """Copy the weights below the head to the CPU."""
        return {
            name: weight.detach().cpu().clone()
            for name, weight in self.state_dict().items()
            if name.split(".")[0] in self.BACKBONE
        }

    def load_backbone(self, weights: dict[str, Tensor]) -> None:
        """Take the weights that :meth:`backbone_weights` copied, and keep the head."""
        load_weights(self, {**self.state_dict(), **weights})


class PatchReconstruction(nn.Module):
    """The network of the pre-training: a linear map from every token back to its patch.

    Parameters
    ----------
    network : PatchNetwork
        Its own head is not used.
    dropout : float
        Of the tokens before the map.

    References
    ----------
    Nie et al., "A time series is worth 64 words", ICLR 2023, section 3.2.
    """

    def __init__(self, network: PatchNetwork, *, dropout: float) -> None:
        super().__init__()
        self.network = network
        self.dropout = Dropout(dropout)
        project = network.embedding.project
        self.head = Linear(project.out_features, project.in_features)

    def forward(self, inputs: MaskedPatches) -> Tensor:
        """Reconstruct all patches, (B * C, P, patch_length)."""
        tokens = self.network.embedding.project(inputs.patches)
        tokens = self.network.encode(tokens, inputs.readable)
        return self.head(self.dropout(tokens))


@dataclass(frozen=True)
class Backbone:
    """Pre-trained weights, and the parameters of the estimator that they belong to."""

    weights: dict[str, Tensor]
    parameters: dict[str, Any]


# Of the head alone in end-to-end fine-tuning, as in the paper.
HEAD_EPOCHS = 10
# Neither nothing nor everything.
Inside = Annotated[float, Interval(0, 1, open_low=True, open_high=True)]


class PretrainingRecord(TypedDict):
    """What JSON holds of a pre-training."""

    parameters: dict[str, Any]
    history: dict[str, list[float]]


class PretrainedRecord(TypedDict, total=False):
    """What JSON holds of a model that may be pre-trained, fitted, or both."""

    data: PanelRecord
    fitted: NetworkFitted
    training: TrainingRecord
    calibration: CalibrationRecord
    manifest: ManifestRecord
    pretraining: PretrainingRecord


@dataclass(kw_only=True, eq=False, repr=False)
class PretrainedForecaster(NetworkForecaster):
    """A forecaster whose network can learn from patches before it learns to forecast.

    Parameters
    ----------
    patch_length, stride : int, default 16 and 8
        Steps in a patch, and from one patch to the next.
    end_padding : bool, default True
        Repeat the last value ``stride`` times before cutting patches.
    dropout : float, default 0.3
        After the embedding, in the feed-forward part and on both branches of a block.
    fine_tuning : {"end_to_end", "linear_probe"} or int, default "end_to_end"
        What ``fit`` trains after ``pretrain``: nothing but the head, or first the head alone,
        for 10 epochs or as many as a number says, and then for ``max_epochs`` everything at
        half the learning rate.
    """

    patch_length: Annotated[int, Interval(1)] = 16
    stride: Annotated[int, Interval(1)] = 8
    end_padding: bool = True
    dropout: Annotated[float, Interval(0, 1, open_high=True)] = 0.3
    fine_tuning: Literal["end_to_end", "linear_probe"] | Annotated[int, Interval(0)] = "end_to_end"

    # Parameters that pre-trained weights belong to.
    learned_record: ClassVar[Any] = PretrainedRecord
    _architecture: ClassVar[tuple[str, ...]]

    @classmethod
    def upgrade_parameters(cls, saved: dict[str, Any]) -> dict[str, Any]:
        parameters = super().upgrade_parameters(saved)
        # Of end-to-end fine-tuning, a parameter of its own once.
        alone = parameters.pop("head_epochs", HEAD_EPOCHS)
        if parameters.get("fine_tuning") == "end_to_end" and alone != HEAD_EPOCHS:
            parameters["fine_tuning"] = alone
        return parameters

    def choose(self, panel: Panel) -> dict[str, Any]:
        return self._as_pretrained(super().choose(panel))

    def _as_pretrained(self, chosen: dict[str, Any]) -> dict[str, Any]:
        """Return choices that are those of the pre-training, where there was one."""
        if not self._is_pretrained:
            return chosen
        sizes = self._backbone.parameters
        return chosen | {name: sizes[name] for name in chosen.keys() & sizes.keys()}

    @property
    def _shortest_context(self) -> int:
        return self.patch_length or 1

    # ------------------------------------------------------------- pre-training

    # The caller may have turned gradients off around it.
    @torch.inference_mode(False)
    @torch.enable_grad()
    def pretrain(
        self,
        df: Frame,
        *,
        mask_ratio: float = 0.4,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train the network below its head to reconstruct hidden patches of ``df``.

        Afterwards ``fit`` starts from these weights, each time anew, on any data: only the
        parameters that shape the network have to stay (``context_length``, ``d_model`` and
        so on), the variates, the horizon and the training parameters may change.
        ``clone(model)`` has no pre-trained weights, nor have the models of a grid search; it
        warns of that.

        The training parameters are those of ``fit``; use ``set_params`` between the two.
        The loss is the squared error of the hidden patches of windows normalised one by one
        (RevIN). A validation tail is held out as in ``fit``, with the same patches hidden at
        every validation. Covariates and the calendar are not read.

        Parameters
        ----------
        df : DataFrame or Series
            As in ``fit``; it need not be what is forecast later.
        mask_ratio : float, default 0.4
            Share of the patches that are hidden, inside (0, 1).
        checkpoint : path, optional
            A folder from which a pre-training that was killed goes on, as in ``fit``.

        Returns
        -------
        self
            With ``pretrain_history_``, which has ``train_loss`` and ``val_loss`` of the
            hidden patches, ``learning_rate`` and ``seconds`` of every epoch. What was
            fitted before is still there until the next ``fit``.

        Raises
        ------
        ParameterError
            A parameter is outside its constraint, patches overlap, or ``mask_ratio`` hides
            none or all of them.
        DataError
            The frame has faults: one error names all of them.
        TrainingError
            The loss is no longer finite, or the checkpoint is of another training.

        References
        ----------
        Nie et al., "A time series is worth 64 words: long-term forecasting with
        transformers", ICLR 2023, section 3.2.
        """
        check_value(f"{self.name}.pretrain", "mask_ratio", mask_ratio, Inside)
        with checkpoints_in(checkpoint):
            opened = self._checkpoint()
        panel = self.read_training(df)
        with self.settled(panel):
            self._pretrain(panel, mask_ratio, opened)
        if not self.__sklearn_is_fitted__():
            self.fitted_parameters_ = self.get_params(deep=False)
        return self

    def _pretrain(self, panel: Panel, mask_ratio: float, opened: Checkpoint | None) -> None:
        """Pre-train on a panel, all parameters having values."""
        n_hidden = self._n_hidden(mask_ratio)
        device = resolve_device(self.device)
        held_out = self._validation_rows(panel)
        scaling, _, _ = self._training_scaling(panel, panel.offsets[1:] - held_out)
        tensors = self._tensors(panel, scaling, device, CovariateCoding())
        training, validation = self._windows(tensors, panel, held_out)
        seed = self._training_seed(opened)
        spec = NetworkSpec(self.context, int(self.horizon), panel.n_variates, PointOutput())
        network = _patch_network(super()._seeded_network(spec, seed))
        with seeded(seed):
            task, objective = self._pretraining(network, panel.n_variates)
            task = task.to(self._dtype)
        if opened is not None:
            learned_from = f"pretrain {n_hidden} {digest_of_series(tensors, held_out)}"
            with self._named_training_errors():
                opened.claim(self._identity(learned_from, task, None, seed))
        hide = partial(MaskedWindows, embedding=network.embedding, n_hidden=n_hidden, seed=seed)
        result = self._train(
            task,
            hide(training),
            None if validation is None else hide(validation, fixed=True),
            objective,
            [Phase(self._training_options)],
            device=device,
            seed=seed,
            checkpoint=opened,
        )
        self._backbone = Backbone(
            network.backbone_weights(), {name: getattr(self, name) for name in self._architecture}
        )
        self.pretrain_history_ = {
            name: values for name, values in result.history.items() if name != "val_mae"
        }

    def _pretraining(self, network: PatchNetwork, n_variates: int) -> tuple[nn.Module, Objective]:
        """Return what is trained on batches of masked patches, and what it is trained for."""
        return PatchReconstruction(network, dropout=self.dropout), ForecastObjective(MSELoss())

    def _n_hidden(self, mask_ratio: float) -> int:
        """Return how many patches to hide, provided that hiding them is a task."""
        if self.stride < self.patch_length:
            raise ParameterError(
                f"{self.name}: pretrain needs patches that do not overlap: stride must be at "
                f"least patch_length={self.patch_length}, got {self.stride}; set both alike"
            )
        if self.end_padding:
            raise ParameterError(
                f"{self.name}: pretrain needs patches that do not overlap: end_padding must be "
                f"False, got True; set end_padding=False"
            )
        n_patches = (self.context - self.patch_length) // self.stride + 1
        n_hidden = round(mask_ratio * n_patches)
        if not 0 < n_hidden < n_patches:
            raise ParameterError(
                f"{self.name}: mask_ratio must hide at least one of {n_patches} patches and leave "
                f"one, got {mask_ratio}, which hides {n_hidden}; change it, or make "
                f"context_length longer or patch_length shorter"
            )
        return n_hidden

    # --------------------------------------------------------------- fine-tuning

    def _seeded_network(self, spec: NetworkSpec, seed: int) -> nn.Module:
        network = super()._seeded_network(spec, seed)
        if self._is_pretrained:
            for name, value in self._backbone.parameters.items():
                if getattr(self, name) != value:
                    raise ParameterError(
                        f"{self.name}: {name} must be {value!r} as in pretrain, got "
                        f"{getattr(self, name)!r}; restore it, pretrain again, or take "
                        f"clone(model), which is not pre-trained"
                    )
            _patch_network(network).load_backbone(self._backbone.weights)
        return network

    def _phases(self, network: nn.Module, options: TrainingOptions, go_on: bool) -> Sequence[Phase]:
        """Train a pre-trained network as ``fine_tuning`` says, any other as a whole."""
        if not self._is_pretrained:
            return super()._phases(network, options, go_on)
        backbone = _backbone_of(network)
        if self.fine_tuning == "linear_probe":
            return [Phase(options, backbone)]
        whole = Phase(replace(options, learning_rate=options.learning_rate / 2))
        alone = HEAD_EPOCHS if self.fine_tuning == "end_to_end" else self.fine_tuning
        if go_on or not alone:
            return [whole]
        return [Phase(replace(options, max_epochs=alone), backbone), whole]

    def _trained_names(self, network: nn.Module) -> list[str]:
        names = super()._trained_names(network)
        if not self._is_pretrained or self.fitted_parameters_["fine_tuning"] != "linear_probe":
            return names
        still = tuple(f"{name}." for name in _backbone_of(network))
        return [name for name in names if not name.startswith(still)]

    def __sklearn_clone__(self) -> Self:
        """Copy the parameters, and warn that what was pre-trained stays behind."""
        if self._is_pretrained:
            warn(
                f"{self.name}: a clone has the parameters alone and is not pre-trained; call "
                f"pretrain on it, or take copy.deepcopy(model) to keep the weights",
                PretrainingWarning,
            )
        return super().__sklearn_clone__()

    # -------------------------------------------------------------- persistence

    @property
    def _is_pretrained(self) -> bool:
        return hasattr(self, "_backbone")

    def learned_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        record: dict[str, Any] = {}
        tensors: dict[str, Tensor] = {}
        if self.__sklearn_is_fitted__() or not self._is_pretrained:
            record, tensors = super().learned_state()
        if self._is_pretrained:
            record["pretraining"] = {
                "parameters": self._backbone.parameters,
                "history": self.pretrain_history_,
            }
            tensors |= {f"backbone.{name}": w for name, w in self._backbone.weights.items()}
        return record, tensors

    def restore_learned_state(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        members: Mapping[str, Estimator],
    ) -> None:
        if "data" in record:
            check_record("load: what it learned", record, NetworkRecord, closed=False)
            super().restore_learned_state(record, tensors, members)
        elif "pretraining" in record:
            self.fitted_parameters_ = self.get_params(deep=False)
        else:
            raise PersistenceError("load: the model is neither fitted nor pre-trained")
        if "pretraining" in record:
            prefix = "backbone."
            self._backbone = Backbone(
                {
                    name.removeprefix(prefix): weight
                    for name, weight in tensors.items()
                    if name.startswith(prefix)
                },
                self.upgrade_parameters(record["pretraining"]["parameters"]),
            )
            self.pretrain_history_ = record["pretraining"]["history"]


def _patch_network(network: nn.Module) -> PatchNetwork:
    """Find the network over patches in what may have been built around it."""
    return next(part for part in network.modules() if isinstance(part, PatchNetwork))


def _backbone_of(network: nn.Module) -> tuple[str, ...]:
    """Return the names of what was pre-trained in a network, wherever it is built in."""
    inside = _patch_network(network)
    path = next(name for name, part in network.named_modules() if part is inside)
    return tuple(f"{path}.{name}" if path else name for name in inside.BACKBONE)
