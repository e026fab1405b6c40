"""Images token by token or many at once, in any order."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tsar.core.conditioned import QueryDecoder, in_order
from tsar.core.conditioning import LabelEmbedding
from tsar.core.heads import CategoricalHead
from tsar.core.position import LearnedPosition
from tsar.core.sampling import Guidance, Sampler, uniform
from tsar.core.unmasking import cosine_counts
from tsar.exceptions import ParameterError
from tsar.image.drawn import DrawingNetwork, LevelDrawing
from tsar.image.token_ar import TokenAR
from tsar.params.constraints import check_count

__all__ = ["ARPG", "OrderedDrawing", "QueryNetwork"]


class QueryNetwork(DrawingNetwork):
    """Tokens in any order: the content of those drawn so far, and queries for places.

    In training every image has an order of its own, drawn anew for every batch; otherwise the
    order is that of reading.

    Parameters
    ----------
    decoder : QueryDecoder
    labels : LabelEmbedding
    d_model, n_tokens, n_codes : int
    """

    no_decay = ("embedding.weight", "start")

    def __init__(
        self,
        decoder: QueryDecoder,
        labels: LabelEmbedding,
        d_model: int,
        n_tokens: int,
        n_codes: int,
    ) -> None:
        super().__init__()
        self.decoder, self.labels, self.n_tokens = decoder, labels, n_tokens
        self.embedding = nn.Embedding(n_codes, d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.start = nn.Parameter(0.02 * torch.randn(d_model))
        self.position = LearnedPosition(n_tokens, d_model)
        self.wanted = LearnedPosition(n_tokens, d_model)
        self.head = CategoricalHead(d_model, n_codes)

    def beginning(self, batch: int) -> Tensor:
        """Return the content before any token, (B, 1, D)."""
        return self.start.expand(batch, 1, -1)

    def content(self, ids: Tensor, places: Tensor) -> Tensor:
        """Return the content of tokens (B, T) in places (B, T), of shape (B, T, D)."""
        return self.embedding(ids) + self.position.weight[places]

    def queries(self, places: Tensor) -> Tensor:
        """Return what asks for the tokens in places (B, T), of shape (B, T, D)."""
        return self.wanted.weight[places]

    def forward(
        self,
        ids: Tensor,
        labels: Tensor,
        order: Tensor | None = None,
        levels: Tensor | None = None,
    ) -> Tensor:
        """Return features (B, L, D) of tokens (B, L), in their places.

        Parameters
        ----------
        ids : int64 Tensor of shape (B, L)
        labels : int64 Tensor of shape (B,)
        order : int64 Tensor of shape (B, L), optional
            The places in the order in which they are drawn; by default random in training, and
            that of reading otherwise.
        levels : int64 Tensor of shape (L,), optional
            Those drawn in one pass have the same, in that order; by default each has its own.
        """
        if order is None:
            order = self._order_of(ids)
        if levels is None:
            levels = in_order(self.n_tokens).to(ids.device)
        told = self.content(ids.gather(1, order)[:, :-1], order[:, :-1])
        features: Tensor = self.decoder(
            torch.cat([self.beginning(len(ids)), told], dim=1),
            self.queries(order),
            self.labels(labels),
            # What is drawn in a pass is content for the next one.
            content_levels=torch.cat([levels[:1], levels[:-1] + 1]),
            query_levels=levels,
        )
        back = order.argsort(dim=1)[:, :, None].expand_as(features)
        return features.gather(1, back)

    def _order_of(self, ids: Tensor) -> Tensor:
        if not self.training:
            return in_order(self.n_tokens).to(ids.device).expand(len(ids), -1)
        return uniform(ids.shape, self.labels.generator, ids.device).argsort(dim=1)


class OrderedDrawing(LevelDrawing):
    """A drawing in an order of its own for each image, some tokens in a pass.

    Parameters
    ----------
    network : QueryNetwork
    guided : bool
    given_tokens : pair of Tensor or None
        See :class:`~tsar.image.drawn.LevelDrawing`.
    order : int64 Tensor of shape (B, L)
        The places in the order in which they are drawn.
    counts : list of int
        How many are drawn in each pass.
    """

    def __init__(
        self,
        network: QueryNetwork,
        guided: bool,
        given_tokens: tuple[Tensor, Tensor] | None,
        order: Tensor,
        counts: list[int],
    ) -> None:
        super().__init__(network, guided, given_tokens)
        self.order, self.counts = order, counts
        self.content: Tensor | None = None

    def shares(self) -> list[float]:
        """Return which share of the tokens there is with the first of each pass."""
        before = accumulate(self.counts[:-1], initial=0)
        return [(n_drawn + 1) / self.network.n_tokens for n_drawn in before]

    def in_order(self, values: Tensor) -> Tensor:
        """Return values (B, L) of tokens in the order in which they are drawn."""
        return values.gather(1, self.order)

    def in_places(self, values: Tensor) -> Tensor:
        """Undo :meth:`in_order`."""
        return values.gather(1, self.order.argsort(dim=1))

    def begin(self, labels: Tensor) -> tuple[Tensor, Any]:
        """Return the queries of the first pass for labels (B,), and the state before it."""
        labels = self.told(labels)
        self.content = self.network.beginning(len(labels))
        return self._queries(), self.network.decoder.init_state(self.network.labels(labels))

    def extend(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return what the queries of a pass are answered, and the state with the latest tokens."""
        return self.network.decoder.extend(self.content, x, state)

    def embed(self, step: int, drawn: Tensor) -> Tensor:
        """Return the queries of the next pass."""
        places = self._places()
        self.content = self.network.content(self.for_all_rows(drawn), self.for_all_rows(places))
        self.step, self.n_drawn = step + 1, self.n_drawn + drawn.shape[1]
        return self._queries()

    def _places(self) -> Tensor:
        return self.order[:, self.n_drawn : self.n_drawn + self.counts[self.step]]

    def _queries(self) -> Tensor:
        queries: Tensor = self.network.queries(self.for_all_rows(self._places()))
        return queries


