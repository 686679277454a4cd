"""A2C on the environment's rewards, by Stable-Baselines3: one step of policy gradient a collection, with a critic.

Mnih et al. 2016, without the asynchronous workers: pre-train the actor by maximum likelihood, pre-train D against it,
then alternate A2C with refits of D. Presets:

  fast    an LSTM of 32 units, the whole text's reward (the default)
  smoke   seconds, to see that everything runs
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from textgan_env.training.agent import run_command
from textgan_env.training.sb3 import SMOKE, ActorCriticAgent, ActorCriticConfig


@dataclass(frozen=True)
class A2CConfig(ActorCriticConfig):
    """Train a policy by A2C."""


def fast(task: str) -> A2CConfig:
    """Minutes on two cores."""
    return A2CConfig(preset="fast", task=task, select="last")


def smoke(task: str) -> A2CConfig:
    """As small as it can be."""
    return replace(fast(task), preset="smoke", **SMOKE)


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "smoke": smoke}


class A2C(ActorCriticAgent):
    """See `SB3Agent` and `ActorCriticAgent`. Where SB3 cuts collections after five steps, here they are whole texts."""

    config: A2CConfig

    def make_model(self, envs: Any, **common: Any) -> Any:
        """The model."""
        from stable_baselines3 import A2C as Algorithm

        return Algorithm("MultiInputPolicy", envs, normalize_advantage=True, **self.actor_critic, **common)


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(A2C, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
