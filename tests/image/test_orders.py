"""Images in any order, outwards, and by scales that are handed to a smaller model."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

import tsar
from tsar.checks.images import Images, small_image_model
from tsar.core.conditioned import ConditionedDecoder, QueryDecoder
from tsar.core.conditioning import LabelEmbedding
from tsar.core.generation import generate_levels
from tsar.core.mixers import accepted_options, make_mixer
from tsar.core.quantization import MultiScaleQuantizer
from tsar.core.sampling import Sampler
from tsar.exceptions import DataError, NotFittedError, ParameterError
from tsar.image import ARPG, NAR, VAR, MultiScaleTokenizer, TokenAR, VQTokenizer, drawn
from tsar.image.arpg import OrderedDrawing, QueryNetwork
from tsar.image.drawn import LevelDrawing
from tsar.image.nar import NeighbourNetwork, near_to_far
from tsar.image.var import RelayedDrawing, ScaleNetwork

IMAGES, LABELS = Images().data(), np.array(["a", "b", "c"] * 4)
SIZES = {"d_model": 8, "d_ff": 8, "condition_dim": 8}


def _roughened(network):
    """Give a new network weights that say something, in double precision."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return network.double().eval()


def _queries(n_tokens=4, n_codes=2, mixer="attention"):
    torch.manual_seed(0)
    options = accepted_options(mixer, n_heads=2, causal=True, qk_norm=True)
    mixers = [make_mixer(mixer, 8, **options) for _ in range(2)]
    decoder = QueryDecoder(mixers, n_query_layers=2, n_heads=2, **SIZES)
    return _roughened(QueryNetwork(decoder, LabelEmbedding(3, 8), 8, n_tokens, n_codes))


def _neighbours(side=2, n_codes=2):
    torch.manual_seed(0)
    plan = near_to_far(side, side)
    levels = torch.cat([plan.levels[:1], plan.levels[:-1] + 1])
    mixers = [make_mixer("attention", 8, n_heads=2) for _ in range(2)]
    decoder = ConditionedDecoder(mixers, levels=levels, **SIZES)
    return _roughened(NeighbourNetwork(decoder, LabelEmbedding(3, 8), 8, n_codes, plan))


def _scales(across="mamba2", d_model=8, seed=0, n_codes=5):
    torch.manual_seed(0)
    quantizer = MultiScaleQuantizer(n_codes, 4, (1, 2, 3)).double().eval()
    torch.manual_seed(seed)
    levels = torch.tensor([0] + 4 * [1] + 9 * [2])
    mixers = [make_mixer("attention", d_model, n_heads=2) for _ in range(2)]
    options = {} if across is None else accepted_options(across, n_heads=2)
    over = None if across is None else [make_mixer(across, d_model, **options) for _ in range(2)]
    decoder = ConditionedDecoder(
        mixers, d_model=d_model, d_ff=8, condition_dim=d_model, levels=levels, across=over
    )
    return _roughened(ScaleNetwork(decoder, LabelEmbedding(3, d_model), quantizer, d_model))


class _Recording:
    """Any drawing, that keeps the features that are drawn from."""

    def __init__(self, drawing):
        self.drawing, self.features = drawing, []

    def __getattr__(self, name):
        return getattr(self.drawing, name)

    @property
    def head(self):
        return self

    def sample(self, z, *arguments):
        self.features.append(z)
        return self.drawing.sample(z, *arguments)


def _replayed(drawing, labels, guided=False):
    """Draw, and return the tokens in their places and all features in the order of drawing."""
    recording = _Recording(drawing)
    levels = generate_levels(
        recording,
        labels,
        sampler=Sampler(),
        generator=torch.Generator().manual_seed(0),
        guidance=(lambda step: 2.0) if guided else None,
    )
    tokens = torch.cat([level.tokens for level in levels], dim=1)
    return drawing.in_places(tokens), recording.features


