"""Texts of a policy as strings."""

from collections.abc import Iterator, Sequence

from textgan_env.evaluation.evaluate import TILE
from textgan_env.ops.sampling import derived_seed
from textgan_env.policies.base import Policy
from textgan_env.rewards import Keys, Texts, generate
from textgan_env.tasks import Task
from textgan_env.utils.errors import require


def sample_texts(policy: Policy, task: Task, count: int, seed: int, prefix: Sequence[int] = ()) -> list[str]:
    """Some texts of a policy as a person reads them; arguments and errors are those of `stream_texts`."""
    return list(stream_texts(policy, task, count, seed, prefix))


def stream_texts(policy: Policy, task: Task, count: int, seed: int, prefix: Sequence[int] = ()) -> Iterator[str]:
    """Texts of a policy as a person reads them, written some hundred at a time.

    Args:
        policy: Writes.
        task: Says how long texts are, and which words tokens stand for.
        count: How many; the first texts of a larger number are the same.
        seed: Of the draws.
        prefix: Tokens that every text begins with.

    Returns:
        An iterator; it does the checks when its first text is asked for.

    Raises:
        InputError: If ``count`` is below 1, or no text can begin with the prefix.
    """
    for first in range(0, max(1, count), TILE):  # a count below 1 is refused by the first call
        texts = generate_texts(policy, task, min(TILE, count - first), seed, prefix, first=first)
        yield from (task.text(tokens) for tokens in texts.tokens_BT.tolist())


def generate_texts(
    policy: Policy, task: Task, count: int, seed: int, prefix: Sequence[int] = (), *, first: int = 0
) -> Texts:
    """Texts of a policy as tokens, in one go: those that `stream_texts` gives as words.

    Args:
        policy: Writes.
        task: Says how long texts are.
        count: B.
        seed: Of the draws.
        prefix: Tokens that every text begins with.
        first: How many texts of this seed stand before them.

    Returns:
        The finished texts, with the keys of their draws for what else is asked about them.

    Raises:
        InputError: If ``count`` is below 1, or no text can begin with the prefix.
    """
    require(count >= 1, f"the number of texts must be at least 1, found {count}")
    keys = Keys.counted(derived_seed(seed, "samples"), count, first_episode=first, device=policy.device)
    tokens_BT, lengths_B = generate(policy, keys, task.max_length, end_token=task.end_token, prefix=prefix)
    return Texts.finished(tokens_BT, lengths_B, keys, task.end_token)
