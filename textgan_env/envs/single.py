"""The environment of one text."""

from typing import Any, ClassVar, SupportsFloat

import gymnasium as gym
import numpy as np

from textgan_env.envs.common import MANUAL, GameEnv, given_options, given_prefix, given_seed
from textgan_env.envs.game import keys_of
from textgan_env.envs.views import Observation, frame, observation
from textgan_env.ops.episodes import Bools
from textgan_env.tasks import Task


class TextGANEnv(GameEnv, gym.Env[Observation, np.int64]):
    """Generate one text, token by token; a discriminator judges it."""

    __doc__ = (__doc__ or "") + MANUAL

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "human", "rgb_array"], "render_fps": 4}  # type: ignore[misc]

    def __init__(self, task: str | Task = "oracle", *, render_mode: str | None = None, **options: Any) -> None:
        self.observation_space, self.action_space = self._begin_game(1, task, render_mode, options)
        self._row: Bools = np.ones(1, dtype=np.bool_)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new text; ``options={"prefix": ...}`` gives its beginning.

        Raises:
            InputError: If the prefix does not fit the task, an option is unknown, or the seed is no whole number.
        """
        prefix = given_prefix(self.task, given_options(options))
        super().reset(seed=given_seed(seed))
        if seed is not None or not self.game.episodes.started_B[0]:
            self.game.episodes.seed(self._row, keys_of([self.np_random_seed]))
        self.game.begin(self._row, prefix)
        if self.render_mode == "human":
            self.render()
        return observation(self.game, 0), {"action_mask": self.action_masks().astype(np.int8)}

    def step(self, action: np.int64) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Append one token.

        Raises:
            InputError: If the action is not in the action space, `reset` was not called, or the text has ended.
        """
        token = self._tokens(action, self._row[0], "an action must be one whole number")
        reward_B = self.game.step(self._row, token.reshape(1))
        ended = bool(self.game.episodes.ended_B[0])
        info: dict[str, Any] = {"action_mask": self.action_masks().astype(np.int8)}
        if ended and self.game.reward.judged:
            info["score_real"] = float(self.game.score_real(self._row)[0])
        if self.render_mode == "human":
            self.render()
        return observation(self.game, 0), float(reward_B[0]), ended, False, info

    def render(self) -> Any:
        """The text so far with each token's Q as colour: a string (ansi), a picture (rgb_array), or printed (human)."""
        if self.render_mode is None:
            gym.logger.warn("render() was called without a render_mode: pass one to gym.make, e.g. render_mode='ansi'")
            return None
        shown = frame(self.game, 0, self.render_mode)
        if self.render_mode == "human":
            print(shown)  # noqa: T201  its own colours, around words that are spelled out
            return None
        return shown
