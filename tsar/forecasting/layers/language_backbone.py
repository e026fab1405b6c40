"""Language models as frozen backbones of a forecaster.

Dimension letters: B sequences, P tokens, D width of a token.
"""

import contextlib
import hashlib
import importlib
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tsar.exceptions import MissingExtraError, ParameterError
from tsar.params.constraints import did_you_mean
from tsar.training.device import available_memory

__all__ = ["FrozenBackbone", "freeze", "load_backbone"]

logger = logging.getLogger("tsar")

# Names that are suggested where one is not found.
KNOWN_NAMES = (
    *("gpt2", "gpt2-medium", "gpt2-large", "openai-community/gpt2"),
    *("facebook/opt-125m", "facebook/opt-350m", "facebook/opt-1.3b"),
    *("huggyllama/llama-7b", "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-3.2-1B"),
    *("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen3-0.6B"),
)
PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# Texts read at a time.
TEXTS_AT_ONCE = 8


@dataclass(eq=False)
class FrozenBackbone:
    """A causal model that is used as it is, and the texts it has read.

    It is no ``nn.Module``: networks that hold one neither train it, nor save it, nor copy
    it; copies of a network share it.

    Parameters
    ----------
    module : nn.Module
        From :mod:`transformers` without its language head, or any module that maps tokens
        (B, P, D) and ``mask=`` (B, P), True where a token may be attended to, to (B, P, D).
    d_model : int
        Width D of its tokens.
    max_tokens : int or None
        Longest sequence it takes; None where it does not say.
    tokenizer : object or None
        Of transformers; None for a model that reads no text.
    source : str
        Where it comes from, in words.
    """

    module: nn.Module
    d_model: int
    max_tokens: int | None = None
    tokenizer: Any = None
    source: str = "module"
    _read: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __call__(self, tokens: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Map tokens (B, P, D) to the last hidden states (B, P, D), in their own precision."""
        cast = tokens.to(_dtype(self.module, tokens.dtype))
        if not _is_transformers(self.module):
            hidden: Tensor = self.module(cast, mask=mask)
            return hidden.to(tokens.dtype)
        attended = None if mask is None else mask.long()
        answer = self.module(inputs_embeds=cast, attention_mask=attended, use_cache=False)
        return answer.last_hidden_state.to(tokens.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> "FrozenBackbone":
        return self

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self.module.to(device)

    @property
    def n_parameters(self) -> int:
        """How many weights there are."""
        return sum(weight.numel() for weight in self.module.parameters())

    def fingerprint(self) -> str:
        """Return a hash of the names, shapes and first values of all weights."""
        digest = hashlib.sha256()
        for name, weight in self.module.state_dict().items():
            first = weight.detach().flatten()[:16].cpu().double().tolist()
            digest.update(f"{name} {tuple(weight.shape)} {first}".encode())
        return digest.hexdigest()

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return the last hidden state of the last word of each text, (n, D) in float32.

        Every text is read once and remembered.
        """
        by_length: dict[int, list[str]] = {}
        words = {}
        for text in dict.fromkeys(text for text in texts if text not in self._read):
            words[text] = self.tokenizer(text)["input_ids"][-(self.max_tokens or 0) :]
            by_length.setdefault(len(words[text]), []).append(text)
        for same in by_length.values():
            for begin in range(0, len(same), TEXTS_AT_ONCE):
                part = same[begin : begin + TEXTS_AT_ONCE]
                # Batches of one shape round alike, whatever is read beside a text.
                filled = part + part[-1:] * (TEXTS_AT_ONCE - len(part))
                states = self._last_states([words[text] for text in filled])
                self._read |= zip(part, states[: len(part)], strict=True)
        return torch.stack([self._read[text] for text in texts])

    @torch.no_grad()
    def _last_states(self, words: list[list[int]]) -> Tensor:
        device = next(self.module.parameters()).device
        ids = torch.tensor(words, device=device)
        states: Tensor = self.module(input_ids=ids, use_cache=False).last_hidden_state
        return states[:, -1].float().cpu()


def freeze(module: nn.Module) -> FrozenBackbone:
    """Take a module as a backbone; it is frozen, and used in evaluation mode.

    Parameters
    ----------
    module : nn.Module
        A model of transformers, whose language head is left aside, or a module with an
        attribute ``d_model`` as :class:`FrozenBackbone` describes it.

    Raises
    ------
    ParameterError
        If its tokens have no known width, or depend on later ones.
    """
    source = f"a {type(module).__name__} object"
    if _is_transformers(module):
        backbone = _of_transformers(module, None, source)
    else:
        width = getattr(module, "d_model", None)
        if not isinstance(width, int):
            raise ParameterError(
                f"llm must be a model of transformers or a module with an integer attribute "
                f"d_model, got {source}"
            )
        limit = getattr(module, "max_tokens", None)
        backbone = FrozenBackbone(module, width, limit, source=source)
    return _checked(backbone)


def load_backbone(name: str, *, precision: str, device: torch.device) -> FrozenBackbone:
    """Load a decoder-only language model.

    The network is touched only for a name that is no folder and not in the cache.

    Parameters
    ----------
    name : str
        A local folder, or the name of a model on the hub.
    precision : {"float32", "bfloat16", "float16"}
        Of its weights.
    device : torch.device
        Where it will be moved.

    Raises
    ------
    MissingExtraError
        transformers is not installed.
    ParameterError
        There is no such model, it is no causal language model, or the memory is too small.
    """
    library = _transformers()
    with _quiet(library):
        config, local = _find(library, name)
        if type(config) not in library.MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ParameterError(
                f"llm must be a decoder-only language model, got {name!r}, "
                f"which is a {config.model_type}"
            )
        with _named(name):
            _check_memory(library, config, name, precision, device)
            module, report = _read_weights(library, name, config, precision, local)
        # Weights that are not in the files would be random numbers.
        missing = sorted(report["missing_keys"]) + sorted(report["mismatched_keys"])
        if missing:
            raise ParameterError(
                f"llm={name!r} is incomplete: its files lack {len(missing)} weights, "
                f"for example {missing[0]}"
            )
        return _checked(_of_transformers(module, _tokenizer(library, name, local), name))


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Name the model in errors; what broken files provoke in the libraries may be any error."""
    try:
        yield
    except ParameterError:
        raise
    except Exception as error:
        raise ParameterError(f"llm={name!r} cannot be loaded: {_line(error)}") from None


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise MissingExtraError("llm= needs transformers: pip install 'tsar[llm]'") from None


def _is_transformers(module: nn.Module) -> bool:
    library = sys.modules.get("transformers")
    return library is not None and isinstance(module, library.PreTrainedModel)


@contextlib.contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Keep transformers and its hub from printing, and leave their settings as they were."""
    log, hub = library.utils.logging, logging.getLogger("huggingface_hub")
    level, hub_level, bars = log.get_verbosity(), hub.level, log.is_progress_bar_enabled()
    log.set_verbosity_error()
    hub.setLevel(logging.ERROR)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            log.enable_progress_bar()


def _find(library: Any, name: str) -> tuple[Any, bool]:
    """Return the configuration of a model, and whether it is on this machine."""
    folder = Path(name)
    if folder.is_file():
        raise ParameterError(f"llm={name!r} is a file; pass the folder that it is in")
    if folder.exists():
        try:
            return library.AutoConfig.from_pretrained(name, local_files_only=True), True
        except Exception as error:
            raise ParameterError(
                f"llm={name!r} is no folder of a language model: {_line(error)}"
            ) from None
    try:
        return library.AutoConfig.from_pretrained(name, local_files_only=True), True
    except (OSError, ValueError):
        pass
    named_like_a_path = folder.is_absolute() or name[:1] in "~." or name.count("/") > 1
    if named_like_a_path:
        beside = [entry.name for entry in folder.parent.glob("*/") if entry.is_dir()]
        raise ParameterError(
            f"llm={name!r} does not exist{did_you_mean(folder.name, beside)}; "
            f"pass a folder that holds a language model, or the name of one on the hub"
        )
    try:
        return library.AutoConfig.from_pretrained(name), False
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"llm={name!r} is no folder, is not in the cache and cannot be fetched"
            f"{'' if name in KNOWN_NAMES else did_you_mean(name, KNOWN_NAMES)}: {_line(error)}"
        ) from None


