"""Which parameters weight decay leaves alone."""

from torch import nn

from tsar.exceptions import ParameterError

__all__ = ["no_decay_names"]


def no_decay_names(module: nn.Module) -> set[str]:
    """Return the names of the parameters of ``module`` that weight decay must leave alone.

    Decay is for the weights of maps. Left alone are

    - vectors and single numbers, such as the factors of a norm or of a residual;
    - biases of any shape, which are called ``bias`` or ``..._bias``;
    - all parameters of layer and RMS norms, whatever they are normalised over;
    - what a module inside lists in its ``no_decay``, a tuple of names as its own
      ``named_parameters`` has them: decays of state spaces, embeddings of positions.

    Parameters
    ----------
    module : nn.Module

    Returns
    -------
    set of str
        Names as in ``module.named_parameters()``. A parameter that is shared is left alone
        everywhere if it is anywhere, under all of its names.

    Raises
    ------
    ParameterError
        If a module lists a name that none of its parameters has.
    """
    spared: set[int] = set()
    for part in module.modules():
        own = dict(part.named_parameters(remove_duplicate=False))
        listed = getattr(part, "no_decay", ())
        unknown = [name for name in listed if name not in own]
        if unknown:
            raise ParameterError(
                f"{type(part).__name__}: no_decay lists {unknown[0]!r}, which is none of its "
                f"parameters: {', '.join(own) or 'it has none'}"
            )
        is_norm = isinstance(part, nn.LayerNorm | nn.RMSNorm)
        spared.update(
            id(parameter)
            for name, parameter in own.items()
            if is_norm or name in listed or parameter.ndim < 2 or _is_bias(name)
        )
    named = module.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if id(parameter) in spared}


def _is_bias(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last == "bias" or last.endswith("_bias")
