"""Bits per pixel of scikit-learn's digits: a model of pixels, a histogram and Gaussian mixtures.

    python tests/benchmarks/pixel_bits.py [--steps 700]

The first 1,297 digits of 8 x 8 pixels and 17 levels are fitted, the other 500 scored. The histogram
is that of each pixel by itself. A mixture has a density, which is that of levels with an even
number from [0, 1) added to each: its bits are an upper bound of those of the levels.
"""

import argparse
import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

from tsar.image import TokenAR

N_LEVELS, N_FITTED, N_NOISES = 17, 1297, 20


def bits_of_histogram(fitted: np.ndarray, rest: np.ndarray) -> float:
    """Return the bits per pixel of a histogram of each pixel, every level seen once more."""
    counts = np.ones((fitted.shape[1], N_LEVELS))
    for pixel in range(fitted.shape[1]):
        counts[pixel] += np.bincount(fitted[:, pixel], minlength=N_LEVELS)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log2(shares[np.arange(fitted.shape[1]), rest]).mean())


def bits_of_mixture(fitted: np.ndarray, rest: np.ndarray, n_components: int) -> float:
    """Return the bits per pixel of a Gaussian mixture, over several draws of the noise."""
    draw = np.random.default_rng(0)
    noisy = np.concatenate([fitted + draw.random(fitted.shape) for _ in range(4)])
    mixture = GaussianMixture(n_components, reg_covar=1e-2, random_state=0).fit(noisy)
    scores = [mixture.score(rest + draw.random(rest.shape)) for _ in range(N_NOISES)]
    return float(-np.mean(scores) / np.log(2) / fitted.shape[1])


def main() -> None:
    """Print the bits of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    digits = load_digits()
    levels = digits.data.astype(np.int64)
    fitted, rest = levels[:N_FITTED], levels[N_FITTED:]
    print(f"histogram of each pixel: {bits_of_histogram(fitted, rest):.3f} bits", flush=True)
    for n_components in (1, 10, 20):
        bits = bits_of_mixture(fitted, rest, n_components)
        print(f"mixture of {n_components}: {bits:.3f} bits", flush=True)
    images = digits.images / 16
    model = TokenAR(
        **{"tokenizer": "pixels", "n_levels": N_LEVELS, "d_model": 64, "n_layers": 3, "d_ff": 192},
        **{"max_steps": options.steps, "learning_rate": 3e-3, "dropout": 0.2},
        **{"random_state": 0, "device": "cpu"},
    )
    began = time.perf_counter()
    model.fit(images[:N_FITTED])
    seconds = time.perf_counter() - began
    bits = model.bits_per_dim(images[N_FITTED:])
    print(f"pixel by pixel, {options.steps} steps, {seconds:.0f} s: {bits:.3f} bits")


if __name__ == "__main__":
    main()
