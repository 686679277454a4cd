"""The picture of docs/reinforcement_learning.md: REINFORCE on the toy task with and without what makes it work.

``python -m benchmarks.ideas_picture``
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.results import IMAGES, command
from docs.examples.reinforce import Args, learn
from textgan_env.discriminators import score_logits
from textgan_env.envs import default_discriminator
from textgan_env.ops.plots import learning_curve
from textgan_env.policies import TablePolicy
from textgan_env.tasks import ToyTask


@dataclass(frozen=True)
class Options:
    """Train the arms of docs/examples/reinforce.py and draw their exact values."""

    steps: int = 200
    """Gradient steps of each."""
    seed: int = 2
    """Of the texts."""
    path: Path = IMAGES / "reinforce.png"
    """The file to write."""


@command
def main(options: Options) -> None:
    """The command."""
    print(draw(options))


def draw(options: Options) -> Path:
    """Write the picture; returns its path."""
    common: dict[str, Any] = {"steps": options.steps, "seed": options.seed}
    arms = {
        "baseline and entropy bonus": Args(**common),
        "baseline, no bonus": Args(entropy=0.0, **common),
        "neither": Args(entropy=0.0, baseline="none", **common),
        "constant reward, neither": Args(control="constant", entropy=0.0, baseline="none", **common),
        "constant reward, baseline": Args(control="constant", entropy=0.0, **common),
    }
    task = ToyTask(seed=Args().task_seed)
    reward_S = score_logits(default_discriminator(task, seed=0), task.texts_ST).sigmoid()
    rows: list[dict[str, Any]] = [{"step": step} for step in range(options.steps + 1)]
    for name, args in arms.items():
        curve = learn(args, TablePolicy(task.vocab_size, max_length=task.max_length), task, reward_S)
        for row, (value, entropy) in zip(rows, curve, strict=True):
            row |= {f"value {name}": value, f"entropy {name}": entropy}
    values, entropies = {f"value {name}": name for name in arms}, {f"entropy {name}": name for name in arms}
    lines = {"expected R of a text": values, "entropy of texts, nats": entropies}
    levels = dict(zip(("best text", "second best"), reward_S.topk(2).values.tolist(), strict=True))
    learning_curve(rows, options.path, lines=lines, x_label="gradient step", levels=levels)
    with Image.open(options.path) as picture:
        smaller = picture.convert("RGB").quantize(64)
    smaller.save(options.path, optimize=True)
    return options.path


if __name__ == "__main__":
    main()
