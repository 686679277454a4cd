"""Does a discriminator with outside knowledge see what ours cannot? Held-out AUC of `lm` beside `pair` and `conv`.

``python -m benchmarks.lm_discriminator --run runs/mle-coco-1``: all are fitted on the same real texts and the
same texts of a finished run, stop by the valid AUC, and are asked about texts of the test split and fresh ones.
"""

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import command, save, table
from textgan_env.utils.errors import require

#: Epochs without a better valid AUC after which a fit stops, and the most that there are.
PATIENCE, MOST_EPOCHS = 4, 40


@dataclass(frozen=True)
class Options:
    """Fit discriminators on one run's texts, and measure what they can tell."""

    run: Path
    """A finished run on a task with words."""
    fitted: int = 4000
    """Texts a side that they are fitted on."""
    valid: int = 1000
    """Texts a side that say when to stop."""
    test: int = 2000
    """Texts a side that they are asked about."""
    layers: tuple[int, ...] = (2, 4, 8)
    """Layers of SmolLM2 whose features `lm` reads."""
    others: tuple[str, ...] = ("pair", "conv")
    """Discriminators beside it."""
    random: bool = False
    """Give the language model random weights: the control of what it has learnt elsewhere."""
    seeds: int = 3
    """Fits of each: weights, order and dropout; the texts stay."""
    name: str = "lm_discriminator"
    """Of the result files."""


@command
def main(options: Options) -> None:
    """The command."""
    rows, about = measure(options)
    notes = (
        f"{about}. A side has {options.fitted} texts to fit on, {options.valid} to stop by, {options.test} that are "
        f"asked about (test split, fresh texts). AUC: mean over {options.seeds} seeds of the fit, each of them, and "
        "epochs. mixed sides: the control, each text on a random side while fitting. Added: the logits of both, each "
        "over its deviation on the valid texts. Seconds: processor time on one thread, of reading a thousand texts "
        "with the language model, and of a fit after that."
    )
    print(table(rows))
    print(save(options.name, rows, notes=notes))


def measure(options: Options) -> tuple[list[dict[str, Any]], str]:
    """A row a discriminator, and what they were shown.

    Raises:
        InputError: If the run's task has no words, or too few texts.
    """
    import torch

    from textgan_env.evaluation.samples import generate_texts
    from textgan_env.runs.loading import load_policy

    torch.set_num_threads(1)
    policy, task = load_policy(options.run)
    sizes = {"train": options.fitted, "valid": options.valid, "test": options.test}
    sides = {}
    for number, (name, count) in enumerate(sizes.items()):
        real = task.writable(name)  # type: ignore[arg-type]
        require(len(real) >= count, f"the {name} split of task '{task.name}' has {len(real)} texts, expected {count}")
        sides[name] = real[:count], generate_texts(policy, task, count, number).tokens_BT
    rows, logits = [], {}
    kinds: list[tuple[str, dict[str, Any]]] = [("lm", {"layers": layers}) for layers in options.layers]
    kinds += [(other, {}) for other in options.others]
    largest = f"lm {options.layers[-1]} layers"
    for kind, how in kinds:
        label = " ".join([kind, *(f"{value} {name}" for name, value in how.items())])
        made, reading = _made(kind, how, task, sides, random=options.random)
        row, logits[label] = _fits(made, sides, options.seeds)
        rows.append({"discriminator": label, **row, "reads a thousand, s": reading})
        print(rows[-1], flush=True)
        if label == largest:
            control, _ = _fits(made, sides, options.seeds, mixed=True)
            rows.append({"discriminator": f"{largest}, mixed sides", **control})
            print(rows[-1], flush=True)
    for other in options.others:
        rows.append({"discriminator": f"{other} and {largest} added", **_added(logits[other], logits[largest])})
    weights = " of random weights" * options.random
    run = options.run.name.rpartition("-")[0]
    return rows, f"Task {task.name}, texts of a run of {run} (seed 0), a language model{weights}"


