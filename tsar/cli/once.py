"""Commands that refuse an option which is given twice and means one thing."""

from collections import Counter
from typing import Any

from typer.core import TyperCommand

from tsar.exceptions import ParameterError

__all__ = ["Command"]


class Command(TyperCommand):
    """A command whose options are taken as they are given, all of them.

    Left to itself, the last of several values wins without a word.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, see :meth:`click.Command.parse_args`."""
        *_, order = self.make_parser(ctx).parse_args(args=list(args))
        counts = Counter(param.name for param in order)
        for param in order:
            single = param.param_type_name == "option" and not (
                param.multiple or getattr(param, "count", False)
            )
            if single and not getattr(param, "is_flag", False) and counts[param.name] > 1:
                option = max(param.opts, key=len)
                raise ParameterError(
                    f"{ctx.command_path}: {option} is given {counts[param.name]} times and takes "
                    f"one value; give it once"
                )
        return super().parse_args(ctx, args)
