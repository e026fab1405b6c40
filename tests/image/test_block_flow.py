"""BlockFlow: cells against loops, what a cell sees, both ends, and steps against one pass."""

import numpy as np
import pytest
import torch

from tsar.checks import checks_for
from tsar.checks.images import Images, small_image_model
from tsar.core.generation import generate_levels
from tsar.core.sampling import Sampler
from tsar.exceptions import DataError, ParameterError
from tsar.image import BlockFlow
from tsar.image.block_flow import in_cells
from tsar.image.drawn import LevelDrawing

FAMILY = Images()
LABELS = np.array(["a", "b", "c"] * 4)


def _network(context, cell_size=2):
    """Patches of 2 x 2 pixels of images of 8 x 8, with weights that say something."""
    model = small_image_model(
        BlockFlow, context=context, patch_size=2, cell_size=cell_size, max_steps=1
    ).fit(FAMILY.data(), LABELS)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.module_.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.module_.double().eval()


def _vectors(network, n=3):
    drawn = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(3)).double()
    return network.vectors(drawn * 2 - 1)


@pytest.mark.parametrize(("side", "cell_size"), [(4, 2), (6, 3), (6, 2), (3, 1), (3, 3)])
def test_places_come_cell_by_cell(side, cell_size):
    expected = [
        row * side + column
        for top in range(0, side, cell_size)
        for left in range(0, side, cell_size)
        for row in range(top, top + cell_size)
        for column in range(left, left + cell_size)
    ]
    assert in_cells(side, cell_size).tolist() == expected


def test_images_become_vectors_and_back():
    network = _network("noisy")
    images = torch.rand(2, 1, 8, 8).double()
    vectors = network.vectors(images)
    assert torch.equal(network.images(vectors), images)
    assert torch.equal(network.in_places(network.in_order(vectors)), vectors)
    # The first cell is the upper left quarter.
    first = network.in_order(vectors)[:, :4].sum(dim=(1, 2))
    torch.testing.assert_close(first, images[:, 0, :4, :4].sum(dim=(1, 2)))


@pytest.mark.parametrize("context", ["noisy", "clean"])
def test_later_cells_reach_no_earlier_ones(context):
    network = _network(context)
    vectors, labels = _vectors(network), torch.tensor([0, 1, 2])

    def errors(of):
        with torch.no_grad():
            return network.errors(of, labels, torch.Generator().manual_seed(0))

    before = errors(vectors)
    places = torch.arange(16)
    cell = places // 8 * 2 + places % 4 // 2
    for place in range(16):
        moved = vectors.clone()
        moved[:, place] += 0.3
        changed = (errors(moved) != before).any(dim=0)
        assert torch.equal(changed, cell >= cell[place])


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("context", ["noisy", "clean"])
def test_drawing_cell_by_cell_sees_what_one_pass_sees(context, guided):
    """The noise of each cell, and its velocity at time 1, as the states and as one pass say it."""
    network = _network(context)
    head = network.head
    places, labels = _vectors(network), torch.tensor([0, 1, 2])
    vectors = network.in_order(places)
    seen, noise = [], torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(5)).double()

    class Recording(LevelDrawing):
        def sample(self, z, *arguments):
            # What a step of the flow asks, of both halves.
            rows = torch.cat([noise, noise]) if guided else noise
            tokens = head.position(head.enter(rows), z.length)
            told = head.time(torch.ones(len(rows), 4).double()) + z.condition[:, None]
            seen.append(head.leave(head.decoder.extend(tokens, z, told)[0]))
            return super().sample(z, *arguments)

    drawing = Recording(network, guided, (places, torch.ones_like(places, dtype=torch.bool)))
    levels = generate_levels(
        drawing,
        labels,
        sampler=Sampler(),
        generator=torch.Generator().manual_seed(0),
        guidance=(lambda step: 2.0) if guided else None,
    )
    drawn = torch.cat([level.tokens for level in levels], dim=1)
    torch.testing.assert_close(drawn, vectors)
    for group in range(4):
        here = head.levels == group
        time = (torch.arange(4) == group).double().expand(3, 4)
        between = vectors.clone()
        between[:, here] = noise
        with torch.no_grad():
            told = [labels, torch.full_like(labels, network.labels.null)][: 1 + guided]
            expected = torch.cat(
                [
                    head.velocity(between, time, network.labels(one), vectors)[:, here]
                    for one in told
                ]
            )
        torch.testing.assert_close(seen[group], expected, atol=1e-5, rtol=0)


def test_one_cell_is_a_plain_flow_whatever_the_context():
    noisy, clean = _network("noisy", cell_size=4), _network("clean", cell_size=4)
    clean.load_state_dict(noisy.state_dict())
    vectors, z = _vectors(noisy), noisy.labels(torch.tensor([0, 1, 2]))
    time = torch.full((3, 1), 0.4).double()
    with torch.no_grad():
        one = noisy.head.velocity(vectors, time, z)
        other = clean.head.velocity(vectors, time, z, vectors.flip(0))
        head = noisy.head
        told = head.time(time) + z[:, None]
        every = torch.ones(16, 16, dtype=torch.bool)
        plain = head.leave(head.decoder(head.position(head.enter(vectors)), told, mask=every))
    torch.testing.assert_close(one, plain)
    torch.testing.assert_close(other, plain)