def _made(
    kind: str, how: Mapping[str, Any], task: Any, sides: Mapping[str, Any], *, random: bool = False
) -> tuple[Any, float | None]:
    """A discriminator that knows the features of all texts, and how long a thousand of these took, s."""
    import torch

    from textgan_env.discriminators import LMDiscriminator, make_discriminator

    words = {"vocabulary": task.vocabulary.to_json()} if kind == "lm" else {}
    made = make_discriminator(kind, vocab_size=task.vocab_size, max_length=task.max_length, **words, **how)
    if not isinstance(made, LMDiscriminator):
        return made, None
    if random:
        made.frozen.forget(seed=0)
    began = time.process_time()
    features = [made.frozen.of(torch.cat(pair)) for pair in sides.values()]
    reading = (time.process_time() - began) / sum(map(len, features)) * 1000
    for pair, some in zip(sides.values(), features, strict=True):
        made.frozen.remember(torch.cat(pair), some)
    made.know(sides["train"][0], features[0][: len(sides["train"][0])])
    return made, reading


def _fits(
    made: Any, sides: Mapping[str, Any], seeds: int, *, mixed: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of a discriminator, and its logits of valid and test texts for each seed."""
    import torch

    from textgan_env.discriminators import make_discriminator, score_logits
    from textgan_env.ops.sampling import derived_generator

    real, fake = sides["train"]
    if mixed:
        both = torch.cat([real, fake])
        real, fake = both[torch.randperm(len(both), generator=derived_generator(0, "mixed"))].chunk(2)
    aucs, epochs, logits = [], [], []
    began = time.process_time()
    for seed in range(seeds):
        one = make_discriminator(made.kind, seed=seed, **made.config())
        if made.kind == "lm":  # drawn anew; what is frozen is shared
            one.frozen, one.mean_X, one.scale_X = made.frozen, made.mean_X, made.scale_X
        best, epoch = _fit(one, real, fake, sides["valid"], seed)
        one.load_state_dict(best)
        logits.append({name: [score_logits(one, side) for side in sides[name]] for name in ("valid", "test")})
        aucs.append(_auc(*logits[-1]["test"]))
        epochs.append(epoch)
    fitting = (time.process_time() - began) / seeds
    return {**_shown(aucs), "epochs": " ".join(map(str, epochs)), "fit, s": round(fitting, 1)}, logits


def _fit(discriminator: Any, real: Any, fake: Any, valid: Any, seed: int) -> tuple[dict[str, Any], int]:
    """Fit until the valid AUC gets no better: the best weights, and after which epoch they came."""
    from textgan_env.discriminators import fit_discriminator, score_logits
    from textgan_env.ops.sampling import derived_generator

    optimizer, generator = discriminator.make_optimizer(), derived_generator(seed, "fit")
    highest, best, at = 0.0, {}, 0
    for epoch in range(1, MOST_EPOCHS + 1):
        steps = -(-len(real) // 64)
        fit_discriminator(discriminator, optimizer, real, fake, steps=steps, batch_size=64, generator=generator)
        auc = _auc(*(score_logits(discriminator, side) for side in valid))
        if auc > highest:
            highest, best, at = auc, copy.deepcopy(discriminator.state_dict()), epoch
        if epoch - at >= PATIENCE:
            break
    return best, at


def _auc(real: Any, fake: Any) -> float:
    """Probability that a real text scores above a fake one."""
    from textgan_env.ops.metrics import roc_auc

    return float(roc_auc(real.numpy(), fake.numpy()))


def _shown(aucs: list[float]) -> dict[str, Any]:
    """Mean and each."""
    return {"auc": sum(aucs) / len(aucs), "each": " ".join(f"{auc:.3f}" for auc in aucs)}


def _added(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> dict[str, Any]:
    """The AUC of the sum of two discriminators' logits."""
    import torch

    aucs = []
    for one, other in zip(first, second, strict=True):
        scales = [float(torch.cat(found["valid"]).std()) for found in (one, other)]
        sums = [a / scales[0] + b / scales[1] for a, b in zip(one["test"], other["test"], strict=True)]
        aucs.append(_auc(*sums))
    return _shown(aucs)


if __name__ == "__main__":
    main()
