"""Where training runs, and in which precision."""

import os
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import torch

from tsar.exceptions import ParameterError
from tsar.params.constraints import check_choice
from tsar.training.processes import sharing_processes

__all__ = [
    "PRECISIONS",
    "autocast",
    "available_memory",
    "global_generator",
    "has_fast_bfloat16",
    "has_fused_optimizers",
    "resolve_device",
    "widest_float",
]

PRECISIONS = ("float32", "bfloat16", "auto")


def resolve_device(name: str) -> torch.device:
    """Turn the name of a device into that device, and into no other.

    Parameters
    ----------
    name : str
        "cpu", "cuda", "cuda:k", "mps", or "auto": a CUDA device if there is
        one, else the CPU.

    Raises
    ------
    ParameterError
        If there is no such device here.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        # Of processes that share a training, each has a device of its own.
        several = sharing_processes()
        return torch.device("cuda" if several is None else f"cuda:{os.environ['LOCAL_RANK']}")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise _unknown(name) from error
    present = {
        "cpu": device.index in (None, 0),
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available() and device.index in (None, 0),
    }
    if device.type not in present:
        raise _unknown(name)
    if not present[device.type]:
        raise ParameterError(
            f"device={name!r} is not available here; choose one of "
            f"{', '.join(map(repr, ['auto', *_available()]))}"
        )
    return device


def _unknown(name: object) -> ParameterError:
    return ParameterError(
        f"device must be one of 'auto', 'cpu', 'cuda', 'cuda:k', 'mps', got {name!r}"
    )


def _available() -> list[str]:
    devices = ["cpu"]
    devices += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Private names, so a torch without them counts as a processor without the instructions.
        flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, flag, lambda: False)() for flag in flags)
    return False


def has_fused_optimizers(device: torch.device) -> bool:
    """Whether torch updates all parameters on a device in one pass, its older versions included."""
    return device.type in ("cpu", "cuda")


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return the context in which a network runs in the asked precision.

    Parameters
    ----------
    device : torch.device
    precision : {"float32", "bfloat16", "auto"}
        "auto" is bfloat16 where the device has it in hardware.
    """
    check_choice("autocast", "precision", precision, PRECISIONS)
    if precision == "auto":
        precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def global_generator(device: torch.device) -> torch.Generator | None:
    """Return what torch draws from on a device unless told otherwise; None where that is hidden."""
    if device.type == "cpu":
        return torch.default_generator
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return None


def available_memory(device: torch.device) -> int | None:
    """Return how many bytes can be taken on a device now; None where that is not told."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    if device.type == "cpu":
        with suppress(OSError, ValueError, KeyError):
            lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
            held = dict(line.split(":", 1) for line in lines)
            return int(held["MemAvailable"].split()[0]) * 1024
    return None


def widest_float(device: torch.device) -> torch.dtype:
    """Return the most precise type of number that a device computes with."""
    return torch.float32 if device.type == "mps" else torch.float64
