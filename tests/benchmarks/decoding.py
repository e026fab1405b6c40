"""Time the decoding of a trained language model with and without drafts, one text at a time.

    TSAR_DATA=... python tests/benchmarks/decoding.py MODEL [--draft SMALLER_MODEL]

MODEL is the folder of a model of attention, as language_training.py --out writes it. The ways take
turns; of each the median time for a token is printed, and the share of guesses that were kept.
"""

import argparse
import os
from pathlib import Path
from statistics import median

import tsar
from tsar.core.decoding import ModelDraft, NGramDraft, PromptLookup, Speculative


def main() -> None:
    """Print milliseconds a token, the ratio to no draft, and the share that is accepted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--draft", help="folder of a smaller model of the same tokens")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--temperature", type=float, default=0.8)
    options = parser.parse_args()
    model = tsar.load(options.model)
    text = Path(os.environ["TSAR_DATA"], "tinyshakespeare", "input.txt").read_text("utf-8")
    ids = model.encode(text[: int(0.9 * len(text))])
    ways = {"no draft": None, "what came before": Speculative(PromptLookup(), 4)}
    ways |= {f"4-gram, {n} tokens": Speculative(NGramDraft(4, ids), n) for n in (2, 3, 4, 6)}
    if options.draft:
        small = tsar.load(options.draft)
        ways |= {f"small model, {n} tokens": Speculative(ModelDraft(small), n) for n in (1, 2, 3)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    kept = {name: [0.0, 0.0] for name in ways}
    # Inside of the context, where nothing is read twice.
    n_tokens = int(model.context_length) - 20
    for turn in range(options.turns):
        for name, way in ways.items():
            model.generate(
                "ROMEO:\n", n_tokens, temperature=options.temperature, decoding=way,
                random_state=turn,
            )  # fmt: skip
            done = model.decoding_
            times[name].append(1000 * done["seconds"] / max(1, done["tokens"]))
            kept[name][0] += done.get("accepted", 0)
            kept[name][1] += done.get("proposed", 0)
    plain = median(times["no draft"])
    for name, taken in times.items():
        accepted, proposed = kept[name]
        share = f", {accepted / proposed:.2f} accepted" if proposed else ""
        print(f"{name:25s} {median(taken):6.2f} ms a token, {plain / median(taken):.2f}x{share}")


if __name__ == "__main__":
    main()
