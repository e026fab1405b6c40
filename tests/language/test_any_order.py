"""The model of any order: what it is trained for is the bound that it reports."""

import math

import pytest
import torch

from tsar.checks.language import small_language_model
from tsar.language import AnyOrderLM, MaskedDiffusionLM

LETTERS = "abcacbbac" * 20


@pytest.mark.parametrize("cls", [AnyOrderLM, MaskedDiffusionLM])
def test_the_training_loss_is_the_bound_on_average(cls):
    """Of windows of one text, over many masks; both kinds of masks have the same mean."""
    model = small_language_model(
        cls, tokenizer="char", context_length=4, max_steps=100, learning_rate=0.02,
        learning_rate_schedule="constant", likelihood_draws=2000,
    ).fit(LETTERS)  # fmt: skip
    windows = torch.tensor([[3, 0, 1, 2, 0]]).expand(64, -1)
    generator = torch.Generator().manual_seed(0)
    means = []
    with torch.inference_mode():
        for _ in range(200):
            total, count = model._objective().loss(model.module_, windows, generator)["loss"]
            assert int(count) == 64 * 4
            means.append(float(total / count))
    mean, spread = torch.tensor(means).mean(), torch.tensor(means).std()
    expected = -model.log_likelihood("abca")[0] / 4
    # The weight of the rarest masks of a share is not bounded by the length, but by 1000.
    assert float(mean) == pytest.approx(expected, abs=5 * float(spread) / math.sqrt(200) + 0.01)


def test_every_number_of_masked_tokens_is_as_frequent():
    model = small_language_model(AnyOrderLM, tokenizer="char", context_length=4).fit(LETTERS)
    counts = []
    model.module_.register_forward_pre_hook(
        lambda _, args: counts.extend((args[0] == model.module_.mask_token).sum(dim=1).tolist())
    )
    windows = torch.tensor([[0, 0, 1, 2, 0]]).expand(8, -1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        model._objective().loss(model.module_, windows, generator)
    # Two of each in every eight: they are spread evenly.
    assert sorted(counts) == [1] * 20 + [2] * 20 + [3] * 20 + [4] * 20
