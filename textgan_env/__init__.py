"""Adversarial text generation as reinforcement learning.

Importing this package registers the environments and loads neither torch nor a plot library::

    import gymnasium as gym
    import textgan_env

    env = gym.make("TextGAN-v0")
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textgan_env.text.corpora import CORPORA

if TYPE_CHECKING:
    from textgan_env.show.saved import SavedEnsemble, SavedModel, SavedRun
    from textgan_env.utils.kinds import MeanName

__version__ = "0.1.0"

#: Environment id -> the task it is made of and that task's options.
ENVIRONMENTS: dict[str, dict[str, object]] = {
    "TextGAN-v0": {"task": "oracle"},
    "TextGAN/Oracle40-v0": {"task": "oracle40"},
    "TextGAN/SeqGANOracle-v0": {"task": "seqgan-oracle"},
    "TextGAN/Toy-v0": {"task": "toy"},
    "TextGAN/Grammar-v0": {"task": "arithmetic-grammar"},
    "TextGAN/JSONGrammar-v0": {"task": "json-grammar"},
    "TextGAN/Corpus-v0": {"task": "corpus"},
    **{corpus.env_id: {"task": name} for name, corpus in CORPORA.items()},
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


def load_ensemble(runs: Sequence[str | Path], mean: "MeanName" = "arithmetic") -> "SavedEnsemble":
    """Take up the policies of several runs on one task as one: the mean of their next-token probabilities.

    Args:
        runs: The run folders.
        mean: ``arithmetic``, or ``geometric``: see `textgan_env.policies.EnsemblePolicy`.

    Returns:
        A `textgan_env.show.saved.SavedEnsemble`: ``sample``, ``evaluate``, ``policy``, ``task``.

    Raises:
        InputError: If there is no run, they are of different tasks, or as `load`.
        MissingDataError: If the runs' text is not here any more.
    """
    from textgan_env.show.saved import SavedEnsemble

    return SavedEnsemble.load(runs, mean)


def load_model(model: str | Path, max_length: int = 48) -> "SavedModel":
    """Take up a pretrained language model as it is: ``load_model("smollm2").sample(5, prefix="The ocean is")``.

    Args:
        model: ``smollm2``, or a folder with a Hugging Face causal language model and its tokenizer.
        max_length: T, the most subwords of a text, its prefix counted.

    Returns:
        A `textgan_env.show.saved.SavedModel`: ``sample``, ``policy``, ``task``.

    Raises:
        InputError: If the folder has no such model.
        MissingDataError: If a package is missing.
    """
    from textgan_env.show.saved import SavedModel

    return SavedModel.load(model, max_length)


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
