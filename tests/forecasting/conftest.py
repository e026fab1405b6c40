"""Language models small enough to be made for a test, as folders of transformers."""

from pathlib import Path
from typing import Any

import pytest

from tsar.training import seeded


def _tokenizer() -> Any:
    """A tokenizer of single characters, which is all a time stamp needs."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(set("This is Time Series from to 0123456789-:"))
    words = Tokenizer(models.WordLevel({c: i + 1 for i, c in enumerate(letters)} | {"?": 0}, "?"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")


@pytest.fixture(scope="session")
def language_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of folders: gpt2 and llama (with a tokenizer), opt and bert (without)."""
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("models")
    words = {"vocab_size": 41, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    models = {
        "gpt2": (
            transformers.GPT2LMHeadModel,
            transformers.GPT2Config(n_embd=36, n_layer=2, n_head=3, n_positions=90, **words),
        ),
        "llama": (
            transformers.LlamaForCausalLM,
            transformers.LlamaConfig(
                hidden_size=24,
                num_hidden_layers=2,
                num_attention_heads=3,
                num_key_value_heads=1,
                intermediate_size=40,
                **words,
            ),
        ),
        "opt": (
            transformers.OPTForCausalLM,
            transformers.OPTConfig(
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                ffn_dim=20,
                word_embed_proj_dim=16,
                **words,
            ),
        ),
        "bert": (
            transformers.BertModel,
            transformers.BertConfig(
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=20,
                vocab_size=30,
            ),
        ),
    }
    for name, (cls, config) in models.items():
        with seeded(0):
            cls(config).save_pretrained(root / name)
    for name in ("gpt2", "llama"):
        _tokenizer().save_pretrained(root / name)
    return root
