"""Look for what a known function reads of series, by learned masks and by occlusion.

    python tests/benchmarks/learned_masks.py [--task {features,times,hidden}] [--n-steps 2000]

The white box of the papers on dynamic and learned masks: ten samples of 50 steps and 50 features of
an ARMA process, and at each step the sum of the squares of the features that are read. Of rare
features, five are read at the steps 12 to 36; of rare times, the features 12 to 36 at five
successive steps; the same ones in all samples. Masks replace by 0, as occlusion does here.

AUP, AUR and information are better the larger, entropy the smaller. Published for learned masks:
0.992, 0.756, 12630 and 45.7 for rare features, 0.993, 0.820, 15118 and 12.5 for rare times; for
occlusion of rare features an AUP of 1.0 and an AUR of 0.134.

The task ``hidden`` has no white box. A Markov chain that is not seen has two states, which say
around what three features lie, and which of the latter two the label hangs on at a step. A
recurrent network learns to tell the label from all steps so far, and is explained on other series,
with a replacement that is learned as well. Published for learned masks: an AUP of 0.885 and an AUR
of 0.781 over five folds; the published information and entropy cannot be of entries that are read.

AUP hangs on one number here. Nothing is shown that is not read, and what is hidden is exactly 0, so
that there is no threshold below the smallest value shown, up to which a trapezoid begins at the
share of entries that are read. Masks that are not clamped after each step leave some values just
above 0, and lose nothing there. The share of the values shown that are read is printed beside it.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from statsmodels.tsa.arima_process import ArmaProcess

from tsar.evaluation import aup, aur, mask_entropy, mask_information
from tsar.training import LearnedMask
from tsar.training.seeding import seeded

N_SAMPLES, N_STEPS, N_FEATURES, N_RARE = 10, 50, 50, 5
# A quarter of the length in, and as long as half of it.
COMMON = slice(12, 37)
N_HIDDEN_STEPS, N_TRAINED, N_EXPLAINED = 200, 800, 200
MEANS = np.array([[0.1, 1.6, 0.5], [-0.1, -0.4, -1.5]])
Explained = tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor, np.ndarray]


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


def white_box(seed: int, task: str) -> Explained:
    """Return a function, the samples, and which entries of them it reads."""
    x, read = drawn(seed, task)
    truth = np.broadcast_to(read.numpy(), x.shape)
    return lambda windows: (windows.square() * read).sum(dim=-1), x, truth


def hidden_states(generator: np.random.Generator) -> np.ndarray:
    """Return the states of one series. State 1 stays the less, the longer it has lasted."""
    states, lasted = np.zeros(N_HIDDEN_STEPS, dtype=int), 0
    states[0] = generator.integers(2)
    for step in range(1, N_HIDDEN_STEPS):
        stays = max(0.95 - lasted / 500, 0.8) if states[step - 1] else 0.95
        left = generator.random() >= stays
        states[step] = states[step - 1] ^ left
        lasted = 0 if left else lasted + 1
    return states


def hidden_series(seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Return series, the labels of their steps, and which entries these hang on."""
    generator = np.random.default_rng(seed)
    n_series = N_TRAINED + N_EXPLAINED
    states = np.stack([hidden_states(generator) for _ in range(n_series)])
    factors = []
    for important in (1, 2):
        covariance = 0.8 * np.eye(3)
        covariance[0, important] = covariance[important, 0] = 0.01
        factors.append(np.linalg.cholesky(covariance))
    noise = generator.normal(size=(n_series, N_HIDDEN_STEPS, 3))
    x = MEANS[states] + np.einsum("ntij,ntj->nti", np.stack(factors)[states], noise)
    read = np.arange(3) == 1 + states[..., None]
    chance = 1 / (1 + np.exp(-2 * x[read].reshape(states.shape)))
    labels = generator.random(states.shape) < chance
    return torch.from_numpy(x).float(), torch.from_numpy(labels), read


class Classifier(torch.nn.Module):
    """Say after each step how likely its label is, from the steps so far."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrence = torch.nn.GRU(3, 200, batch_first=True)
        self.head = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(200, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map series (B, L, 3) to the logits (B, L, 2) of both labels."""
        logits: torch.Tensor = self.head(self.recurrence(x)[0])
        return logits


def hidden(seed: int, n_epochs: int) -> Explained:
    """Train a classifier, and return it, other series, and which of their entries matter."""
    x, labels, read = hidden_series(seed)
    with seeded(seed):
        network = Classifier()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-3)
        for _ in range(n_epochs):
            for index in torch.randperm(N_TRAINED).split(100):
                length = int(torch.randint(1, N_HIDDEN_STEPS + 1, ()))
                logits = network(x[index, :length])[:, -1]
                loss = torch.nn.functional.cross_entropy(logits, labels[index, length - 1].long())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    network.eval()
    with torch.no_grad():
        right = network(x[N_TRAINED:]).argmax(dim=2) == labels[N_TRAINED:]
    print(f"seed {seed}: {right.float().mean():.3f} of the labels are told")
    return lambda x: network(x).softmax(dim=2), x[N_TRAINED:], read[N_TRAINED:]


def main() -> None:
    """Print four scores of both methods, or of learned masks where states are hidden."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=["features", "times", "hidden"], default="features")
    parser.add_argument("--n-steps", type=int, help="2000, of hidden states 500")
    parser.add_argument("--n-epochs", type=int, default=50, help="of the classifier")
    parser.add_argument("--mask-weight", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    of_hidden = options.task == "hidden"
    scores: dict[str, list[list[float]]] = {}
    for seed in options.seeds:
        if of_hidden:
            function, x, truth = hidden(seed, options.n_epochs)
        else:
            function, x, truth = white_box(seed, options.task)
        began = time.perf_counter()
        learned = LearnedMask(
            mask_weight=options.mask_weight,
            n_steps=options.n_steps or (500 if of_hidden else 2000),
            replacement="generated" if of_hidden else "fixed",
        )
        mask = torch.cat([learned.learn(function, part).mask for part in x.split(100)]).numpy()
        seconds = time.perf_counter() - began
        attributions = {"learned mask": mask}
        if not of_hidden:
            # Hiding one entry takes its square off, and the steps of a sample are one output.
            attributions["occlusion"] = x.square().numpy() * truth
        for name, attribution in attributions.items():
            metrics = (aup, aur, mask_information, mask_entropy)
            own = [metric(truth, attribution) for metric in metrics]
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