def _random_ids(network, batch=3):
    n_codes = network.head.weight.shape[0]
    generator = torch.Generator().manual_seed(2)
    return torch.randint(n_codes, (batch, network.n_tokens), generator=generator)


def _random_orders(batch, n_tokens):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(batch, n_tokens, generator=generator).argsort(dim=1)


# ------------------------------------------------------------------------ any order


@pytest.mark.parametrize("mixer", ["attention", "mamba2"])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("counts", [[1] * 9, [1, 2, 2, 4], [9], [3, 6]])
def test_groups_from_one_cache_see_what_one_pass_sees(mixer, guided, counts):
    network = _queries(9, 3, mixer)
    ids, labels = _random_ids(network), torch.tensor([0, 1, 2])
    order = _random_orders(3, 9)
    drawing = OrderedDrawing(network, guided, (ids, torch.ones_like(ids) > 0), order, counts)
    tokens, features = _replayed(drawing, labels, guided)
    assert torch.equal(tokens, ids) and [z.shape[1] for z in features] == counts
    levels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    with torch.no_grad():
        expected = network(ids, labels, order, levels)
        if guided:
            none = torch.full((3,), network.labels.null)
            expected = torch.cat([expected, network(ids, none, order, levels)])
    both = order.repeat(2, 1) if guided else order
    in_order = expected.gather(1, both[:, :, None].expand_as(expected))
    torch.testing.assert_close(torch.cat(features, dim=1), in_order, rtol=0, atol=1e-10)


def test_a_token_of_a_group_is_said_of_as_if_it_came_next():
    """In a group or alone, the same is said of a token given the same tokens before."""
    network = _queries(9, 3)
    ids, labels = _random_ids(network, 1), torch.tensor([1])
    order = _random_orders(1, 9)
    levels = torch.tensor([0, 1, 2, 2, 2, 2, 3, 3, 3])
    with torch.no_grad():
        grouped = network(ids, labels, order, levels)
        for first, stop in ((2, 6), (6, 9)):
            for number in range(first, stop):
                # The group's own tokens come behind it.
                rest = [k for k in range(first, 9) if k != number]
                alone = order[:, [*range(first), number, *rest]]
                place = int(order[0, number])
                torch.testing.assert_close(
                    network(ids, labels, alone)[:, place], grouped[:, place], rtol=0, atol=1e-10
                )


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]])
@pytest.mark.parametrize("counts", [[1, 1, 1, 1], [1, 3], [2, 2]])
def test_in_any_groups_probabilities_of_all_images_sum_to_one(order, counts):
    network = _queries()
    every = torch.tensor(list(itertools.product(range(2), repeat=4)))
    orders, labels = torch.tensor(order).expand(16, -1), torch.ones(16, dtype=torch.int64)
    levels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    with torch.no_grad():
        features = network(every, labels, orders, levels)
        losses = network.head.loss(features, every)
        # A token is told of those of earlier groups, and of no other.
        for number, place in enumerate(order):
            changed = every.clone()
            changed[:, place] = 1 - changed[:, place]
            moved = (network(changed, labels, orders, levels) != features).any(dim=2)
            later = [order[k] for k in range(4) if levels[k] > levels[number]]
            others = [k for k in range(4) if k not in later]
            assert not moved[:, others].any() and moved[:, later].all()
    assert float((-losses.sum(dim=1)).exp().sum()) == pytest.approx(1, abs=1e-9)


def test_token_by_token_draws_are_as_frequent_as_they_are_likely():
    """Images of 2 x 2 pixels, in an order of their own."""
    network, order = _queries(), torch.tensor([2, 0, 3, 1])
    every = torch.tensor(list(itertools.product(range(2), repeat=4)))
    with torch.no_grad():
        features = network(every, torch.ones(16, dtype=torch.int64), order.expand(16, -1))
        expected = (-network.head.loss(features, every).sum(dim=1)).exp().numpy()
    drawing = OrderedDrawing(network, False, None, order.expand(4000, -1), [1] * 4)
    tokens, _ = _replayed(drawing, torch.ones(4000, dtype=torch.int64))
    counts = np.bincount((tokens * torch.tensor([8, 4, 2, 1])).sum(dim=1), minlength=16)
    assert chisquare(counts, 4000 * expected / expected.sum()).pvalue > 1e-3


