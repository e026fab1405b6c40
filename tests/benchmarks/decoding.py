"""Time the decoding of a trained language model with and without drafts, one text at a time.

    TSAR_DATA=... python tests/benchmarks/decoding.py MODEL [--draft SMALLER_MODEL]

MODEL is the folder of a model of attention, as language_training.py --out writes it. The ways take
turns; of each the median time for a token is printed, and the share of guesses that were kept.
With --train, heads and an early exit are trained for the model first, for so many steps.
"""

import argparse
import os
from pathlib import Path
from statistics import median

import tsar
from tsar.core.decoding import (
    JacobiDraft,
    ModelDraft,
    NGramDraft,
    PromptLookup,
    SpecTr,
    Speculative,
)
from tsar.language.drafts import HEADS, fit_early_exit, fit_heads


def main() -> None:
    """Print milliseconds a token, the ratio to no draft, and the share that is accepted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--draft", help="folder of a smaller model of the same tokens")
    parser.add_argument("--train", type=int, default=0, help="steps for heads and an early exit")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--temperature", type=float, default=0.8)
    options = parser.parse_args()
    model = tsar.load(options.model)
    text = Path(os.environ["TSAR_DATA"], "tinyshakespeare", "input.txt").read_text("utf-8")
    text = text[: int(0.9 * len(text))]
    ids = model.encode(text)
    ways = {"no draft": None, "what came before": Speculative(PromptLookup(), 4)}
    ways |= {f"4-gram, {n} tokens": Speculative(NGramDraft(4, ids), n) for n in (2, 3, 4, 6)}
    ways["4-gram, 2 drafts of 4"] = SpecTr(NGramDraft(4, ids), 4, 2)
    ways["Jacobi, 4 tokens"] = Speculative(JacobiDraft(), 4)
    if options.train:
        for kind in HEADS:
            heads = fit_heads(model, text, kind=kind, max_steps=options.train)
            ways |= {f"{kind} heads, {n} tokens": Speculative(heads, n) for n in (2, 3)}
        early = fit_early_exit(model, text, max_steps=options.train)
        ways |= {f"early exit, {n} tokens": Speculative(early, n) for n in (2, 4)}
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
