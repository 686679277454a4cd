"""Wrappers that refit the discriminator on what is generated, for any RL library that only calls `step`."""

import copy
import logging
from collections import deque
from typing import Any, SupportsFloat, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray
from torch import Tensor, nn

from textgan_env.discriminators import (
    EQUILIBRIUM_VALUE,
    Discriminator,
    DiscriminatorModule,
    discriminator_report,
    fit_discriminator,
)
from textgan_env.envs.game import EpisodeBatch, TextGame
from textgan_env.envs.single import TextGANEnv
from textgan_env.envs.vector import TextGANVectorEnv
from textgan_env.envs.views import Observation
from textgan_env.ops.episodes import Ints
from textgan_env.ops.sampling import derived_generator
from textgan_env.policies.base import Policy
from textgan_env.utils.errors import InputError, require, require_at_least

_LOGGER = logging.getLogger(__name__)


class DiscriminatorTrainer:
    """Gathers the texts that are generated, and every so many of them refits a copy of D and queues it in the game.

    One copy learns all the time and keeps its optimizer. What is queued is a copy of that copy, so no D that judges is
    ever changed. While the game cannot take a new D (two are judging unfinished texts), the refitted one waits, and
    there is no other refit before it is taken.

    Args:
        game: Of the environment.
        every: Finished texts between two refits.
        steps: Steps of the optimizer in a refit.
        batch_size: Texts of each side in a step.
        buffer: How many of the newest texts are kept, to fit and to measure D on.
        hold_out: One text in so many is never fitted on, only measured on.
        learning_rate: Of D's optimizer; None: the one D was tuned with.
        seed: Of the order of texts and of dropout.

    Attributes:
        stats: What the last refit led to; empty before. ``fit/...`` is measured on texts that D was fitted on,
            ``held_out/...`` on the valid split and on the texts kept back, each of them with the names of
            `textgan_env.discriminators.DiscriminatorReport`; ``equilibrium`` is the ``value`` V(D, G) when nobody can
            tell real from generated, -2 ln 2; ``refits`` and ``texts`` are counted from the start.
        history: ``stats`` after each refit, oldest first. Each refit also logs a line, level INFO, with `logging`.

    Raises:
        InputError: If a number is out of range, the reward has no D, its D cannot be fitted, or the task has no texts
            to hold out.
    """

    def __init__(
        self,
        game: TextGame,
        *,
        every: int = 64,
        steps: int = 16,
        batch_size: int = 64,
        buffer: int = 1024,
        hold_out: int = 5,
        learning_rate: float | None = None,
        seed: int = 0,
    ) -> None:
        require(hold_out >= 2, f"hold_out must be at least 2 (every second text), found {hold_out}")
        require(every >= hold_out, f"every must be at least hold_out={hold_out}, found {every}")
        require(buffer >= every, f"buffer must be at least every={every}, found {buffer}")
        require_at_least(1, steps=steps, batch_size=batch_size)
        self.game = game
        self.every, self.steps, self.batch_size, self.hold_out = every, steps, batch_size, hold_out
        self.seed = seed
        self.stats: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self._newest = game.discriminator
        self._learner = _learner(self._newest)
        self._device = next(self._learner.parameters()).device
        self._optimizer = self._learner.make_optimizer(learning_rate)
        self._waiting: Discriminator | None = None
        self._real_BT = game.task.writable("train").to(self._device)
        self._real_held_out_BT = game.task.writable("valid").to(self._device)
        empty = f"the valid split of task '{game.task.name}' is empty: D needs held-out texts"
        require(len(self._real_held_out_BT) > 0, empty)
        # (number of the text, the text): the number says whether it is held out, once and for all.
        self._texts: deque[tuple[int, Tensor]] = deque(maxlen=buffer)
        self._gathered = 0
        self._since_refit = 0

    def add(self, tokens_BT: Tensor | Ints) -> None:
        """Take finished texts, and refit D when it is time.

        Args:
            tokens_BT: int64, PAD after the end; B may be 0.

        Raises:
            InputError: If somebody else has changed the game's D meanwhile.
        """
        changed = "somebody else changed the discriminator: either a training loop refits it, or DiscriminatorTraining"
        require(self.game.discriminator is self._newest, changed)
        for text_T in torch.as_tensor(tokens_BT).to(self._device).clone():
            self._gathered += 1
            self._texts.append((self._gathered, text_T))
        self._since_refit += len(tokens_BT)
        if self._waiting is None and self._since_refit >= self.every:
            self._waiting = self._refit()
        if self._waiting is not None and self.game.queue_discriminator(self._waiting):
            self._newest, self._waiting = self._waiting, None

    def _refit(self) -> Discriminator:
        """Fit the learner to the newest texts and measure it; returns a frozen copy."""
        generator = derived_generator(self.seed, "refit", len(self.history))
        generated_BT = torch.stack([text_T for number, text_T in self._texts if number % self.hold_out])
        held_out_BT = torch.stack([text_T for number, text_T in self._texts if not number % self.hold_out])
        of_sides = (self._learner, self._optimizer, self._real_BT, generated_BT)
        fit_discriminator(*of_sides, steps=self.steps, batch_size=self.batch_size, generator=generator)
        # As many real texts as generated ones say enough, and a corpus may have a million.
        some = torch.randperm(len(self._real_BT), generator=generator)[: len(generated_BT)].to(self._device)
        self.stats = {
            "refits": len(self.history) + 1,
            "texts": self._gathered,
            **discriminator_report(self._learner, self._real_BT[some], generated_BT).as_dict("fit/"),
            **discriminator_report(self._learner, self._real_held_out_BT, held_out_BT).as_dict("held_out/"),
            "equilibrium": EQUILIBRIUM_VALUE,
        }
        self.history.append(self.stats)
        _LOGGER.info(
            "refit %d after %d texts: held-out loss %.3f, accuracy real %.2f, fake %.2f, AUC %.3f, V(D,G) %.3f (%.3f)",
            *(self.stats[name] for name in ("refits", "texts", "held_out/loss", "held_out/accuracy_real")),
            *(self.stats[name] for name in ("held_out/accuracy_fake", "held_out/auc", "held_out/value", "equilibrium")),
        )
        self._since_refit = 0
        return copy.deepcopy(self._learner).eval().requires_grad_(False)