def test_training_draws_an_order_for_each_image_and_reads_otherwise():
    network = _queries(9, 3)
    ids, labels = _random_ids(network, 2), torch.tensor([0, 1])
    with torch.no_grad():
        read = network(ids, labels)
        assert torch.equal(read, network(ids, labels, torch.arange(9).expand(2, -1)))
        network.train()
        network.labels.drop = 0.0
        network.labels.generator = torch.Generator().manual_seed(0)
        keys = torch.rand(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert torch.equal(network(ids, labels), network(ids, labels, keys.argsort(dim=1)))
        assert not torch.equal(network(ids, labels), network(ids, labels))


def test_what_is_there_is_read_before_anything_is_drawn(monkeypatch):
    """The rest of an image is drawn as tokens of the last places, whatever stands there already."""
    model = small_image_model(ARPG, tokenizer="pixels", n_levels=2).fit(IMAGES.round(), LABELS)
    drawings = []
    drawing = type(model)._drawing
    monkeypatch.setattr(
        ARPG, "_drawing", lambda *a, **o: drawings.append(drawing(*a, **o)) or drawings[-1]
    )
    mask = np.zeros((2, 8, 8), bool)
    mask[0, 4:], mask[1, :, 3:] = True, True
    model.inpaint(IMAGES[:2].round(), mask, random_state=0)
    # 32 tokens of the first image and 24 of the second stay.
    assert drawings[0].counts == [24] + 40 * [1]
    for order, opened in zip(drawings[0].order, mask.reshape(2, -1), strict=True):
        is_open = opened[order.numpy()]
        assert (np.diff(is_open.astype(int)) >= 0).all()
    model.sample(3, n_passes=6, random_state=0)
    assert sum(drawings[1].counts) == 64 and len(drawings[1].counts) == 6
    assert drawings[1].shares()[0] == 1 / 64 and drawings[1].shares()[-1] < 1
    assert len({tuple(row) for row in drawings[1].order.tolist()}) == 3
    everything = model.inpaint(IMAGES[:2].round(), np.zeros((8, 8), bool), random_state=0)
    np.testing.assert_array_equal(everything, IMAGES[:2].round())


def test_any_causal_mixer_reads_what_is_drawn():
    for mixer in ("mamba2", "linear_attention"):
        model = small_image_model(ARPG, tokenizer="pixels", n_levels=2, mixer=mixer)
        drawn_images = model.fit(IMAGES.round()).sample(2, n_passes=5, random_state=0)
        assert set(np.unique(drawn_images)) <= {0.0, 1.0}


# ------------------------------------------------------------------- near to far


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (3, 3), (3, 5), (7, 7)])
def test_the_plan_from_near_to_far_is_that_of_a_slow_loop(height, width):
    plan, numbers = near_to_far(height, width), {}
    for distance in range(height + width - 1):
        for row in range(height):
            for column in range(width):
                if row + column == distance:
                    number = len(numbers)
                    assert int(plan.order[number]) == row * width + column
                    assert int(plan.levels[number]) == distance
                    left, above = plan.sources[:, number].tolist()
                    assert left == numbers.get((row, column - 1), -1)
                    assert above == numbers.get((row - 1, column), -1)
                    numbers[row, column] = number
    assert len(plan.order) == height * width
    assert len(plan.levels.unique()) == height + width - 1