def test_cells_of_one_patch_are_drawn_patch_by_patch():
    network = _network("clean", cell_size=1)
    assert torch.equal(network.order, torch.arange(16))
    assert torch.equal(network.head.levels, torch.arange(16))
    model = small_image_model(BlockFlow, patch_size=2, cell_size=1).fit(FAMILY.data())
    assert model.sample(2, random_state=0).shape == (2, 8, 8)


@pytest.fixture(scope="module")
def halves():
    """Images one half of which is white and the other black; the label says which."""
    labels = np.random.default_rng(0).integers(2, size=64)
    images = np.zeros((64, 4, 4), dtype=np.float32)
    images[labels == 0, :2] = images[labels == 1, 2:] = 1
    return images, labels


def _trained(images, labels=None, **parameters):
    options = {"patch_size": 2, "cell_size": 1, "d_model": 16, "n_layers": 1, "batch_size": 32}
    training = {"max_steps": 200, "learning_rate": 1e-2, "learning_rate_schedule": "constant"}
    return small_image_model(BlockFlow, **{**options, **training, **parameters}).fit(images, labels)


def test_labels_are_learned(halves):
    images, labels = halves
    model = _trained(images, labels)
    drawn = model.sample(label=[0, 1] * 10, random_state=0)
    assert np.abs(drawn - [images[labels == 0][0], images[labels == 1][0]] * 10).mean() < 0.1
    assert model.score(images, labels) > model.score(images) + 0.005
    assert model.score(images, labels) == model.score(images, labels)


@pytest.mark.parametrize(("context", "n_steps"), [("noisy", 400), ("clean", 200)])
def test_a_cell_follows_those_before(halves, context, n_steps):
    """Without labels the first quarter is drawn black or white, and says what the others are."""
    images, _ = halves
    model = _trained(images, context=context, max_steps=n_steps)
    drawn = model.sample(40, random_state=0)
    quarters = drawn.reshape(40, 2, 2, 2, 2).mean(axis=(2, 4)).round().reshape(40, 4)
    first = quarters[:, :1]
    right = np.concatenate([first, first, 1 - first, 1 - first], axis=1)
    assert (quarters == right).mean() > 0.9 and 0.2 < first.mean() < 0.8
    mask = np.zeros((4, 4), dtype=bool)
    mask[2:] = True
    painted = model.inpaint(images[:40], mask, random_state=0)
    np.testing.assert_allclose(painted[:, :2], images[:40, :2], atol=1e-6)
    assert (painted[:, 2:].mean(axis=(1, 2)).round() != images[:40, 0, 0]).mean() > 0.9


def test_a_part_of_a_cell_leads_the_rest_of_it(halves):
    """One cell, without labels: what stays says what is drawn."""
    images, _ = halves
    model = _trained(images, cell_size=2)
    mask = np.zeros((4, 4), dtype=bool)
    # One patch, and a part of the one beside it.
    mask[2:, 1:] = True
    painted = model.inpaint(images[:40], mask, random_state=0)
    assert (painted[:, 2:, 2:].mean(axis=(1, 2)).round() != images[:40, 0, 0]).mean() > 0.9


def test_a_clean_context_passes_the_checks():
    for estimator, check in checks_for(small_image_model(BlockFlow, context="clean")):
        check(estimator)


def test_training_goes_on():
    images = FAMILY.data()
    model = small_image_model(BlockFlow, warm_start=True).fit(images, LABELS)
    weights = model.module_.head.enter.weight.clone()
    assert not torch.equal(model.fit(images, LABELS).module_.head.enter.weight, weights)
    score = model.score(images, LABELS)
    assert score == model.score(images, LABELS) and score < 0


def test_what_it_refuses():
    images = FAMILY.data()
    with pytest.raises(DataError, match="patch_size=3 must divide the side of the images, 8"):
        small_image_model(BlockFlow, patch_size=3).fit(images)
    with pytest.raises(DataError, match="cell_size=3 must divide .* 4 of 2 pixels"):
        small_image_model(BlockFlow, patch_size=2, cell_size=3).fit(images)
    for wrong in ({"context": "dirty"}, {"cell_size": 0}, {"patch_size": 2.5}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            small_image_model(BlockFlow, **wrong).fit(images)
    model = small_image_model(BlockFlow).fit(images)
    with pytest.raises(ParameterError, match="temperature"):
        model.sample(temperature=-1.0)
    with pytest.raises(ParameterError, match="set guidance=0"):
        model.inpaint(images, np.eye(8, dtype=bool), guidance=1.0)
