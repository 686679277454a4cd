"""The controls of any reward function: twins that know nothing of the text, to run beside it or in its place.

What a model gains by a twin it does not owe to the reward: Shao et al. 2025 ("Spurious Rewards", arXiv 2506.10947) saw
random rewards raise a model's score on mathematics.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from textgan_env.ops.sampling import derived_generator
from textgan_env.trl.asked import Completion, OnceAsked, RewardFunction, text_of
from textgan_env.trl.processes import gathered
from textgan_env.trl.reward import DiscriminatorReward
from textgan_env.utils.errors import InputError, require_at_least


class Controls:
    """A reward function, asked once a call, and its twins; each logs under a name of its own.

    Attributes:
        reward: The reward. Give this to the trainer, so that a twin beside it does not ask a second time.
        shuffled: Each completion gets the reward of another of the batch.
        shuffled_in_groups: The same among completions of equal prompts: what the prompt is worth stays.
        constant: 1.
        random: Uniform between 0 and 1.
    """

    def __init__(self, reward_func: Callable[..., Any], seed: int = 0) -> None:
        require_at_least(0, seed=seed)
        self.reward = reward_func if isinstance(reward_func, RewardFunction) else OnceAsked(reward_func)
        self.shuffled: RewardFunction = _Shuffled(self.reward, seed, in_groups=False)
        self.shuffled_in_groups: RewardFunction = _Shuffled(self.reward, seed, in_groups=True)
        self.constant: RewardFunction = _Constant(f"constant_{self.reward.__name__}")
        self.random: RewardFunction = _Random(f"random_{self.reward.__name__}", seed)

    @property
    def untrained(self) -> RewardFunction:
        """The discriminator as it was made, which never learns.

        Raises:
            InputError: If the reward is not that of a discriminator.
        """
        if not isinstance(self.reward, DiscriminatorReward):
            raise InputError(f"only a DiscriminatorReward has an untrained control, found {self.reward.__name__}")
        return _Untrained(self.reward)


def controls(reward_func: Callable[..., Any], *, seed: int = 0) -> Controls:
    """The controls of a reward function.

    The draws of a call follow from the seed, the trainer's step and the completions, so a run that is resumed draws on
    as if it had not been stopped, and several processes draw as one.

    Args:
        reward_func: A reward function as TRL's trainers take it; not a model, not an asynchronous function.
        seed: Of the random ones.

    Returns:
        The reward and its twins.

    Raises:
        InputError: If it is none of these, or the seed is negative.
    """
    return Controls(reward_func, seed)


class _Shuffled(RewardFunction):
    """Rewards of others; where the reward does not apply, it does not here."""

    def __init__(self, reward: RewardFunction, seed: int, *, in_groups: bool) -> None:
        super().__init__(f"shuffled_{'in_groups_' * in_groups}{reward.__name__}")
        self.reward, self.seed, self.in_groups = reward, seed, in_groups

    def rewards(
        self, *, prompts: Sequence[Completion], completions: Sequence[Completion], **columns: Any
    ) -> list[float | None]:
        given = self.reward(prompts=prompts, completions=completions, **columns)
        keys = [json.dumps(prompt, sort_keys=True, default=str) if self.in_groups else "" for prompt in prompts]
        rows, own = gathered(list(zip(keys, given, completions, strict=True)))
        generator = _generator(self.seed, self.__name__, [row[2] for row in rows], columns)
        groups: dict[str, list[int]] = defaultdict(list)
        for place, (key, reward, _) in enumerate(rows):
            if reward is not None:
                groups[key].append(place)
        shuffled: list[float | None] = [None] * len(rows)
        for places in groups.values():
            order = torch.randperm(len(places), generator=generator).tolist()
            for place, other in zip(places, order, strict=True):
                shuffled[place] = rows[places[other]][1]
        return shuffled[own]


class _Constant(RewardFunction):
    """1 for each."""

    def rewards(self, *, completions: Sequence[Completion], **_: Any) -> list[float]:
        return [1.0] * len(completions)


class _Random(RewardFunction):
    """Numbers between 0 and 1."""

    def __init__(self, name: str, seed: int) -> None:
        super().__init__(name)
        self.seed = seed

    def rewards(self, *, completions: Sequence[Completion], **columns: Any) -> list[float]:
        everyone, own = gathered(completions)
        generator = _generator(self.seed, self.__name__, everyone, columns)
        drawn: list[float] = torch.rand(len(everyone), generator=generator).tolist()
        return drawn[own]


class _Untrained(RewardFunction):
    """The discriminator of a reward as it was made."""

    def __init__(self, reward: DiscriminatorReward) -> None:
        super().__init__(f"untrained_{reward.__name__}")
        self.reward, self.discriminator = reward, reward.new_discriminator()

    def rewards(self, *, prompts: Sequence[Completion], completions: Sequence[Completion], **_: Any) -> list[float]:
        texts = self.reward.judged(prompts, completions)
        return self.reward.paid(self.reward.logits(texts, self.discriminator))


def _generator(seed: int, name: str, completions: Sequence[Completion], columns: dict[str, Any]) -> torch.Generator:
    """The draws of a call."""
    texts = json.dumps([text_of(completion) for completion in completions])
    step = int(getattr(columns.get("trainer_state"), "global_step", 0))
    return derived_generator(seed, name, step, hashlib.sha256(texts.encode()).hexdigest())