def test_a_token_is_said_of_by_its_left_and_its_upper_neighbour():
    """Two linear maps, averaged where both apply, as a loop over the tokens says."""
    network, side = _neighbours(4, 3), 4
    ids, labels = _random_ids(network, 2), torch.tensor([0, 2])
    with torch.no_grad():
        logits = network.head(network(ids, labels))
        z = network.decoder(network.inputs(ids), network.labels(labels))
        order = network.order.tolist()
        right, below = network.head.weight.chunk(2, dim=1)
        for place in range(side * side):
            row, column = divmod(place, side)
            said = []
            if row == column == 0:
                said = [z[:, 0] @ right.T, z[:, 0] @ below.T]
            if column:
                said.append(z[:, 1 + order.index(place - 1)] @ right.T)
            if row:
                said.append(z[:, 1 + order.index(place - side)] @ below.T)
            torch.testing.assert_close(logits[:, place], sum(said) / len(said), atol=1e-10, rtol=0)


@pytest.mark.parametrize("guided", [False, True])
def test_diagonals_see_what_one_pass_sees(guided):
    network = _neighbours(4, 3)
    ids, labels = _random_ids(network), torch.tensor([0, 1, 2])
    drawing = LevelDrawing(network, guided, (ids, torch.ones_like(ids) > 0))
    tokens, features = _replayed(drawing, labels, guided)
    assert torch.equal(tokens, ids)
    assert [z.shape[1] for z in features] == [1, 2, 3, 4, 3, 2, 1]
    with torch.no_grad():
        expected = network(ids, labels)
        if guided:
            none = torch.full((3,), network.labels.null)
            expected = torch.cat([expected, network(ids, none)])
    seen = network.in_places(torch.cat(features, dim=1))
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-10)


def test_a_token_is_told_of_nearer_ones_alone():
    network = _neighbours(4, 3)
    ids, labels = _random_ids(network, 2), torch.tensor([0, 1])
    distance = torch.arange(16) // 4 + torch.arange(16) % 4
    with torch.no_grad():
        before = network(ids, labels)
        for place in range(16):
            changed = ids.clone()
            changed[:, place] = (changed[:, place] + 1) % 3
            moved = (network(changed, labels) != before).any(dim=2).any(dim=0)
            assert not moved[distance <= distance[place]].any()
            assert moved[distance > distance[place]].all()


def test_outwards_probabilities_of_all_images_sum_to_one():
    network = _neighbours()
    every = torch.tensor(list(itertools.product(range(2), repeat=4)))
    with torch.no_grad():
        features = network(every, torch.ones(16, dtype=torch.int64))
        losses = network.head.loss(features, every).sum(dim=1)
    assert float((-losses).exp().sum()) == pytest.approx(1, abs=1e-9)


# ------------------------------------------------------- scales, apart and handed over


@pytest.mark.parametrize("across", ["mamba2", "mamba", "linear_attention"])
@pytest.mark.parametrize("guided", [False, True])
def test_scale_by_scale_sees_what_one_pass_sees(across, guided):
    network = _scales(across)
    ids, labels = _random_ids(network), torch.tensor([0, 1, 2])
    drawing = LevelDrawing(network, guided, (ids, torch.ones_like(ids) > 0))
    tokens, features = _replayed(drawing, labels, guided)
    assert torch.equal(tokens, ids)
    with torch.no_grad():
        expected = network(ids, labels)
        if guided:
            none = torch.full((3,), network.labels.null)
            expected = torch.cat([expected, network(ids, none)])
    torch.testing.assert_close(torch.cat(features, dim=1), expected, rtol=0, atol=1e-10)


