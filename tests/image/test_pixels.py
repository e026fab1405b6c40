"""Images as they are read: shifts by hand, files of every kind, faults one by one."""

import gzip
import struct

import numpy as np
import pytest
import torch

from tsar.exceptions import DataError
from tsar.image.pixels import as_array, as_labels, as_tensor, read_images, shifted


def test_there_and_back():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 2), dtype=np.uint8)
    tensor = as_tensor("X", images)
    assert tensor.shape == (3, 2, 8, 8) and tensor.min() >= -1 and tensor.max() <= 1
    back = as_array(tensor, channels=True)
    np.testing.assert_allclose(back * 255, images, atol=1e-4)
    torch.testing.assert_close(as_tensor("X", images / 255), tensor)
    grey = as_array(as_tensor("X", images[..., 0]), channels=False)
    assert grey.shape == (3, 8, 8)


def test_shifts_move_whole_images():
    images = torch.arange(2 * 64).float().view(2, 1, 8, 8)
    seen = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        moved = shifted(images, generator)
        for image, now in zip(images[:, 0], moved[:, 0], strict=True):
            rows = [int(np.clip(r, 0, 7)) for r in range(-2, 10)]
            options = {
                (dy, dx): image[rows[dy : dy + 8]][:, rows[dx : dx + 8]]
                for dy in range(5)
                for dx in range(5)
            }
            (move,) = [at for at, expected in options.items() if torch.equal(expected, now)]
            seen.add(move)
    assert len(seen) == 25


def test_labels_of_any_kind():
    assert as_labels("X", ["b", "a", "b"], 3).tolist() == [1, 0, 1]
    assert as_labels("X", [7, 3], 2, np.array([3, 5, 7])).tolist() == [2, 0]
    with pytest.raises(DataError, match=r"among the fitted ones, \[3, 5\], got \[4\]"):
        as_labels("X", [4], 1, np.array([3, 5]))
    with pytest.raises(DataError, match="one for each of the 3 images"):
        as_labels("X", [1, 2], 3)
    with pytest.raises(DataError, match="a label is missing"):
        as_labels("X", [1, np.nan], 2)


def _idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_files_of_every_kind(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    labels = np.array([3, 1, 1, 0], dtype=np.uint8)
    np.savez(tmp_path / "both.npz", images=images, labels=labels)
    np.savez(tmp_path / "alone.npz", images=images)
    (tmp_path / "some-images-idx3-ubyte").write_bytes(_idx(images))
    (tmp_path / "t-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(images)))
    (tmp_path / "t-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(labels)))
    for name in ("both.npz", "t-images-idx3-ubyte.gz"):
        read, told = read_images(tmp_path / name)
        np.testing.assert_array_equal(read, images)
        np.testing.assert_array_equal(told, labels)
    for name in ("alone.npz", "some-images-idx3-ubyte"):
        read, told = read_images(tmp_path / name)
        np.testing.assert_array_equal(read, images)
        assert told is None


def test_a_folder_of_images(tmp_path):
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    for number, (image, label) in enumerate(zip(images, "aabb", strict=True)):
        (tmp_path / "all" / label).mkdir(parents=True, exist_ok=True)
        image_module.fromarray(image).save(tmp_path / "all" / label / f"{number}.png")
    read, labels = read_images(tmp_path / "all")
    np.testing.assert_array_equal(read, images)
    assert labels.tolist() == ["a", "a", "b", "b"]
    image_module.fromarray(images[0]).save(tmp_path / "all" / "9.png")
    assert read_images(tmp_path / "all")[1] is None
    image_module.fromarray(images[0][:4]).save(tmp_path / "all" / "10.png")
    with pytest.raises(DataError, match="of one size and kind"):
        read_images(tmp_path / "all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image files"):
        read_images(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"nothing", "cannot be read as an IDX file"),
        ("a.gz", b"nothing", "cannot be read as an IDX file"),
        ("a.npz", b"nothing", "cannot be read"),
        ("none", None, "does not exist"),
    ],
)
def test_damaged_files(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_images(tmp_path / name)


def test_files_that_were_cut_off(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", images=images)
    packed = gzip.compress(_idx(images))
    for name, content in (("a.npz", (tmp_path / "a.npz").read_bytes()), ("b.gz", packed)):
        for part in (content[: len(content) // 2], content[:20] + b"\xff" * 20 + content[40:]):
            (tmp_path / name).write_bytes(part)
            with pytest.raises(DataError, match="cannot be read"):
                read_images(tmp_path / name)


def test_a_damaged_image_is_named(tmp_path):
    pytest.importorskip("PIL.Image", reason="Pillow is an extra")
    (tmp_path / "1.png").write_bytes(b"\x89PNG and nothing more")
    with pytest.raises(DataError, match=r"1\.png cannot be read as an image"):
        read_images(tmp_path)


def test_an_archive_without_images(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=np.zeros(3))
    with pytest.raises(DataError, match=r"must hold an array 'images', got \['pictures'\]"):
        read_images(tmp_path / "a.npz")
