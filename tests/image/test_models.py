"""Models of images: sums over all images, frequencies of draws, and steps against one pass."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from tsar.checks.images import Images, small_image_model
from tsar.core.conditioned import ConditionedDecoder, in_order
from tsar.core.conditioning import LabelEmbedding
from tsar.core.generation import generate_levels
from tsar.core.mixers import MIXERS, accepted_options, make_mixer
from tsar.core.quantization import MultiScaleQuantizer
from tsar.core.sampling import Guidance, Sampler
from tsar.exceptions import DataError, ParameterError
from tsar.image import MAR, PAR, RAR, VAR, AiM, MultiScaleTokenizer, TokenAR, VQTokenizer
from tsar.image.drawn import LevelDrawing
from tsar.image.pixels import cut, joined
from tsar.image.token_ar import AnyOrderNetwork, TokenImageNetwork, in_regions
from tsar.image.var import ScaleNetwork

FAMILY = Images()
LABELS = np.array(["a", "b", "c"] * 4)


def _roughened(network):
    """Give a new network weights that say something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def _tokens(mixer="attention", n_tokens=4, n_codes=2, n_classes=3):
    torch.manual_seed(0)
    options = accepted_options(mixer, n_heads=2, causal=True)
    decoder = ConditionedDecoder(
        [make_mixer(mixer, 8, **options)],
        d_model=8,
        d_ff=8,
        condition_dim=8,
        levels=in_order(n_tokens),
    )
    return _roughened(TokenImageNetwork(decoder, LabelEmbedding(n_classes, 8), 8, n_codes))


def _scales():
    torch.manual_seed(0)
    quantizer = MultiScaleQuantizer(5, 4, (1, 2, 3)).eval()
    levels = torch.tensor([0] + 4 * [1] + 9 * [2])
    decoder = ConditionedDecoder(
        [make_mixer("attention", 8, n_heads=2)],
        d_model=8,
        d_ff=8,
        condition_dim=8,
        levels=levels,
    )
    return _roughened(ScaleNetwork(decoder, LabelEmbedding(3, 8), quantizer, 8))


def _log_probabilities(network, ids, label):
    labels = torch.full((len(ids),), label)
    with torch.no_grad():
        return -network.head.loss(network(ids, labels), ids).sum(dim=1).double()


@pytest.mark.parametrize("mixer", ["attention", "mamba2", "linear_attention"])
@pytest.mark.parametrize("label", [0, 2, 3])
def test_probabilities_of_all_images_of_two_by_two_pixels_sum_to_one(mixer, label):
    every = torch.tensor(list(itertools.product(range(2), repeat=4)))
    total = _log_probabilities(_tokens(mixer), every, label).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("mixer", ["attention", "mamba2"])
def test_images_are_drawn_as_often_as_they_are_likely(mixer):
    network = _tokens(mixer, n_tokens=2, n_codes=3)
    every = torch.tensor(list(itertools.product(range(3), repeat=2)))
    expected = _log_probabilities(network, every, 1).exp().numpy()
    levels = generate_levels(
        LevelDrawing(network, False),
        torch.full((4000,), 1),
        sampler=Sampler(),
        generator=torch.Generator().manual_seed(0),
    )
    drawn = torch.cat([level.tokens for level in levels], dim=1)
    counts = np.bincount((3 * drawn[:, 0] + drawn[:, 1]).numpy(), minlength=9)
    assert chisquare(counts, 4000 * expected / expected.sum()).pvalue > 1e-3


class _Recording(LevelDrawing):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.features = []

    def sample(self, z, *arguments):
        self.features.append(z)
        return super().sample(z, *arguments)