class _Training(RecordConstructorArgs):
    """What both wrappers show of their trainer."""

    trainer: DiscriminatorTrainer

    @property
    def stats(self) -> dict[str, float]:
        """See `DiscriminatorTrainer`; never in an info, which holds what can be stacked row by row."""
        return self.trainer.stats

    @property
    def history(self) -> list[dict[str, float]]:
        """See `DiscriminatorTrainer`."""
        return self.trainer.history


class DiscriminatorTraining(gym.Wrapper[Observation, np.int64, Observation, np.int64], _Training):
    """Refits the environment's discriminator while any agent generates texts with `step`.

    Other wrappers may stand on either side. Texts that end early by a wrapper's will (``TimeLimit``) are not gathered.
    A training loop that calls `textgan_env.discriminators.fit_discriminator` itself does without this wrapper; both at
    once is an error.

    Example:
        >>> import gymnasium as gym, textgan_env
        >>> from textgan_env.envs.wrappers import DiscriminatorTraining
        >>> env = DiscriminatorTraining(gym.make("TextGAN/Toy-v0"), every=10)
        >>> for episode in range(10):
        ...     observation, info = env.reset(seed=episode)
        ...     terminated = False
        ...     while not terminated:
        ...         observation, reward, terminated, truncated, info = env.step(episode % 4)
        >>> env.stats["refits"], sorted(env.stats)[:3]
        (1, ['equilibrium', 'fit/accuracy', 'fit/accuracy_fake'])

    Args:
        env: A `TextGANEnv`, wrapped or not.
        **settings: Of `DiscriminatorTrainer`.

    Raises:
        InputError: If there is no `TextGANEnv` inside, or as `DiscriminatorTrainer` says.
    """

    def __init__(self, env: gym.Env[Observation, np.int64], **settings: Any) -> None:
        RecordConstructorArgs.__init__(self, **settings)
        base = env.unwrapped
        if not isinstance(base, TextGANEnv):
            raise InputError(f"DiscriminatorTraining wraps a TextGANEnv, found {type(base).__name__}{_hint(base)}")
        gym.Wrapper.__init__(self, env)
        self.trainer = DiscriminatorTrainer(base.game, **settings)

    def step(self, action: np.int64) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment, and gather the text if that ended it."""
        result = self.env.step(action)
        # Not what `result` says: a wrapper in between may have changed observations, or cut an unfinished text off.
        self.trainer.add(self.trainer.game.just_ended_BT)
        return result


class DiscriminatorVectorTraining(VectorWrapper[Observation, Ints, Observation, Ints, NDArray[Any]], _Training):
    """`DiscriminatorTraining` for the natively batched environment, in every autoreset mode.

    Texts count that are generated through this wrapper, by `step` or `collect`; what ``envs.unwrapped.collect`` gives
    is not seen. There is one refit at most after a call, however many texts it ended. In same-step autoreset the rows
    that have just started a text keep the older D for that text.

    Args:
        env: A `TextGANVectorEnv`, wrapped or not.
        **settings: Of `DiscriminatorTrainer`.

    Raises:
        InputError: If there is no `TextGANVectorEnv` inside, or as `DiscriminatorTrainer` says.
    """

    def __init__(self, env: VectorEnv[Observation, Ints, NDArray[Any]], **settings: Any) -> None:
        RecordConstructorArgs.__init__(self, **settings)
        base = env.unwrapped
        if not isinstance(base, TextGANVectorEnv):
            found = f"{type(base).__name__}{_hint(base)}"
            raise InputError(f"DiscriminatorVectorTraining wraps a TextGANVectorEnv, found {found}")
        VectorWrapper.__init__(self, env)
        self.base = base
        self.trainer = DiscriminatorTrainer(base.game, **settings)

    def step(self, actions: Ints) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step the environment, and gather the texts that ended."""
        result = self.env.step(actions)
        self.trainer.add(self.trainer.game.just_ended_BT)
        return result

    def collect(self, policy: Policy) -> EpisodeBatch:
        """See `TextGANVectorEnv.collect`; its texts are gathered, too."""
        batch = self.base.collect(policy)
        self.trainer.add(batch.tokens_BT)
        return batch


def _learner(discriminator: Discriminator) -> DiscriminatorModule:
    """A copy that can be fitted."""
    expected = "DiscriminatorTraining refits an nn.Module with a method make_optimizer(learning_rate)"
    if not isinstance(discriminator, nn.Module) or not hasattr(discriminator, "make_optimizer"):
        raise InputError(f"{expected}, found a {type(discriminator).__name__}")
    learner = copy.deepcopy(discriminator)
    # A frozen D (the default one, or one that was queued) is frozen because it judges; the copy does not.
    if not any(parameter.requires_grad for parameter in learner.parameters()):
        learner.requires_grad_(True)
    return cast(DiscriminatorModule, learner)


def _hint(base: object) -> str:
    """A hint for those who took the single wrapper for the vector environment, or the other way around."""
    if isinstance(base, TextGANVectorEnv):
        return ": take DiscriminatorVectorTraining"
    return ": take DiscriminatorTraining" if isinstance(base, TextGANEnv) else ""
