"""Who judges and who completes where an environment is given neither."""

import json
from functools import lru_cache

import torch

from textgan_env.discriminators import Discriminator, DiscriminatorModule, fit_discriminator, make_discriminator
from textgan_env.ops.checksums import checksum
from textgan_env.ops.sampling import derived_generator, derived_seed
from textgan_env.policies.ngram import NGramPolicy
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import OracleTask, Task, ToyTask, fill_once, fit_ngram

#: Of the default discriminator: two passes over 10,000 texts. With more steps, or fewer generated texts, it learns its
#: own by heart: held-out AUC falls (benchmarks/results/default_judge.md has today's).
DEFAULT_DISCRIMINATOR_STEPS = 150
#: Texts of each side in a step of the default discriminator.
DEFAULT_DISCRIMINATOR_BATCH = 128


@lru_cache(maxsize=4)
def default_rollout_policy(task: Task) -> NGramPolicy:
    """A bigram model of the training texts: what completes prefixes when the environment is given no policy."""
    return fit_ngram(task, order=2)


@lru_cache(maxsize=4)
def default_discriminator(task: Task, seed: int) -> Discriminator:
    """A small discriminator, fitted to tell the training texts from texts of uni- and bigram models of them.

    It can tell which words and which pairs of near words are usual. It has seen no other kind of error, so it cannot
    judge grammar over long distances, sense, or whether a text is copied. It is fitted once on a machine for the same
    texts and seed, and kept in the data folder (see `textgan_env.tasks.fill_once`); the last four stay in the
    process: never train it, train a copy.

    Args:
        task: Gives the texts.
        seed: Of its initial weights, the texts it is fitted against, and the order of both.

    Returns:
        A discriminator without gradients, in eval mode.
    """
    discriminator = make_discriminator("pair", vocab_size=task.vocab_size, max_length=task.max_length, seed=seed)
    amount = {"steps": DEFAULT_DISCRIMINATOR_STEPS, "batch_size": DEFAULT_DISCRIMINATOR_BATCH}
    follows_from = json.dumps([discriminator.config(), amount, seed, _texts_of(task)], default=str)
    what = f"the default discriminator of task '{task.name}'"
    fill_once(discriminator.state_dict(), what, follows_from, lambda: _fit(discriminator, task, seed, **amount))
    return discriminator.eval().requires_grad_(False)


def _fit(discriminator: DiscriminatorModule, task: Task, seed: int, *, steps: int, batch_size: int) -> None:
    """Fit to tell the training texts from those of uni- and bigram models of them."""
    real_BT = task.writable("train")
    half = (len(real_BT) + 1) // 2
    fakes = []
    for number, policy in enumerate((fit_ngram(task, order=1), default_rollout_policy(task))):
        keys = Keys.counted(derived_seed(seed, "judge", number), half)
        fakes.append(generate(policy, keys, task.max_length, end_token=task.end_token)[0])
    order = derived_generator(seed, "judge", "order")
    optimizer, fake_BT = discriminator.make_optimizer(), torch.cat(fakes)
    fit_discriminator(discriminator, optimizer, real_BT, fake_BT, steps=steps, batch_size=batch_size, generator=order)


def _texts_of(task: Task) -> list[object]:
    """What the texts are, and how policies generate others: plain data that no two different tasks share."""
    plain = [task.vocab_size, task.max_length, task.start_token, task.end_token, task.forbidden]
    if type(task) in (OracleTask, ToyTask) and task.oracle is not None:
        # Their texts follow from this, and drawing them is what takes long.
        return [*plain, type(task).__name__, task.config(), checksum("", task.oracle.state_dict())]  # type: ignore[attr-defined]
    train = task.split("train")
    return [*plain, checksum("", {"tokens": train.tokens_BT, "mask": train.mask_BT})]