@pytest.mark.parametrize(
    ("height", "width", "regions", "distant"),
    [(7, 7, 4, True), (4, 4, 4, False), (7, 7, 9, True), (2, 2, 4, True)],
)
def test_a_plan_of_regions_is_one_of_all_tokens(height, width, regions, distant):
    plan = in_regions(height, width, regions, distant=distant)
    assert sorted(plan.order.tolist()) == list(range(height * width))
    assert (plan.levels.diff() >= 0).all() and plan.levels[:regions].tolist() == list(
        range(regions)
    )
    for number, source in enumerate(plan.sources.tolist()):
        assert source < 0 or plan.levels[source] < plan.levels[number]
    sizes = plan.levels.bincount()[regions:]
    assert (sizes <= regions).all()
    if distant and len(sizes):
        # The tokens of a pass lie in different regions, those of a region come row by row.
        rows, columns = plan.order // width, plan.order % width
        side = int(regions**0.5)
        region = rows * side // height * side + columns * side // width
        for level in plan.levels.unique()[regions:]:
            inside = region[plan.levels == level]
            assert len(inside.unique()) == len(inside)
        for one in region.unique():
            assert (plan.order[region == one].diff() > 0).all()


def _regions(n_codes=3):
    torch.manual_seed(0)
    plan = in_regions(4, 4, 4)
    decoder = ConditionedDecoder(
        [make_mixer("attention", 8, n_heads=2) for _ in range(2)],
        d_model=8,
        d_ff=8,
        condition_dim=8,
        levels=plan.levels,
    )
    return _roughened(TokenImageNetwork(decoder, LabelEmbedding(3, 8), 8, n_codes, plan))


def test_regions_are_told_of_earlier_passes_alone():
    network, plan = _regions(), in_regions(4, 4, 4)
    ids = torch.randint(3, (2, 16), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1])
    level_of = torch.empty(16, dtype=torch.int64)
    level_of[plan.order] = plan.levels
    with torch.no_grad():
        before = network(ids, labels)
        for place in range(16):
            changed = ids.clone()
            changed[:, place] = (changed[:, place] + 1) % 3
            moved = (network(changed, labels) != before).any(dim=2).any(dim=0)
            assert not moved[level_of <= level_of[place]].any()


def _any_order(n_tokens=4, n_codes=3):
    torch.manual_seed(0)
    decoder = ConditionedDecoder(
        [make_mixer("attention", 8, n_heads=2, causal=True) for _ in range(2)],
        d_model=8,
        d_ff=8,
        condition_dim=8,
        levels=in_order(n_tokens),
    )
    return _roughened(AnyOrderNetwork(decoder, LabelEmbedding(3, 8), 8, n_codes, 100))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]])
def test_in_every_order_probabilities_of_all_images_sum_to_one(order):
    network = _any_order(n_codes=2)
    every = torch.tensor(list(itertools.product(range(2), repeat=4)))
    labels = torch.ones(16, dtype=torch.int64)
    with torch.no_grad():
        features = network(every, labels, torch.tensor(order))
        losses = network.head.loss(features, every)
        # A token is told of those before it in the order, and of no other.
        for place in range(4):
            changed = every.clone()
            changed[:, order[place]] = 1 - changed[:, order[place]]
            moved = (network(changed, labels, torch.tensor(order)) != features).any(dim=2)
            assert not moved[:, order[: place + 1]].any() and moved[:, order[place + 1 :]].all()
    assert float((-losses.sum(dim=1).double()).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_orders_are_random_first_and_those_of_reading_at_last():
    network = _any_order()
    shares = []
    for step in (0, 49, 50, 62, 75, 100):
        network.steps.fill_(step)
        shares.append(network.random_share())
    assert shares == pytest.approx([1, 1, 1, 0.52, 0, 0])
    ids, labels = torch.randint(3, (2, 4)), torch.tensor([0, 1])
    with torch.no_grad():
        read = network(ids, labels)
        assert torch.equal(read, network(ids, labels, torch.arange(4)))
        network.train()
        network.labels.drop = 0.0
        network.steps.fill_(80)
        assert torch.equal(network(ids, labels), read) and int(network.steps) == 81
        network.steps.fill_(0)
        assert any(not torch.equal(network(ids, labels), read) for _ in range(8))


@pytest.mark.parametrize("make", [_tokens, _scales, _any_order, _regions])
@pytest.mark.parametrize("guided", [False, True])
def test_drawing_level_by_level_sees_what_one_pass_sees(make, guided):
    network = make()
    n_codes = network.head.weight.shape[0]
    ids = torch.randint(n_codes, (3, network.n_tokens), generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 1, 2])
    drawing = _Recording(network, guided, (ids, torch.ones_like(ids, dtype=torch.bool)))
    levels = generate_levels(
        drawing,
        labels,
        sampler=Sampler(),
        generator=torch.Generator().manual_seed(0),
        guidance=(lambda step: 2.0) if guided else None,
    )
    drawn = torch.cat([level.tokens for level in levels], dim=1)
    assert torch.equal(network.in_places(drawn), ids)
    with torch.no_grad():
        expected = network(ids, labels)
        if guided:
            expected = torch.cat([expected, network(ids, torch.full((3,), network.labels.null))])
    torch.testing.assert_close(torch.cat(drawing.features, dim=1), network.in_order(expected))


