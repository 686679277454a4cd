"""Texts of a policy as strings."""

from collections.abc import Iterator, Sequence
from itertools import islice

from textgan_env.evaluation.likelihood import TILE
from textgan_env.objectives import ObjectiveLike, as_objective, ask_values
from textgan_env.ops.sampling import derived_seed
from textgan_env.policies.base import Policy
from textgan_env.rewards import Keys, Texts, generate
from textgan_env.tasks import Task
from textgan_env.utils.errors import require


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


def stream_best(texts: Iterator[str], objective: ObjectiveLike, of: int) -> Iterator[str]:
    """The best of each ``of`` texts by an objective; the first of them where several are.

    Args:
        texts: As `stream_texts` gives them.
        objective: Says which is better; a text for which it fails is the worst.
        of: n of best-of-n.

    Raises:
        InputError: If ``of`` is below 1, or the objective is none.
    """
    require(of >= 1, f"best_of must be at least 1, found {of}")
    goal = as_objective(objective)
    while some := list(islice(texts, of)):
        values = ask_values(goal, some)
        yield some[values.index(max(values))]


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
