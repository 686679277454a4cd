"""Adversarial text generation as reinforcement learning.

Importing this package registers the environments and loads neither torch nor a plot library::

    import gymnasium as gym
    import textgan_env

    env = gym.make("TextGAN-v0")
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textgan_env.show.saved import SavedRun

__version__ = "0.1.0"

#: Environment id -> the task it is made of and that task's options. The only table: registration and tests read it.
ENVIRONMENTS: dict[str, dict[str, object]] = {
    "TextGAN-v0": {"task": "oracle"},
    "TextGAN/Oracle40-v0": {"task": "oracle40"},
    "TextGAN/SeqGANOracle-v0": {"task": "seqgan-oracle"},
    "TextGAN/Toy-v0": {"task": "toy"},
    "TextGAN/Corpus-v0": {"task": "corpus"},
    "TextGAN/WordNet-v0": {"task": "wordnet"},
    "TextGAN/WordNetGlosses-v0": {"task": "wordnet-glosses"},
    "TextGAN/COCO-v0": {"task": "coco"},
    "TextGAN/EMNLP-v0": {"task": "emnlp"},
    "TextGAN/Poems-v0": {"task": "poems"},
    "TextGAN/Music-v0": {"task": "music"},
}


def load(run: str | Path) -> "SavedRun":
    """Take up the policy of a run: ``textgan_env.load("runs/mle-coco-1").sample(5, prefix="a man")``.

    Args:
        run: The run folder.

    Returns:
        A `textgan_env.show.saved.SavedRun`: ``sample``, ``evaluate``, ``policy``, ``task``.

    Raises:
        InputError: If the folder is not that of a run, or holds no whole checkpoint.
        MissingDataError: If the run's text is not here any more.
    """
    from textgan_env.show.saved import SavedRun

    return SavedRun.load(run)


def register_environments() -> None:
    """Register every id of `ENVIRONMENTS` with Gymnasium; calling it again changes nothing."""
    import gymnasium as gym

    for name, options in ENVIRONMENTS.items():
        if name not in gym.registry:
            gym.register(
                name,
                entry_point="textgan_env.envs:TextGANEnv",
                vector_entry_point="textgan_env.envs:TextGANVectorEnv",
                kwargs=options,
            )


register_environments()