@dataclass(kw_only=True, eq=False, repr=False)
class ARPG(TokenAR):
    """Images drawn in random orders, token by token or many at once, from one cache.

    Half of the blocks read the tokens drawn so far, in the order in which they were drawn; the
    others are asked for places, and read what the first half makes of them, see
    :class:`~tsar.core.conditioned.QueryDecoder`. It is trained in random orders, so that
    any part of an image can be drawn given the rest. Its likelihood is that of the order of
    reading.

    Parameters
    ----------
    mixer : str or subclass of Mixer, default "attention"
        A causal one, of the tokens drawn so far.
    n_layers : int, default 4
        Blocks: half of them of the tokens, the rest of the places; at least 2.

    References
    ----------
    Li et al., "Autoregressive image generation with randomized parallel decoding",
    arXiv:2503.10568, with learned positions in place of turned keys and queries, and the label in
    the norms.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from tsar.image import ARPG
    >>> digits = load_digits()
    >>> model = ARPG(tokenizer="pixels", n_levels=17, d_model=16, n_layers=2, d_ff=32,
    ...              max_steps=20, random_state=0, device="cpu")
    >>> model = model.fit(digits.images / 16, digits.target)
    >>> model.sample(label=[3, 7], n_passes=8, random_state=0).shape
    (2, 8, 8)
    """

    def _check_consistency(self) -> None:
        super()._check_consistency()
        if self.n_layers < 2:
            raise ParameterError(
                f"{self.name}: n_layers must be at least 2, of which half read tokens and the rest "
                f"are asked for places, got {self.n_layers}"
            )

    def _make_network(self) -> QueryNetwork:
        n_layers, d_model = int(self.n_layers), int(self.d_model)
        decoder = QueryDecoder(
            self._make_mixers(self.mixer, n_layers // 2, causal=True),
            n_query_layers=n_layers - n_layers // 2,
            n_heads=int(self.n_heads),
            **self._sizes,
        )
        n_codes = int(self.tokenizer_.n_codes)
        return QueryNetwork(decoder, self._make_labels(), d_model, self._n_tokens, n_codes)

    def sample(
        self,
        n: int | None = None,
        label: Any = None,
        *,
        guidance: float = 0.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        n_passes: int | None = None,
        random_state: int | None = None,
    ) -> np.ndarray:
        """Draw images.

        Parameters
        ----------
        n, label, temperature, top_k, top_p, random_state
            As for :meth:`TokenAR.sample`.
        guidance : float, default 0.0
            How much farther than the label asks for, growing with the tokens that are there; 0 is
            the model itself.
        n_passes : int or None, default None
            Of the network, over which the tokens are drawn: few at first, many at last. None
            takes one for each token.

        Returns
        -------
        float32 array of shape (n, H, W) or (n, H, W, C)
            In [0, 1].

        Raises
        ------
        NotFittedError
            ``fit`` was not called.
        ParameterError, DataError
            A number is out of its range, or there is no such label.
        """
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p)
        if n_passes is not None:
            n_passes = check_count(self.name, "n_passes", n_passes)
        return self._sampled(n, label, guidance, sampler, random_state, n_passes=n_passes)

    def _drawing(
        self,
        labels: Tensor,
        guided: bool,
        given_tokens: tuple[Tensor, Tensor] | None,
        generator: torch.Generator,
        n_passes: int | None = None,
    ) -> OrderedDrawing:
        network: Any = self.module_
        n_tokens, n_there = network.n_tokens, 0
        keys = uniform(torch.Size((len(labels), n_tokens)), generator, labels.device)
        if given_tokens is not None:
            # What is there is content for all that is drawn, wherever it stands.
            _, stays = given_tokens
            keys = keys - stays.double()
            n_there = int(stays.sum(dim=1).min())
        n_left = n_tokens - n_there
        counts = cosine_counts(n_left, n_left if n_passes is None else n_passes)
        counts = [n_there, *counts] if n_there else counts
        return OrderedDrawing(network, guided, given_tokens, keys.argsort(dim=1), counts)

    def _guidance(self, scale: float) -> Guidance:
        return Guidance(scale, "linear")
