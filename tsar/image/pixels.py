"""Images and labels as they are given, checked once, and as tensors.

Dimension letters: n images, H height, W width, C channels.
"""

import gzip
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from tsar.exceptions import DataError

__all__ = [
    "as_array",
    "as_labels",
    "as_tensor",
    "cut",
    "joined",
    "patches_along",
    "read_images",
    "shifted",
]

# An image is cut into cells of so many pixels.
CELL = 4
SHIFT = 2
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def as_tensor(owner: str, images: Any) -> Tensor:
    """Check images, and bring them to float32 in [-1, 1].

    Parameters
    ----------
    owner : str
        For messages.
    images : array-like of shape (n, H, W) or (n, H, W, C)
        uint8, or floats in [0, 1]; H = W, a multiple of 4.

    Returns
    -------
    float32 Tensor of shape (n, C, H, W)

    Raises
    ------
    DataError
        Names what is wrong with them.
    """
    if isinstance(images, list | tuple):
        sizes = {np.shape(image) for image in images}
        if len(sizes) > 1:
            raise DataError(
                f"{owner}: images must be of one size, got {sorted(sizes)[:4]}; resize them"
            )
    held = np.asarray(images)
    if held.ndim not in (3, 4) or not len(held):
        raise DataError(
            f"{owner}: images must have the shape (n, H, W) or (n, H, W, C) with at least one "
            f"image, got {held.shape}; a single image is images[None]"
        )
    height, width = held.shape[1:3]
    if height != width or height % CELL or not height:
        raise DataError(
            f"{owner}: images must be square with sides divisible by {CELL}, got {height} x "
            f"{width}; pad or resize them"
        )
    if held.dtype == np.uint8:
        values = held.astype(np.float32) / 255
    elif np.issubdtype(held.dtype, np.floating):
        values = held.astype(np.float32)
        wrong = ~((values >= 0) & (values <= 1))
        if wrong.any():
            place = tuple(int(axis[0]) for axis in np.nonzero(wrong))
            raise DataError(
                f"{owner}: images must be uint8, or floats in [0, 1], got {values[place]:g} in "
                f"image {place[0]}, and {int(wrong.sum()) - 1} more such values; divide by the "
                f"largest value there can be, and fill in what is missing"
            )
    else:
        raise DataError(
            f"{owner}: images must be uint8, or floats in [0, 1], got {held.dtype}; convert "
            f"them, for example with images.astype('uint8')"
        )
    if values.ndim == 3:
        values = values[..., None]
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2))) * 2 - 1


def as_array(images: Tensor, *, channels: bool) -> np.ndarray:
    """Return tensors (n, C, H, W) in [-1, 1] as float32 in [0, 1], (n, H, W, C) or (n, H, W)."""
    values = (images.clamp(-1, 1) + 1) / 2
    pixels = values.permute(0, 2, 3, 1).cpu().numpy()
    return pixels if channels else pixels[..., 0]