def test_guidance_goes_farther_by_the_weight():
    network = _tokens()
    z = torch.randn(4, 1, 8)
    with torch.no_grad():
        logits = network.head(z)
    told, untold = logits.chunk(2)
    expected = (untold + 3.0 * (told - untold)).argmax(dim=-1)
    assert torch.equal(network.head.sample(z, Sampler(temperature=0), 3.0), expected)
    weights = [Guidance(2.0, "linear").weight(k / 4) for k in range(5)]
    assert weights == [1.0, 1.5, 2.0, 2.5, 3.0]


@pytest.mark.parametrize("cls", [VAR, TokenAR, AiM, PAR, MAR])
def test_labels_are_learned_and_shuffled_ones_tell_nothing(cls):
    """Images that are black or white, by their label."""
    draw = np.random.default_rng(0)
    labels = draw.integers(2, size=64)
    images = np.clip(labels[:, None, None] + 0.1 * draw.normal(size=(64, 8, 8)), 0, 1)
    n_steps = 80 if cls is MAR else 250
    options = {"max_steps": n_steps, "learning_rate": 5e-3, "d_model": 16, "batch_size": 16}
    model = small_image_model(cls, **options)
    if cls is not MAR:
        kind = next(iter(cls.tokenizer_kinds.values()))
        tokenizer = small_image_model(kind, n_codes=4, max_steps=150, learning_rate=5e-3)
        model.set_params(tokenizer=tokenizer.fit(images))
    model.fit(images, labels)
    told = model.sample(label=[0, 1] * 10, random_state=0).mean(axis=(1, 2)).round()
    assert (told == [0, 1] * 10).mean() >= 0.95
    assert model.score(images, labels) > model.score(images) + 0.01
    model.fit(images, draw.permutation(labels))
    guessed = model.sample(label=[0, 1] * 10, random_state=0).mean(axis=(1, 2)).round()
    assert (guessed == [0, 1] * 10).mean() < 0.9


def test_pixels_have_exact_bits():
    """Of independent pixels, two levels in the shares of a coin, it learns the entropy."""
    draw = np.random.default_rng(0)
    images = (draw.random((400, 4, 4)) < 0.2).astype(np.float32)
    options = {"max_steps": 150, "learning_rate": 5e-3, "batch_size": 64}
    model = small_image_model(TokenAR, tokenizer="pixels", n_levels=2, **options).fit(images)
    entropy = -(0.2 * np.log2(0.2) + 0.8 * np.log2(0.8))
    fresh = (draw.random((400, 4, 4)) < 0.2).astype(np.float32)
    assert model.bits_per_dim(fresh) == pytest.approx(entropy, abs=0.05)
    np.testing.assert_array_equal(model.reconstruct(fresh), fresh)
    drawn = model.sample(200, random_state=0)
    assert set(np.unique(drawn)) <= {0.0, 1.0} and drawn.mean() == pytest.approx(0.2, abs=0.04)


def test_one_tokenizer_serves_several_models(tmp_path):
    import tsar

    images = FAMILY.data()
    tokenizer = small_image_model(VQTokenizer).fit(images)
    models = [
        small_image_model(cls, tokenizer=tokenizer).fit(images, LABELS) for cls in (TokenAR, AiM)
    ]
    assert all(model.tokenizer_ is tokenizer for model in models)
    models[0].save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    for asked in (
        {"label": "b", "random_state": 1},
        {"label": ["a", "c"], "guidance": 1.0, "random_state": 1},
    ):
        np.testing.assert_array_equal(loaded.sample(**asked), models[0].sample(**asked))
    np.testing.assert_array_equal(loaded.tokenizer_.encode(images), tokenizer.encode(images))
    assert tokenizer.code_usage_.sum() == pytest.approx(1)


