"""Loading language models, and what is refused."""

import copy
import logging
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tsar.exceptions import MissingExtraError, ParameterError
from tsar.forecasting.layers import language_backbone
from tsar.forecasting.layers.language_backbone import freeze, load_backbone

CPU = torch.device("cpu")


def _load(path, precision="float32"):
    return load_backbone(str(path), precision=precision, device=CPU)


class Identity(nn.Module):
    """The smallest module that is a backbone."""

    d_model = 6

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, tokens, *, mask=None):
        return self.weight * tokens


class Mean(Identity):
    def forward(self, tokens, *, mask=None):
        return tokens + tokens.mean(dim=1, keepdim=True)


class Narrow(Identity):
    def forward(self, tokens, *, mask=None):
        return tokens[..., :3]


class Maskless(Identity):
    def forward(self, tokens):
        return tokens


@pytest.mark.parametrize("name, width", [("gpt2", 36), ("llama", 24), ("opt", 16)])
def test_hidden_states_are_those_of_the_model(language_models, name, width):
    """The folder holds a model with a head; what comes back is what lies below it."""
    import transformers

    backbone = _load(language_models / name)
    whole = transformers.AutoModelForCausalLM.from_pretrained(language_models / name).eval()
    tokens = torch.randn(2, 5, width, generator=torch.Generator().manual_seed(0))
    assert (backbone.d_model, backbone.source) == (width, str(language_models / name))
    hidden = backbone(tokens)
    logits = whole(inputs_embeds=tokens).logits
    torch.testing.assert_close(whole.get_output_embeddings()(hidden), logits)
    assert not any(weight.requires_grad for weight in backbone.module.parameters())
    assert backbone.n_parameters == sum(w.numel() for w in whole.base_model.parameters())


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_masked_tokens_are_not_looked_at(language_models, name):
    backbone = _load(language_models / name)
    tokens = torch.randn(2, 5, backbone.d_model, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[:, :2] = False
    altered = tokens.clone()
    altered[:, :2] = 1 - altered[:, :2].square()
    one, other = backbone(tokens, mask=mask), backbone(altered, mask=mask)
    torch.testing.assert_close(one[:, 2:], other[:, 2:])
    assert one.isfinite().all()


def test_texts_are_read_alone_and_once(language_models, monkeypatch):
    """Whatever is read beside a text, and to the bit."""
    backbone = _load(language_models / "gpt2")
    texts = ["Time", "2016-07-01 19:30:00", "is", "Time"]
    together = backbone.embed_texts(texts)
    assert together.shape == (4, 36)
    again = _load(language_models / "gpt2")
    assert torch.equal(torch.cat([again.embed_texts([text]) for text in texts]), together)
    monkeypatch.setattr(language_backbone, "TEXTS_AT_ONCE", 1)
    again = _load(language_models / "gpt2")
    torch.testing.assert_close(again.embed_texts(texts), together)
    backbone.tokenizer = None  # nothing is left to read
    assert torch.equal(backbone.embed_texts(texts[::-1]), together.flip(0))
    assert _load(language_models / "opt").tokenizer is None


def test_a_model_object_is_taken_without_its_head(language_models):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(language_models / "llama")
    backbone = freeze(model)
    assert backbone.module is model.model and backbone.d_model == 24
    assert backbone.fingerprint() == _load(language_models / "llama").fingerprint()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    assert backbone.fingerprint() != _load(language_models / "llama").fingerprint()


def test_copies_share_the_backbone():
    backbone = freeze(Identity())
    assert copy.deepcopy([backbone])[0] is backbone


def test_the_memory_is_stated_and_checked(language_models, monkeypatch, caplog):
    backbone = _load(language_models / "gpt2")
    size = 2 * backbone.n_parameters
    monkeypatch.setattr(language_backbone, "available_memory", lambda device: size)
    with caplog.at_level(logging.INFO, logger="tsar"):
        _load(language_models / "gpt2", "bfloat16")
    amount = f"{size / 1e6:.2f} MB"
    assert f"gpt2' takes {amount} in bfloat16, {amount} is available on cpu" in caplog.text
    with pytest.raises(ParameterError, match="choose a smaller model, another device or"):
        _load(language_models / "gpt2")
    monkeypatch.setattr(language_backbone, "available_memory", lambda device: None)
    _load(language_models / "gpt2")


def test_loading_prints_nothing_and_draws_nothing(language_models, capfd):
    import transformers

    bars = transformers.utils.logging.is_progress_bar_enabled()
    level, drawn = transformers.utils.logging.get_verbosity(), torch.get_rng_state()
    _load(language_models / "llama")
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert transformers.utils.logging.is_progress_bar_enabled() == bars
    assert transformers.utils.logging.get_verbosity() == level


def test_what_is_no_folder_of_a_language_model(language_models, tmp_path):
    with pytest.raises(ParameterError, match=r"does not exist \(did you mean 'gpt2'\?\)"):
        _load(language_models / "gpt3")
    with pytest.raises(ParameterError, match="is no folder of a language model"):
        _load(tmp_path)
    with pytest.raises(ParameterError, match="bert' is not causal"):
        _load(language_models / "bert")
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ParameterError, match="must be a decoder-only language model.*is a t5"):
        _load(tmp_path)


