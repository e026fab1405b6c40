"""FlowAR: the pictures of its scales against loops, what it sees, and steps against one pass."""

import numpy as np
import pytest
import torch

from tsar.checks.images import Images, small_image_model
from tsar.core.generation import generate_levels
from tsar.core.sampling import Sampler
from tsar.exceptions import DataError, ParameterError
from tsar.image import FlowAR
from tsar.image.drawn import LevelDrawing
from tsar.image.flow_ar import doubling

FAMILY = Images()
LABELS = np.array(["a", "b", "c"] * 4)


@pytest.fixture(scope="module")
def network():
    """One of three scales, of images of two channels, with weights that say something."""
    images = np.random.default_rng(0).random((6, 12, 12, 2)).astype(np.float32)
    model = small_image_model(FlowAR, max_steps=1).fit(images, [0, 1, 2] * 2)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.module_.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.module_.double().eval()


def _images(n=3):
    return torch.rand(n, 2, 12, 12, generator=torch.Generator().manual_seed(3)).double() * 2 - 1


def test_sides_double_up_to_the_last():
    assert doubling(7) == (1, 2, 4, 7) and doubling(8) == (1, 2, 4, 8)
    assert doubling(1) == (1,) and doubling(2) == (1, 2) and doubling(3) == (1, 2, 3)


