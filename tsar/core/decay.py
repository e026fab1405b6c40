"""Which weights of a network are not to be decayed."""

from torch import nn

from tsar.core.position import LearnedPosition

__all__ = ["no_decay_names"]

_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)


def no_decay_names(module: nn.Module) -> set[str]:
    """Return the names of the parameters that weight decay leaves alone.

    These are biases, the weights of normalisations, the embeddings of positions, and what a
    module inside names in an attribute ``no_decay``, a tuple of its own parameters.

    Parameters
    ----------
    module : nn.Module

    Returns
    -------
    set of str
        As in ``module.named_parameters()``.
    """
    names = set()
    for path, part in module.named_modules():
        whole = isinstance(part, (*_NORMS, LearnedPosition))
        own = getattr(part, "no_decay", ())
        for name, _ in part.named_parameters(recurse=False):
            if whole or name.endswith("bias") or name in own:
                names.add(f"{path}.{name}" if path else name)
    return names
