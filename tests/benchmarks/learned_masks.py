"""Look for what a known function reads of series, by learned masks and by occlusion.

    python tests/benchmarks/learned_masks.py [--task features] [--n-steps 2000]

The white box of the papers on dynamic and learned masks: ten samples of 50 steps and 50 features of
an ARMA process, and at each step the sum of the squares of the features that are read. Of rare
features, five are read at the steps 12 to 36; of rare times, the features 12 to 36 at five
successive steps; the same ones in all samples. Masks replace by 0, as occlusion does here.

AUP, AUR and information are better the larger, entropy the smaller. Published for learned masks:
0.992, 0.756, 12630 and 45.7 for rare features, 0.993, 0.820, 15118 and 12.5 for rare times; for
occlusion of rare features an AUP of 1.0 and an AUR of 0.134.

AUP hangs on one number here. Nothing is shown that is not read, and what is hidden is exactly 0, so
that there is no threshold below the smallest value shown, up to which a trapezoid begins at the
share of entries that are read. Masks that are not clamped after each step leave some values just
above 0, and lose nothing there. The share of the values shown that are read is printed beside it.
"""

import argparse
import time

import numpy as np
import torch
from statsmodels.tsa.arima_process import ArmaProcess

from tsar.evaluation import aup, aur, mask_entropy, mask_information
from tsar.training import LearnedMask

N_SAMPLES, N_STEPS, N_FEATURES, N_RARE = 10, 50, 50, 5
# A quarter of the length in, and as long as half of it.
COMMON = slice(12, 37)


def drawn(seed: int, task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the samples, and which entries are read, (10, 50, 50) and (50, 50)."""
    generator = np.random.default_rng(seed)
    x = ArmaProcess([2, 0.5, 0.2, 0.1], [2]).generate_sample(
        (N_SAMPLES, N_STEPS, N_FEATURES), axis=1, distrvs=generator.normal
    )
    read = torch.zeros(N_STEPS, N_FEATURES, dtype=torch.bool)
    if task == "features":
        rare = generator.choice(N_FEATURES, N_RARE, replace=False)
        read[COMMON, torch.from_numpy(rare)] = True
    else:
        begin = int(generator.integers(N_STEPS - N_RARE))
        read[begin : begin + N_RARE, COMMON] = True
    return torch.from_numpy(x).float(), read


def main() -> None:
    """Print four scores of both methods."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=["features", "times"], default="features")
    parser.add_argument("--n-steps", type=int, default=2000)
    parser.add_argument("--mask-weight", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    scores: dict[str, list[list[float]]] = {}
    for seed in options.seeds:
        x, read = drawn(seed, options.task)

        def white_box(windows: torch.Tensor, read: torch.Tensor = read) -> torch.Tensor:
            return (windows.square() * read).sum(dim=-1)

        began = time.perf_counter()
        learned = LearnedMask(mask_weight=options.mask_weight, n_steps=options.n_steps)
        mask = learned.learn(white_box, x).mask.numpy()
        seconds = time.perf_counter() - began
        truth = np.broadcast_to(read.numpy(), mask.shape)
        # Hiding one entry takes its square off, and the steps of a sample are one output.
        occluded = (x.square() * read).numpy()
        for name, found in (("learned mask", mask), ("occlusion", occluded)):
            own = [metric(truth, found) for metric in (aup, aur, mask_information, mask_entropy)]
            scores.setdefault(name, []).append(own)
        shown = mask > 0
        print(
            f"seed {seed}: aup {scores['learned mask'][-1][0]:.4f}, of the values shown "
            f"{truth[shown].mean():.4f} are read, of those read {shown[truth].mean():.4f} are "
            f"shown, {seconds:.1f} s"
        )
    for name, several in scores.items():
        mean, spread = np.mean(several, axis=0), np.std(several, axis=0)
        told = zip(("aup", "aur", "information", "entropy"), mean, spread, strict=True)
        print(f"{name:13s}", ", ".join(f"{what} {m:.4g} ± {s:.2g}" for what, m, s in told))


if __name__ == "__main__":
    main()
