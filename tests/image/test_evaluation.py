"""What images are judged by, against closed forms and scipy."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits

from tsar.exceptions import DataError
from tsar.image import DigitClassifier
from tsar.image.evaluation import frechet_distance, image_quality, near_copies


def test_the_distance_of_clouds_against_scipy():
    draw = np.random.default_rng(0)
    one = draw.normal(size=(200, 5)) @ draw.normal(size=(5, 5))
    other = draw.normal(size=(150, 5)) @ draw.normal(size=(5, 5)) + 1
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = sqrtm(first @ second).real
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-8)
    # Of one-dimensional normal distributions, by hand.
    x = np.array([[0.0], [2.0]])
    assert frechet_distance(x, 3 * x + 1) == pytest.approx((1 - 4) ** 2 + (1 - 3) ** 2 * 2)
    with pytest.raises(DataError, match="of one width"):
        frechet_distance(one, other[:, :3])
    with pytest.raises(DataError, match="two of each"):
        frechet_distance(one, other[:1])


def test_copies_are_found():
    draw = np.random.default_rng(0)
    training, real, fresh = (draw.random((n, 8, 8)) for n in (300, 400, 300))
    assert near_copies(training[:50], training, real) == 1
    assert near_copies(training[:50] + 0.01, training, real) == 1
    assert near_copies(fresh, training, real) < 0.05


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.images / 16, data.target


def test_a_classifier_tells_digits_apart(digits, tmp_path):
    import tsar

    images, labels = digits
    options = {"width": 16, "max_steps": 400, "augment": None, "random_state": 0, "device": "cpu"}
    model = DigitClassifier(**options, learning_rate=3e-3).fit(images[:1200], labels[:1200])
    assert model.score(images[1200:], labels[1200:]) > 0.9
    shares = model.predict_proba(images[1200:])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    model.save(tmp_path / "model")
    loaded = tsar.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(images), model.predict(images))
    assert loaded.classes_.tolist() == list(range(10))
    real = image_quality(images[1200:1400], labels[1200:1400], model, images[1200:], images[:1200])
    assert real["recognised"] > 0.9 and real["frechet"] == pytest.approx(0, abs=1e-6)
    assert 0 < real["frechet_real"] and real["near_copies"] < 0.1
    noise = np.random.default_rng(0).random((200, 8, 8))
    bad = image_quality(noise, labels[:200], model, images[1200:], images[:1200])
    assert bad["recognised"] < 0.4 and bad["frechet"] > 5 * real["frechet_real"]
    with pytest.raises(DataError, match="real must hold 400 images"):
        image_quality(images[:200], labels[:200], model, images[:300], images)


def test_what_a_classifier_refuses(digits):
    images, labels = digits
    model = DigitClassifier(max_steps=1, random_state=0, device="cpu")
    with pytest.raises(DataError, match="labels must be given"):
        model.fit(images)
    with pytest.raises(DataError, match="score needs labels"):
        model.fit(images[:40], labels[:40]).score(images)
