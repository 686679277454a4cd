"""The picture of README: one text each of three policies, and what the environment pays for every token.

For example ``python -m benchmarks.pictures --run runs/mle-coco-1``.
"""

from dataclasses import dataclass
from pathlib import Path

from textgan_env.errors import friendly_errors

IMAGES = Path(__file__).parent.parent / "docs" / "images"


@dataclass(frozen=True)
class Options:
    """Draw texts of uniform words, of a bigram model and of a trained run with each token's Q."""

    run: Path
    """The finished run."""
    rollouts: int = 256
    """Completions of each prefix, by the policy that wrote it."""
    seed: int = 0
    """Of the texts."""
    name: str = "credit"
    """Of the PNG file in docs/images."""


def main(args: list[str] | None = None) -> None:
    """The command."""
    import tyro

    with friendly_errors():
        print(draw(tyro.cli(Options, description=__doc__, args=args)))


def draw(options: Options) -> Path:
    """Write the picture; returns its path."""
    import io

    import numpy as np
    from PIL import Image

    from textgan_env.envs import TextGANVectorEnv
    from textgan_env.files import write_safely
    from textgan_env.policies import UniformPolicy
    from textgan_env.render import rgb_array
    from textgan_env.tasks import fit_ngram
    from textgan_env.training import load_policy

    policy, task = load_policy(options.run)
    uniform = UniformPolicy(task.vocab_size, start_token=task.start_token, forbidden=task.forbidden)
    writers = {
        "uniform words": uniform,
        "a bigram model": fit_ngram(task, order=2),
        "an LSTM after maximum likelihood": policy,
    }
    envs = TextGANVectorEnv(1, task, rollouts=options.rollouts)
    frames = []
    for title, writer in writers.items():
        envs.reset(seed=options.seed)
        batch = envs.collect(writer)
        length = int(batch.lengths_B[0])
        words = task.words(batch.tokens_BT[0].tolist())
        words += ["<eos>"] * (length - len(words))
        credit = batch.credit_BT[0, :length].tolist()
        frames.append(rgb_array(words, credit, limits=(0.0, 1.0), size=(960, 300), title=title))
    file = io.BytesIO()
    Image.fromarray(np.concatenate(frames)).save(file, format="png", optimize=True)
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f"{options.name}.png"
    write_safely(path, file.getvalue())
    return path


if __name__ == "__main__":
    main()