def test_missing_weights_are_refused(language_models, tmp_path):
    """They would be random numbers."""
    shutil.copytree(language_models / "gpt2", tmp_path / "gpt2")
    weights = load_file(tmp_path / "gpt2" / "model.safetensors")
    weights.pop("transformer.h.1.mlp.c_fc.bias")
    save_file(weights, tmp_path / "gpt2" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ParameterError, match="lack 1 weights, for example h.1.mlp.c_fc.bias"):
        _load(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "model.safetensors").unlink()
    with pytest.raises(ParameterError, match="cannot be loaded: Error no file named"):
        _load(tmp_path / "gpt2")


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("model.safetensors", "garbage!!", "cannot be loaded: "),
        ("config.json", '{"model_type": "gpt2", "n_embd": 15, "n_head": 2}', "cannot be loaded: "),
        ("config.json", '{"model_type": "gpt2", "n_embd": "x"}', "is no folder of a language"),
    ],
)
def test_broken_files_are_one_error(language_models, tmp_path, file, content, message):
    shutil.copytree(language_models / "gpt2", tmp_path / "gpt2")
    (tmp_path / "gpt2" / file).write_text(content)
    with pytest.raises(ParameterError, match=f"^llm='.*gpt2' {message}"):
        _load(tmp_path / "gpt2")


def test_a_file_is_no_folder(language_models):
    with pytest.raises(ParameterError, match="config.json' is a file; pass the folder"):
        _load(language_models / "gpt2" / "config.json")


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_a_model_of_few_tokens_is_checked_on_as_many(limit):
    import transformers

    config = transformers.GPT2Config(
        n_embd=6,
        n_head=2,
        n_layer=1,
        vocab_size=9,
        n_positions=limit,
        bos_token_id=0,
        eos_token_id=0,
    )
    assert freeze(transformers.GPT2Model(config)).max_tokens == limit
    mean = Mean()
    mean.max_tokens = limit
    if limit > 1:
        with pytest.raises(ParameterError, match="'a Mean object' is not causal"):
            freeze(mean)


def test_a_known_name_is_not_suggested_to_itself(monkeypatch, capfd):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ParameterError, match="is not in the cache and cannot be fetched: "):
        _load("facebook/opt-1.3b")
    assert capfd.readouterr() == ("", "")


def test_unknown_name_gets_a_suggestion(language_models, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ParameterError, match=r"not in the cache.*\(did you mean 'gpt2-medium'\?\)"):
        _load("gpt2-medum")


@pytest.mark.parametrize(
    "module, message",
    [
        (nn.Linear(6, 6), "a module with an integer attribute d_model, got a Linear object"),
        (Mean(), "'a Mean object' is not causal"),
        (Narrow(), r"tokens of the same width, got \(2, 5, 3\) from \(2, 5, 6\)"),
        (Maskless(), "'a Maskless object' does not take tokens of width 6: .*mask"),
    ],
)
def test_modules_that_are_no_backbone(module, message):
    with pytest.raises(ParameterError, match=message):
        freeze(module)


def test_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"^llm= needs transformers: pip install 'tsar\[l"):
        _load("gpt2")