def test_a_scale_is_the_image_in_means_of_areas(network):
    assert network.sides == (1, 2, 3)
    images = _images()
    vectors = network.vectors(images)
    assert vectors.shape == (3, 1 + 4 + 9, 2 * 16)
    begin = 0
    for side in (1, 2, 3):
        size = 4 * side
        small = torch.empty(3, 2, size, size).double()
        for row in range(size):
            for column in range(size):
                # From where it begins to where it ends, in whole pixels.
                top, bottom = row * 12 // size, -(-(row + 1) * 12 // size)
                left, right = column * 12 // size, -(-(column + 1) * 12 // size)
                area = images[:, :, top:bottom, left:right]
                small[:, :, row, column] = area.mean(dim=(2, 3))
        for place in range(side * side):
            row, column = divmod(place, side)
            patch = small[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            torch.testing.assert_close(vectors[:, begin + place], patch.flatten(1))
        begin += side * side
    assert torch.equal(network.images(vectors), images)


def test_a_scale_is_told_of_the_one_before_alone(network):
    vectors = network.vectors(_images())
    before = network.coarser(vectors)
    levels = network.decoder.levels
    for scale in range(3):
        moved = vectors.clone()
        moved[:, levels == scale] += 0.1
        changed = (network.coarser(moved) != before).any(dim=2).any(dim=0)
        assert torch.equal(changed, levels[1:] == scale + 1)
        # An even brightness stays one, however it is grown and shrunk.
        if scale < 2:
            even = network.coarser(torch.full_like(vectors, 0.3))
            torch.testing.assert_close(even, torch.full_like(even, 0.3))


def test_finer_scales_reach_no_coarser_ones(network):
    vectors, labels = network.vectors(_images()), torch.tensor([0, 1, 2])
    levels = network.decoder.levels
    with torch.no_grad():
        before = network(vectors, labels)
        for place in range(len(levels)):
            moved = vectors.clone()
            moved[:, place] += 0.3
            changed = (network(moved, labels) != before).any(dim=2).any(dim=0)
            # What is wanted of a scale depends on those before, not on itself.
            assert torch.equal(changed, levels > levels[place])


@pytest.mark.parametrize("guided", [False, True])
def test_drawing_scale_by_scale_sees_what_one_pass_sees(network, guided):
    vectors, labels = network.vectors(_images()), torch.tensor([0, 1, 2])
    seen = []

    class Recording(LevelDrawing):
        def sample(self, z, *arguments):
            seen.append(network.head_position(z, self.n_drawn))
            return super().sample(z, *arguments)

    drawing = Recording(network, guided, (vectors, torch.ones_like(vectors, dtype=torch.bool)))
    levels = generate_levels(
        drawing,
        labels,
        sampler=Sampler(),
        generator=torch.Generator().manual_seed(0),
        guidance=(lambda step: 2.0) if guided else None,
    )
    drawn = torch.cat([level.tokens for level in levels], dim=1)
    torch.testing.assert_close(drawn, vectors)
    with torch.no_grad():
        expected = network(vectors, labels)
        if guided:
            none = torch.full((3,), network.labels.null)
            expected = torch.cat([expected, network(vectors, none)])
    torch.testing.assert_close(torch.cat(seen, dim=1), expected, atol=1e-5, rtol=0)


def test_an_image_of_one_patch_is_a_plain_flow():
    images = FAMILY.data()
    model = small_image_model(FlowAR, patch_size=8, max_steps=2).fit(images)
    assert model.module_.sides == (1,) and model.module_.n_tokens == 1
    assert model.sample(2, random_state=0).shape == (2, 8, 8)


@pytest.fixture(scope="module")
def halves():
    """Images one half of which is white and the other black; the label says which."""
    labels = np.random.default_rng(0).integers(2, size=64)
    images = np.zeros((64, 4, 4), dtype=np.float32)
    images[labels == 0, :2] = images[labels == 1, 2:] = 1
    return images, labels


def _trained(images, labels=None):
    options = {"patch_size": 2, "d_model": 16, "n_layers": 1, "batch_size": 32}
    training = {"max_steps": 200, "learning_rate": 1e-2, "learning_rate_schedule": "constant"}
    return small_image_model(FlowAR, **options, **training).fit(images, labels)


def test_labels_are_learned(halves):
    images, labels = halves
    model = _trained(images, labels)
    drawn = model.sample(label=[0, 1] * 10, random_state=0)
    assert np.abs(drawn - [images[labels == 0][0], images[labels == 1][0]] * 10).mean() < 0.1
    assert model.score(images, labels) > model.score(images) + 0.005
    assert model.score(images, labels) == model.score(images, labels)


def test_scales_agree_and_what_is_drawn_anew_follows_the_rest(halves):
    """Without labels it is drawn which half is white, and both halves say it."""
    images, _ = halves
    model = _trained(images)
    upper, lower = model.sample(40, random_state=0).reshape(40, 2, 8).mean(axis=2).round().T
    assert (upper != lower).mean() > 0.9 and 0.2 < upper.mean() < 0.8
    mask = np.zeros((4, 4), dtype=bool)
    mask[2:] = True
    painted = model.inpaint(images[:40], mask, random_state=0)
    np.testing.assert_allclose(painted[:, :2], images[:40, :2], atol=1e-6)
    assert (painted[:, 2:].mean(axis=(1, 2)).round() != images[:40, 0, 0]).mean() > 0.9


def test_training_goes_on_and_colours_are_drawn():
    images = np.random.default_rng(0).random((12, 8, 8, 3)).astype(np.float32)
    model = small_image_model(FlowAR, warm_start=True).fit(images, LABELS)
    weights = model.module_.word.weight.clone()
    model.fit(images, LABELS)
    assert not torch.equal(model.module_.word.weight, weights)
    assert model.sample(label=["a"], random_state=0).shape == (1, 8, 8, 3)


def test_what_it_refuses():
    images = FAMILY.data()
    with pytest.raises(DataError, match="patch_size=3 must divide the side of the images, 8"):
        small_image_model(FlowAR, patch_size=3).fit(images)
    for wrong in ({"patch_size": 0}, {"flow_layers": 0}, {"d_model": 9}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            small_image_model(FlowAR, **wrong).fit(images)
    model = small_image_model(FlowAR).fit(images)
    with pytest.raises(ParameterError, match="temperature"):
        model.sample(temperature=-1.0)
    with pytest.raises(ParameterError, match="set guidance=0"):
        model.sample(guidance=1.0)