def test_any_mixer_of_the_core_draws_images():
    images = FAMILY.data()
    for mixer in ("mamba", "linear_attention", "retention", MIXERS["gated_linear_attention"]):
        model = small_image_model(TokenAR, tokenizer=small_image_model(VQTokenizer), mixer=mixer)
        assert model.fit(images).sample(2, random_state=0).shape == (2, 8, 8)


def test_scales_of_ones_own():
    images = FAMILY.data()
    tokenizer = small_image_model(MultiScaleTokenizer, scales=(1, 2), residual=False).fit(images)
    assert tokenizer.encode(images).shape == (12, 5) and tokenizer.sides() == (1, 2)
    with pytest.raises(ParameterError, match=r"scales must grow and end with 2, .* got \[1, 3\]"):
        small_image_model(MultiScaleTokenizer, scales=(1, 3)).fit(images)


@pytest.mark.parametrize(
    ("cls", "parameters", "error", "message"),
    [
        (TokenAR, {"tokenizer": "multiscale"}, ParameterError, "tokenizer must be one of"),
        (VAR, {"tokenizer": VQTokenizer()}, ParameterError, "a name or a MultiScaleTokenizer"),
        (VAR, {"mixer": "mamba2"}, ParameterError, "mixer must be one of"),
        (TokenAR, {"mixer": "low_rank"}, ParameterError, "mixer must be one of"),
        (TokenAR, {"d_model": 10, "n_heads": 4}, ParameterError, "a multiple of n_heads=4"),
        (TokenAR, {"tokenizer": "pixels", "augment": "shift"}, ParameterError, "set augment=None"),
        (TokenAR, {"tokenizer": "pixels", "n_levels": 3}, DataError, "images of so many levels"),
        (PAR, {"regions": 3}, ParameterError, "a square number such as 4"),
        (PAR, {"mixer": "mamba2"}, ParameterError, "mixer must be one of"),
        (PAR, {"regions": 9}, DataError, "2 x 2 tokens have no 9 regions"),
        (TokenAR, {"max_steps": None}, ParameterError, "one of max_steps and max_epochs"),
    ],
)
def test_wrong_parameters(cls, parameters, error, message):
    with pytest.raises(error, match=message):
        small_image_model(cls, **parameters).fit(FAMILY.data())


def test_what_cannot_be_asked_for():
    model = small_image_model(TokenAR, tokenizer=small_image_model(VQTokenizer)).fit(FAMILY.data())
    images = FAMILY.data()
    for call, error, message in (
        (lambda: model.sample(label=3), DataError, "fitted without labels"),
        (lambda: model.sample(guidance=1.0), ParameterError, "set guidance=0"),
        (lambda: model.sample(0), ParameterError, "n must be"),
        (lambda: model.bits_per_dim(images), ParameterError, "defined for tokenizer='pixels'"),
        (lambda: model.inpaint(images, np.zeros((4, 4), bool)), DataError, "mask must be boolean"),
        (lambda: model.partial_fit(images, LABELS), DataError, "as before"),
        (lambda: model.tokenizer_.decode([[99, 0, 0, 0]]), DataError, "integers in"),
    ):
        with pytest.raises(error, match=message):
            call()
    labelled = small_image_model(TokenAR, tokenizer=model.tokenizer_).fit(images, LABELS)
    with pytest.raises(ParameterError, match="n must be the number of labels, 2, got 3"):
        labelled.sample(3, ["a", "b"])