def as_labels(owner: str, labels: Any, n_images: int, classes: np.ndarray | None = None) -> Tensor:
    """Check labels, and number them.

    Parameters
    ----------
    owner : str
    labels : array-like of shape (n,)
    n_images : int
    classes : array of shape (n_classes,)
        Those that there are.

    Returns
    -------
    int64 Tensor of shape (n,)

    Raises
    ------
    DataError
        There are not as many as images, one is missing, or one is not known.
    """
    held = np.asarray(labels)
    if held.shape != (n_images,):
        raise DataError(
            f"{owner}: labels must be one for each of the {n_images} images, got the shape "
            f"{held.shape}; pass as many"
        )
    if pd.isna(held).any():
        raise DataError(f"{owner}: a label is missing; leave such images out")
    if classes is None:
        return torch.from_numpy(np.unique(held, return_inverse=True)[1].astype(np.int64))
    places = pd.Index(classes).get_indexer(held)
    if (places < 0).any():
        unknown = sorted(set(held[places < 0].tolist()), key=str)[:5]
        raise DataError(
            f"{owner}: labels must be among the fitted ones, {classes.tolist()}, got {unknown}; "
            f"fit on images of these as well"
        )
    return torch.from_numpy(places.astype(np.int64))


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each of the images (B, C, H, W) by up to two pixels along each axis, at random."""
    n_images, _, height, width = images.shape
    padded = F.pad(images, (SHIFT,) * 4, mode="replicate")
    moves = torch.randint(2 * SHIFT + 1, (2, n_images), generator=generator).to(images.device)
    rows = moves[0][:, None] + torch.arange(height, device=images.device)
    columns = moves[1][:, None] + torch.arange(width, device=images.device)
    owner = torch.arange(n_images, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[owner, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def patches_along(owner: str, patch_size: int, shape: tuple[int, int, int]) -> int:
    """Return how many patches fill the side of square images.

    Parameters
    ----------
    owner : str
        For messages.
    patch_size : int
    shape : tuple of int
        Channels, height and width of the images.

    Raises
    ------
    DataError
        They do not fill it.
    """
    _, height, width = shape
    if height % patch_size or height != width:
        raise DataError(
            f"{owner}: patch_size={patch_size} must divide the side of the images, {height}; "
            f"choose another, or resize them"
        )
    return height // patch_size


def cut(images: Tensor, size: int) -> Tensor:
    """Cut images (B, C, H, W) into patches (B, L, C * size ** 2), row by row."""
    patches = images.unflatten(2, (-1, size)).unflatten(4, (-1, size))  # (B, C, h, s, w, s)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def joined(patches: Tensor, size: int, shape: tuple[int, int, int]) -> Tensor:
    """Undo :func:`cut`, for images of a shape (C, H, W)."""
    channels, height, width = shape
    grid = patches.unflatten(1, (height // size, width // size))
    parts = grid.unflatten(3, (channels, size, size))  # (B, h, w, C, s, s)
    return parts.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def read_images(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read images, and labels where there are some.

    Parameters
    ----------
    path : pathlib.Path
        An .npz with ``images`` and, if there are some, ``labels``; an IDX file of images
        (packed by gzip or not), whose labels lie beside it as in MNIST; or a folder of image
        files, whose sub-folders, if it has some, are the labels (needs the extra ``image``).

    Raises
    ------
    DataError
        It is none of these, or damaged.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; name a folder of images, an .npz or an IDX file")
    if path.suffix == ".npz":
        try:
            # Numpy leaves a file open that is none of its own.
            with path.open("rb") as file, np.load(file) as held:
                names = set(held.files)
                if "images" not in names:
                    raise DataError(f"{path} must hold an array 'images', got {sorted(names)}")
                return held["images"], held["labels"] if "labels" in names else None
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path} cannot be read: {error}") from None
    images = _read_idx(path)
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    labels = _read_idx(beside) if beside != path and beside.is_file() else None
    return images, labels


def _read_idx(path: Path) -> np.ndarray:
    """Read an array of bytes in the format of MNIST."""
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            content = file.read()
        zero, kind, n_axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{n_axes}I", content[4 : 4 + 4 * n_axes])
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes)
        if zero or kind != 8:
            raise ValueError("it does not begin as an IDX file of bytes does")
        return values.reshape(shape)
    except (ValueError, OSError, EOFError, struct.error, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as an IDX file of bytes: {error}; write an .npz with 'images' "
            f"and 'labels'"
        ) from None


def _read_folder(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise DataError(
            f"{path}: reading image files needs Pillow: pip install 'tsar[image]'"
        ) from None
    files = sorted(one for one in path.rglob("*") if one.suffix.lower() in ENDINGS)
    if not files:
        raise DataError(f"{path} holds no image files ({', '.join(ENDINGS)})")
    images = []
    for file in files:
        try:
            with Image.open(file) as image:
                images.append(np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB")))
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{file} cannot be read as an image: {error}; remove it") from None
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(f"{path}: images must be of one size and kind, got {sorted(shapes)[:4]}")
    folders = [file.parent for file in files]
    labelled = all(folder != path for folder in folders)
    labels = np.array([folder.name for folder in folders]) if labelled else None
    return np.stack(images), labels
