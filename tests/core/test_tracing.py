"""Stacks are written down by torch, to be run elsewhere or compiled."""

import pytest
import torch
from torch import nn

from tsar.core import tracing
from tsar.core.block import Block, Encoder
from tsar.core.decoder import Decoder
from tsar.core.dropout import Dropout
from tsar.core.mixers import MIXERS, SoftmaxAttention, accepted_options, make_mixer
from tsar.core.mlp import MLP
from tsar.core.ops import attention, auto_correlation, feedforward, selective_scan

BATCH, LENGTH, D_MODEL = 3, 17, 6
CPU = torch.device("cpu")


def _tokens(batch=BATCH, length=LENGTH, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, D_MODEL, generator=generator)


def _stack(name):
    torch.manual_seed(0)
    options = accepted_options(name, n_heads=2, residual_scores=True)
    # A second block is traced as the first one is, unless it reads what that hands on.
    n_blocks = 2 if "residual_scores" in options else 1
    mixers = [make_mixer(name, D_MODEL, **options) for _ in range(n_blocks)]
    blocks = [Block(mixer, MLP(D_MODEL, 5), d_model=D_MODEL, dropout=0.3) for mixer in mixers]
    return Encoder(blocks, nn.LayerNorm(D_MODEL)).eval()


@pytest.mark.parametrize(
    ("name", "length"), [*((name, 7) for name in MIXERS), ("attention", LENGTH)]
)
def test_stacks_are_exported(name, length):
    """For any number of sequences of the given length, of nothing but torch's own operations."""
    stack, shapes = _stack(name), {"x": {0: torch.export.Dim("batch", min=2)}}
    program = torch.export.export(stack, (_tokens(length=length),), dynamic_shapes=shapes)
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert calls and all("autograd" not in str(call) for call in calls)
    for batch in (2, 5):
        x = _tokens(batch, length, seed=batch)
        torch.testing.assert_close(program.module()(x), stack(x))


def test_an_exported_decoder_takes_a_mask():
    torch.manual_seed(0)
    mixers = [SoftmaxAttention(D_MODEL, 2, causal=True) for _ in range(2)]
    decoder = Decoder(mixers, d_model=D_MODEL, d_ff=5, max_tokens=LENGTH).eval()
    x, mask = _tokens(), torch.ones(BATCH, LENGTH, dtype=torch.bool)
    mask[1, 12:] = mask[2, :4] = False
    program = torch.export.export(decoder, (x,), {"mask": torch.ones_like(mask)})
    torch.testing.assert_close(program.module()(x, mask=mask), decoder(x, mask=mask))


@pytest.mark.parametrize("name", ["attention", "mamba"])
def test_compiled_stacks_have_the_same_gradients(name):
    """In one graph; the compiler's own kernels are left out, which need a C++ compiler."""
    stack, x, weight = _stack(name), _tokens(length=5), _tokens(length=5, seed=2)
    torch._dynamo.reset()
    compiled = torch.compile(stack, backend="aot_eager", fullgraph=True)
    for found, expected in zip(
        *(
            torch.autograd.grad((network(x) * weight).sum(), list(stack.parameters()))
            for network in (compiled, stack)
        ),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_every_operation_asks_whether_it_is_traced(monkeypatch):
    many, weight = torch.zeros(50_000, 16), torch.zeros(128, 16)

    def picked():
        return [
            attention.pick_backend(6, 6, CPU),
            attention.pick_backend(42, 42, CPU),
            attention.pick_backend(42, 42, CPU, drops=True),
            auto_correlation.pick_backend(),
            feedforward.pick_backend(many, weight),
            selective_scan.pick_backend(CPU),
        ]

    assert picked() == ["short", "matmul", "reference", "fft", "chunked", "chunked"]
    for module in (attention, auto_correlation, feedforward, selective_scan):
        monkeypatch.setattr(module, "is_traced", lambda: True)
    assert picked() == ["sdpa", "sdpa", "reference", "reference", "reference", "reference"]


def test_nothing_is_traced_here():
    assert not tracing.is_traced()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("backend", ["short", "matmul", "chunked", "fft", None])
def test_a_forced_form_gives_way_to_one_that_can_be_traced(backend, training):
    """With gradients, and with the dropout of training, nothing written by hand is in the way."""
    torch.manual_seed(0)
    named = {"short": "attention", "matmul": "attention", "chunked": "mamba", None: "attention"}
    name = named.get(backend, "autocorrelation")
    options = accepted_options(name, n_heads=2, backend=backend)
    options |= {"dropout": 0.3} if name == "attention" and backend != "matmul" else {}
    mixer = make_mixer(name, D_MODEL, **options)
    stack = Encoder([Block(mixer, MLP(D_MODEL, 5), d_model=D_MODEL, dropout=0.3)])
    x = _tokens(length=7).requires_grad_()
    program = torch.export.export(stack.train(training), (x,))
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert calls and all("autograd" not in call for call in calls)
    assert program.module()(x).shape == x.shape
    if not training:
        torch.testing.assert_close(program.module()(x), stack(x))


def test_traced_dropout_keeps_the_expected_share():
    class Drop(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = Dropout(0.25)

        def forward(self, x):
            return self.drop.add(x, self.drop(x))

    ones = torch.ones(400, 100)
    program = torch.export.export(Drop().train(), (ones,)).module()
    first, second = program(ones), program(ones)
    assert not first.equal(second), "what is drawn is drawn anew"
    # 1 + a product of two masks, each of which is 4/3 for three quarters of the entries.
    share = (first == 1).double().mean()
    assert abs(share - (1 - 0.75**2)) < 0.01
    torch.testing.assert_close(first.mean(), torch.tensor(2.0), atol=0.02, rtol=0)
