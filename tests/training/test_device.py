import pytest
import torch

from tsar.exceptions import ParameterError
from tsar.training import device as module
from tsar.training.device import (
    autocast,
    available_memory,
    has_fast_bfloat16,
    resolve_device,
)

CPU = torch.device("cpu")


def _pretend(monkeypatch, n_cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)


def test_named_devices_are_honoured(monkeypatch):
    _pretend(monkeypatch, 2)
    for name in ("cpu", "cuda", "cuda:1"):
        assert resolve_device(name) == torch.device(name)


@pytest.mark.parametrize(("n_cuda", "expected"), [(0, "cpu"), (1, "cuda")])
def test_auto(monkeypatch, n_cuda, expected):
    _pretend(monkeypatch, n_cuda)
    assert resolve_device("auto") == torch.device(expected)


@pytest.mark.parametrize(("n_cuda", "name"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")])
def test_absent_device_is_one_error(monkeypatch, n_cuda, name):
    _pretend(monkeypatch, n_cuda)
    with pytest.raises(ParameterError, match=f"device='{name}' is not available here"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["graphics", "", "xpu", 3.5, "cuda:x"])
def test_unknown_device_is_one_error(name):
    with pytest.raises(ParameterError, match="device must be one of 'auto', 'cpu'"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("precision", "hardware", "expected"),
    [
        ("float32", True, torch.float32),
        ("bfloat16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_precision(monkeypatch, precision, hardware, expected):
    monkeypatch.setattr(module, "has_fast_bfloat16", lambda device: hardware)
    with autocast(CPU, precision):
        product = torch.ones(3, 4) @ torch.ones(4, 5)
    assert product.dtype is expected


def test_fast_bfloat16_without_the_private_flags(monkeypatch):
    for flag in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, flag, raising=False)
    assert has_fast_bfloat16(CPU) is False


def test_unknown_precision_gets_a_suggestion():
    with pytest.raises(ParameterError, match="did you mean 'bfloat16'"):
        autocast(CPU, "bfloat")


def test_available_memory(monkeypatch):
    """On Linux what the kernel tells, of an accelerator what it holds free, else nothing."""
    table = "MemTotal: 900 kB\nMemFree:  100 kB\nMemAvailable:     700 kB\n"
    monkeypatch.setattr(module.Path, "read_text", lambda self, encoding: table)
    assert available_memory(CPU) == 700 * 1024
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 9))
    assert available_memory(torch.device("cuda")) == 5
    assert available_memory(torch.device("mps")) is None

    def absent(self, encoding):
        raise FileNotFoundError

    monkeypatch.setattr(module.Path, "read_text", absent)
    assert available_memory(CPU) is None
