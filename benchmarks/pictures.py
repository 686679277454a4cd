"""The pictures of README and docs, made from a finished run.

For example ``python -m benchmarks.pictures --run runs/mle-coco-1``.
"""

from dataclasses import dataclass
from pathlib import Path

from textgan_env.errors import friendly_errors

IMAGES = Path(__file__).parent.parent / "docs" / "images"


@dataclass(frozen=True)
class Options:
    """Draw one text of a run with each token's Q."""

    run: Path
    """A finished run; its policy writes the text and completes its prefixes."""
    rollouts: int = 256
    """Completions of each prefix."""
    seed: int = 0
    """Of the text."""
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

    from PIL import Image

    from textgan_env.envs import TextGANVectorEnv
    from textgan_env.files import write_safely
    from textgan_env.training import load_policy

    policy, task = load_policy(options.run)
    envs = TextGANVectorEnv(1, task, rollouts=options.rollouts, render_mode="rgb_array")
    envs.reset(seed=options.seed)
    envs.collect(policy)
    frames = envs.render()
    assert frames is not None
    file = io.BytesIO()
    Image.fromarray(frames[0]).save(file, format="png", optimize=True)
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f"{options.name}.png"
    write_safely(path, file.getvalue())
    return path


if __name__ == "__main__":
    main()
