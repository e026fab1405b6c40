"""Sequential Attention: inputs of a linear regression, chosen one after the other."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tsar.training import Objective, TorchOptimizer, TrainingOptions, make_generator, train
from tsar.training.objective import Terms

__all__ = ["NOTHING", "Pick", "sequential_attention"]

# What is left of the variance of an input, or of the target, counts as nothing below this share:
# products in double precision have no more digits.
NOTHING = 1e-9
# Spread of the logits at the start of a phase, as in the authors' code.
START = 1e-5


class Pick(NamedTuple):
    """An input that was chosen.

    Parameters
    ----------
    place : int
        Which one it is.
    score : float
        Its attention at the end of the phase that chose it, in [0, 1].
    r2 : float
        Share of the target's variance that it and those before it account for, in [0, 1].
    """

    place: int
    score: float
    r2: float


class _Attention(nn.Module):
    """The logits of the inputs that may still be chosen.

    The weights of the linear model need no steps of their own: for any attention they are those
    of ridge regression.

    Parameters
    ----------
    products : Tensor of shape (n, n)
        Mean products of inputs, of which the chosen ones are projected out.
    answers : Tensor of shape (n,)
        Mean products with the target, the largest of size 1.
    alpha : float
    logits : Tensor of shape (n,)
    """

    def __init__(self, products: Tensor, answers: Tensor, alpha: float, logits: Tensor) -> None:
        super().__init__()
        self.products, self.answers, self.alpha = products, answers, alpha
        self.logits = nn.Parameter(logits)

    def forward(self) -> Tensor:
        """Return the squared error and the penalty at their minimum, but for a constant."""
        attention = torch.softmax(self.logits, 0)
        answers = attention * self.answers
        # In units of 1 / alpha, so that a large one leaves numbers of a usual size.
        products = attention[:, None] * self.products * attention / self.alpha
        weights = torch.linalg.solve(products + torch.eye(len(products)).to(products), answers)
        return -0.5 * answers @ weights


class _LeastSquares(Objective):
    """What the attention is trained for; all rows are in every step."""

    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> Terms:
        value = network()
        return {"loss": (value, value.new_ones(()))}


class _Steps:
    """A source of so many steps, whose data the network holds."""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps

    def __len__(self) -> int:
        return self.n_steps

    def batch(self, index: Tensor) -> Tensor:
        return index


def sequential_attention(
    products: Tensor,
    answers: Tensor,
    n_selected: int,
    *,
    alpha: float = 100.0,
    n_steps: int = 50,
    seed: int = 0,
) -> list[Pick]:
    """Choose inputs of a linear regression one after the other, by trained attention.

    There is a phase for each choice. The inputs that are left are multiplied by a softmax of
    logits, which gradient steps train, and the weights of the model solve ridge regression under
    it; chosen inputs are multiplied by 1 and pay no penalty. The largest logit at the end of the
    phase is the choice, and the next phase begins with new logits.

    A weight shared out between attention and model pays least with all attention on one input, so
    that a large ``alpha`` lets in a single one: that with the largest product with the residual,
    which is the choice of orthogonal matching pursuit.

    Parameters
    ----------
    products : float64 Tensor of shape (n, n)
        Mean products of the inputs, centred and of unit variance: their correlations.
    answers : float64 Tensor of shape (n,)
        Their correlations with the target.
    n_selected : int
        At most n. Fewer are returned where no input is left that adds anything.
    alpha : float, default 100.0
        Penalty of squared weights of inputs that are not chosen, above 0.
    n_steps : int, default 50
        Gradient steps of a phase.
    seed : int, default 0
        Of the logits that a phase begins with.

    Returns
    -------
    list of Pick
        The first choice first.

    References
    ----------
    Yasuda et al., "Sequential Attention for Feature Selection", ICLR 2023. The authors' code
    takes the first input by logits that were never trained, and does not use those of the last
    phase; here each phase chooses by what it has trained. Its phase before the first choice, in
    which all inputs are multiplied by 1, trains the weights, and there is nothing to train here.
    """
    products, answers = products.clone(), answers.clone()
    chosen = torch.zeros(len(answers), dtype=torch.bool)
    generator = make_generator(seed)
    picks: list[Pick] = []
    r2 = 0.0
    for phase in range(n_selected):
        useful = ~chosen & (products.diagonal() > NOTHING)
        useful &= answers.abs() > NOTHING
        places = useful.nonzero().flatten()
        if not len(places):
            break
        logits = START * torch.randn(len(places), generator=generator, dtype=torch.float64)
        left = answers[places]
        network = _Attention(
            products[places][:, places], left / left.abs().max(), alpha, logits.to(products)
        )
        # Plain steps and no Adam: they are in the order of the gradients, so that the best input
        # is ahead at all times. Where attention is spread evenly, gradients fall with the square of
        # the number of inputs; the bound lets no step move logits by more than 1 in all.
        rate = float(len(places)) ** 2
        options = TrainingOptions(
            max_epochs=1,
            batch_size=1,
            optimizer=TorchOptimizer(torch.optim.SGD, clip=1 / rate),
            learning_rate=rate,
        )
        device = products.device
        result = train(
            network, _Steps(n_steps), None, _LeastSquares(), options, device=device, seed=phase
        )
        if result.interrupted:
            # Half a ranking would look like a whole one.
            raise KeyboardInterrupt
        attention = torch.softmax(network.logits.detach(), 0)
        best = int(network.logits.argmax())
        place = int(places[best])
        # The chosen one is taken out of the others and of the target.
        column = products[:, place].clone()
        size, answer = float(products[place, place]), float(answers[place])
        r2 += answer**2 / size
        products -= torch.outer(column, column) / size
        answers -= column * (answer / size)
        chosen[place] = True
        picks.append(Pick(place, float(attention[best]), min(r2, 1.0)))
    return picks