def test_a_scale_knows_of_coarser_ones_by_the_recurrence_alone():
    """Without its gate a scale is on its own; with it, each depends on coarser ones, too."""
    network = _scales()
    x = torch.randn(1, 14, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    condition, levels = torch.ones(1, 8, dtype=torch.float64), network.decoder.levels

    def moved_by(token):
        changed = x.clone()
        changed[:, token] = x[:, token].flip(1)
        return (network.decoder(changed, condition) - before).abs().amax(dim=(0, 2)) > 1e-9

    with torch.no_grad():
        before = network.decoder(x, condition)
        for token in range(14):
            moved = moved_by(token)
            assert moved[levels > levels[token]].all() and not moved[levels < levels[token]].any()
        for block in network.decoder.blocks:
            gate = slice(16, 24)
            block.across_norm.map.weight[gate] = 0
            block.across_norm.map.bias[gate] = 0
        before = network.decoder(x, condition)
        for token in range(14):
            assert torch.equal(moved_by(token), levels == levels[token])


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("across", [None, "mamba2"])
@pytest.mark.parametrize("refine_from", [1, 2])
def test_a_refiner_sees_all_that_was_drawn(guided, across, refine_from):
    """The first scales are those of one network, the others what the refiner says in one pass."""
    network, refiner = _scales(None), _scales(across, d_model=4, seed=5)
    ids, labels = _random_ids(network), torch.tensor([0, 1, 2])
    there = ids, torch.ones_like(ids) > 0
    drawing = RelayedDrawing(network, guided, there, refiner, refine_from)
    _, features = _replayed(drawing, labels, guided)
    rows = torch.cat([labels, torch.full((3,), 3)]) if guided else labels
    both = ids.repeat(2, 1) if guided else ids
    bounds = [0, 1, 5, 14]
    with torch.no_grad():
        for scale, seen in enumerate(features):
            says = network if scale < refine_from else refiner
            expected = says(both, rows)[:, bounds[scale] : bounds[scale + 1]]
            torch.testing.assert_close(seen, expected, rtol=0, atol=1e-10)


def _var(tokenizer, **parameters):
    return small_image_model(VAR, tokenizer=tokenizer, **parameters).fit(IMAGES, LABELS)


@pytest.fixture(scope="module")
def tokenizer():
    return small_image_model(MultiScaleTokenizer, scales=(1, 2)).fit(IMAGES)


@pytest.mark.parametrize("across", [None, "mamba2"])
def test_a_model_refines_itself_to_what_it_draws_alone(tokenizer, across, tmp_path):
    model = _var(tokenizer, across=across)
    wanted = {"label": ["a", "b", "c"], "guidance": 1.0, "random_state": 0}
    alone = model.sample(**wanted)
    np.testing.assert_allclose(model.sample(refiner=model, **wanted), alone, atol=1e-6)
    # One that was saved has a tokenizer of its own that is the same.
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.sample(**wanted), alone)
    relayed = loaded.sample(refiner=model, refine_from=1, **wanted)
    np.testing.assert_allclose(relayed, alone, atol=1e-6)


def test_a_refiner_must_draw_the_same_tokens_of_the_same_images(tokenizer):
    model = _var(tokenizer)
    other = small_image_model(MultiScaleTokenizer, scales=(1, 2), random_state=1).fit(IMAGES)
    unlabelled = small_image_model(VAR, tokenizer=tokenizer).fit(IMAGES)
    for options, error, message in (
        ({"refiner": _var(other)}, ParameterError, "refiner must draw the same tokens"),
        ({"refiner": unlabelled}, ParameterError, "refiner must have the shape of images"),
        ({"refiner": small_image_model(TokenAR)}, ParameterError, "must be a fitted VAR"),
        ({"refiner": small_image_model(VAR)}, NotFittedError, "call fit first"),
        ({"refiner": model, "refine_from": 0}, ParameterError, "refine_from must be"),
        ({"refiner": model, "refine_from": 2}, ParameterError, "refine_from must be"),
        ({"refine_from": 1}, ParameterError, "pass refiner="),
    ):
        with pytest.raises(error, match=message):
            model.sample(**options)
    bigger = np.kron(IMAGES, np.ones((1, 2, 2), IMAGES.dtype))
    large = small_image_model(MultiScaleTokenizer, scales=(1, 4)).fit(bigger)
    refiner = small_image_model(VAR, tokenizer=large).fit(bigger, LABELS)
    with pytest.raises(ParameterError, match="refiner must draw the same tokens"):
        model.sample(refiner=refiner)


# ----------------------------------------------------------------------------- all