@pytest.mark.parametrize(("size", "channels"), [(4, 1), (2, 3)])
def test_patches_and_back(size, channels):
    images = torch.randn(3, channels, 8, 8)
    patches = cut(images, size)
    assert patches.shape == (3, (8 // size) ** 2, channels * size * size)
    torch.testing.assert_close(patches[:, 1, :size], images[:, 0, 0, size : 2 * size])
    assert torch.equal(joined(patches, size, (channels, 8, 8)), images)


@pytest.mark.parametrize("head", ["flow", "diffusion", "squared_error"])
def test_patches_are_drawn_with_each_head_in_any_number_of_passes(head):
    images = FAMILY.data()
    model = small_image_model(MAR, head=head, max_steps=2).fit(images, LABELS)
    for n_passes in (None, 1, 2, 9):
        drawn = model.sample(label=["a", "b"], guidance=1.0, n_passes=n_passes, random_state=0)
        assert drawn.shape == (2, 8, 8) and np.isfinite(drawn).all()
    assert model.score(images, LABELS) == model.score(images, LABELS)
    with pytest.raises(DataError, match="patch_size=3 must divide the side of the images, 8"):
        small_image_model(MAR, patch_size=3).fit(images)
    with pytest.raises(ParameterError, match="n_passes"):
        model.sample(n_passes=0)
    with pytest.raises(ParameterError, match="temperature"):
        model.sample(temperature=-1.0)


def test_hidden_patches_are_not_seen():
    """What is said of all patches is the same whatever the masked ones hold."""
    model = small_image_model(MAR).fit(FAMILY.data(), LABELS)
    network = _roughened(model.module_)
    patches, masked = torch.randn(2, 4, 16), torch.tensor([[True, False, True, False]]).repeat(2, 1)
    changed = torch.where(masked[..., None], torch.randn(2, 4, 16), patches)
    labels = torch.tensor([0, 2])
    with torch.no_grad():
        assert torch.equal(network(patches, masked, labels), network(changed, masked, labels))
        seen = network(changed.flip(1), masked, labels)
        assert (seen != network(patches, masked, labels)).all(dim=2).any()


def test_a_fit_that_fails_leaves_the_model_as_it_was():
    images = FAMILY.data().round()
    model = small_image_model(TokenAR, tokenizer="pixels", n_levels=2).fit(images, LABELS)
    before = model.sample(label="b", random_state=0)
    # A level that there is none of, beyond the images that are encoded at a time.
    wrong = np.concatenate([images.repeat(30, axis=0), np.full((1, 8, 8), 0.3)])
    with pytest.raises(DataError, match="TokenAR: tokenizer='pixels' with n_levels=2"):
        model.fit(wrong)
    assert model.n_images_ == 12 and model.classes_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(model.sample(label="b", random_state=0), before)
    fresh = small_image_model(TokenAR, tokenizer="pixels", n_levels=2)
    with pytest.raises(DataError):
        fresh.fit(wrong)
    assert not hasattr(fresh, "image_shape_")


def test_training_goes_on_with_the_tokenizer_that_it_began_with():
    images = FAMILY.data()
    tokenizer = small_image_model(VQTokenizer)
    model = small_image_model(TokenAR, tokenizer=tokenizer).fit(images, LABELS)
    first = model.tokenizer_
    assert model.partial_fit(images, LABELS).tokenizer_ is first
    model.set_params(tokenizer=small_image_model(VQTokenizer, n_codes=4))
    with pytest.raises(ParameterError, match="tokenizer has changed since the last fit"):
        model.partial_fit(images, LABELS)


def test_what_is_laid_over_a_training_knows_its_steps():
    """They are those of the epochs where these are fewer, or alone."""
    images = FAMILY.data()
    options = {"max_steps": None, "max_epochs": 4, "batch_size": 4, "early_stopping": 4}
    model = small_image_model(RAR, tokenizer=small_image_model(VQTokenizer), **options).fit(images)
    # Of twelve images four are held out: two steps an epoch.
    assert model.module_.n_steps == 8 == int(model.module_.steps)
    model = small_image_model(VQTokenizer, max_epochs=5, max_steps=100, batch_size=6).fit(images)
    assert model.module_.quantizer.restart_steps == 7


def test_tokens_that_are_the_same_in_every_step_are_made_once(monkeypatch):
    images, calls = FAMILY.data(), []
    tokenizer = small_image_model(VQTokenizer).fit(images)
    ids = tokenizer.ids
    monkeypatch.setattr(tokenizer, "ids", lambda part: (calls.append(len(part)), ids(part))[1])
    small_image_model(TokenAR, tokenizer=tokenizer, max_steps=7).fit(images)
    assert calls == [12]
    small_image_model(TokenAR, tokenizer=tokenizer, max_steps=7, augment="shift").fit(images)
    assert calls[1:] == [4] * 7