def _read_weights(
    library: Any, name: str, config: Any, precision: str, local: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a model and what transformers reports of its files."""

    def read(local_files_only: bool) -> tuple[nn.Module, dict[str, Any]]:
        loaded: tuple[nn.Module, dict[str, Any]] = library.AutoModel.from_pretrained(
            name,
            config=config,
            dtype=PRECISIONS[precision],
            local_files_only=local_files_only,
            output_loading_info=True,
        )
        return loaded

    try:
        return read(local)
    except OSError:
        # The cache may hold the configuration of a model and not its weights.
        if not local or Path(name).exists():
            raise
        return read(False)


def _check_memory(
    library: Any, config: Any, name: str, precision: str, device: torch.device
) -> None:
    """Say what the weights will take, and stop before they take more than there is."""
    with torch.device("meta"):
        shapes = library.AutoModel.from_config(config)
    size = sum(weight.numel() for weight in shapes.parameters()) * PRECISIONS[precision].itemsize
    free = available_memory(device)
    room = "an unknown amount" if free is None else _in_words(free)
    need = f"{name!r} takes {_in_words(size)} in {precision}, {room} is available on {device}"
    logger.info("llm=%s", need)
    if free is not None and size > free:
        raise ParameterError(
            f"llm={need}; choose a smaller model, another device or llm_precision='bfloat16'"
        )


def _in_words(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"


def _tokenizer(library: Any, name: str, local: bool) -> Any:
    """Return the tokenizer of a model, or None where it comes without one."""
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(name, local_files_only=local)
    except (OSError, ValueError, ImportError):
        return None
    # Some classes build an empty vocabulary where there is no file.
    return tokenizer if tokenizer("2024")["input_ids"] else None


def _of_transformers(module: Any, tokenizer: Any, source: str) -> FrozenBackbone:
    """Take a model of transformers without its head."""
    inner = module.base_model
    width = inner.get_input_embeddings().weight.shape[1]
    limit = getattr(inner.config, "max_position_embeddings", None)
    return FrozenBackbone(inner, width, limit, tokenizer, source)


@torch.no_grad()
def _checked(backbone: FrozenBackbone) -> FrozenBackbone:
    """Freeze a backbone; refuse one whose tokens depend on later ones."""
    module = backbone.module
    module.requires_grad_(False)
    module.eval()
    generator = torch.Generator().manual_seed(0)
    length = min(5, backbone.max_tokens or 5)
    half = (length + 1) // 2
    tokens = torch.randn(2, length, backbone.d_model, generator=generator)
    altered = tokens.clone()
    altered[:, half:] = torch.randn(2, length - half, backbone.d_model, generator=generator)
    device = next((weight.device for weight in module.parameters()), tokens.device)
    try:
        before, after = backbone(tokens.to(device)), backbone(altered.to(device))
    except (TypeError, RuntimeError, AttributeError) as error:
        raise ParameterError(
            f"llm={backbone.source!r} does not take tokens of width {backbone.d_model}: "
            f"{_line(error)}"
        ) from None
    if before.shape != tokens.shape:
        raise ParameterError(
            f"llm={backbone.source!r} must map tokens to tokens of the same width, got "
            f"{tuple(before.shape)} from {tuple(tokens.shape)}"
        )
    exact = _dtype(module, tokens.dtype) == torch.float32
    tolerance = 1e-4 if exact else 3e-2
    if not torch.allclose(before[:, :half], after[:, :half], rtol=tolerance, atol=tolerance):
        raise ParameterError(
            f"llm={backbone.source!r} is not causal: what it says of a token depends on later "
            f"ones; pass a decoder-only language model"
        )
    return backbone


def _dtype(module: nn.Module, default: torch.dtype) -> torch.dtype:
    return next((weight.dtype for weight in module.parameters()), default)


def _line(error: Exception) -> str:
    """Return the first sentence of a message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