@pytest.mark.parametrize(
    ("cls", "parameters", "error", "message"),
    [
        (ARPG, {"n_layers": 1}, ParameterError, "n_layers must be at least 2"),
        (ARPG, {"mixer": "low_rank"}, ParameterError, "mixer must be one of"),
        (NAR, {"mixer": "mamba2"}, ParameterError, "mixer must be one of"),
        (VAR, {"across": "attention"}, ParameterError, "across must be one of"),
        (VAR, {"across": VQTokenizer}, ParameterError, "across must be None, one of"),
        (VAR, {"mixer": "mamba2", "across": "mamba2"}, ParameterError, "mixer must be one of"),
    ],
)
def test_wrong_parameters(cls, parameters, error, message):
    with pytest.raises(error, match=message):
        small_image_model(cls, **parameters).fit(IMAGES)


def test_what_cannot_be_drawn():
    colours = np.stack([IMAGES.round()] * 3, axis=-1)
    with pytest.raises(DataError, match="pixels in two directions must have one channel, got 3"):
        small_image_model(NAR, tokenizer="pixels", n_levels=2).fit(colours)
    model = small_image_model(ARPG, tokenizer="pixels", n_levels=2).fit(colours)
    assert model.sample(2, n_passes=9, random_state=0).shape == (2, 8, 8, 3)
    with pytest.raises(ParameterError, match="n_passes"):
        model.sample(n_passes=0)


@pytest.mark.parametrize(("cls", "options"), [(ARPG, {}), (NAR, {}), (VAR, {"across": "mamba2"})])
def test_labels_are_learned(cls, options):
    """Images that are black or white, by their label."""
    draw = np.random.default_rng(0)
    labels = draw.integers(2, size=64)
    images = np.clip(labels[:, None, None] + 0.1 * draw.normal(size=(64, 8, 8)), 0, 1)
    settings = {"max_steps": 120, "learning_rate": 1e-2, "d_model": 16, "batch_size": 16}
    kind = next(iter(cls.tokenizer_kinds.values()))
    tokenizer = small_image_model(kind, n_codes=4, max_steps=100, learning_rate=1e-2)
    model = small_image_model(cls, tokenizer=tokenizer, **settings, **options)
    model.fit(images, labels)
    told = model.sample(label=[0, 1] * 10, random_state=0).mean(axis=(1, 2)).round()
    assert (told == [0, 1] * 10).mean() >= 0.95
    assert model.score(images, labels) > model.score(images) + 0.01


def test_all_of_them_draw_by_the_loop_of_the_core(monkeypatch, tokenizer):
    calls, loop = [], drawn.generate_levels
    monkeypatch.setattr(
        drawn, "generate_levels", lambda *a, **o: calls.append(len(a[1])) or loop(*a, **o)
    )
    for cls in (ARPG, NAR):
        model = small_image_model(cls, tokenizer="pixels", n_levels=2).fit(IMAGES.round())
        model.sample(2, random_state=0)
    model = _var(tokenizer, across="mamba2")
    model.sample(3, refiner=model, random_state=0)
    assert calls == [2, 2, 3]


@pytest.mark.parametrize(("cls", "options"), [(ARPG, {}), (NAR, {}), (VAR, {"across": "mamba2"})])
def test_they_are_saved_and_trained_on(cls, options, tmp_path):
    kind = next(iter(cls.tokenizer_kinds.values()))
    model = small_image_model(cls, tokenizer=small_image_model(kind), **options)
    model.fit(IMAGES, LABELS)
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    wanted = {"label": ["c", "a"], "guidance": 1.0, "random_state": 4}
    np.testing.assert_array_equal(loaded.sample(**wanted), model.sample(**wanted))
    assert loaded.score(IMAGES, LABELS) == model.score(IMAGES, LABELS)
    before = {name: weight.clone() for name, weight in model.module_.named_parameters()}
    model.partial_fit(IMAGES, LABELS)
    moved = [not torch.equal(w, before[name]) for name, w in model.module_.named_parameters()]
    assert any(moved) and np.isfinite(model.score(IMAGES, LABELS))
