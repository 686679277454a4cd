"""PPO on the environment's rewards: Stable-Baselines3's PPO, MaskablePPO or RecurrentPPO.

Schulman et al. 2017, in SB3's implementation: pre-train the actor by maximum likelihood, pre-train D against it, then
alternate PPO with refits of D. The state is the whole prefix, so a model without a memory of its own is enough:

  --kind plain      re-reads the prefix at every token
  --kind maskable   the same, and asks the environment's masks, which bar no action
  --kind recurrent  is shown the last token and remembers the others

Presets:

  fast    an LSTM of 32 units, the whole text's reward (the default)
  smoke   seconds, to see that everything runs
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from textgan_env.training.agent import run_command
from textgan_env.training.sb3 import SMOKE, ActorCriticAgent, ActorCriticConfig
from textgan_env.utils.errors import require
from textgan_env.utils.options import above_zero, at_least

if TYPE_CHECKING:
    from textgan_env.tasks import Task


@dataclass(frozen=True)
class PPOConfig(ActorCriticConfig):
    """Train a policy by PPO."""

    kind: Literal["plain", "maskable", "recurrent"] = "plain"
    """Which PPO, see above."""
    num_minibatches: int = 4
    """Parts of a collection that are learnt from one after the other."""
    epochs: int = 4
    """Passes over a collection."""
    clip_range: float = 0.2
    """How far the probability of a token may move in a collection, as a share of what it was."""


def fast(task: str) -> PPOConfig:
    """Minutes on two cores."""
    return PPOConfig(preset="fast", task=task, select="last")


def smoke(task: str) -> PPOConfig:
    """As small as it can be."""
    return replace(fast(task), preset="smoke", **SMOKE)


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "smoke": smoke}


class PPO(ActorCriticAgent):
    """See `SB3Agent` and `ActorCriticAgent`.

    Args:
        config: Sizes, schedule, reward.
        task: What to generate.

    Raises:
        InputError: If a number is out of its range, or the pre-trained policy is of another task or kind.
    """

    config: PPOConfig

    def __init__(self, config: PPOConfig, task: Task) -> None:
        at_least(1, config, "num_minibatches", "epochs")
        above_zero(config, "clip_range")
        self.recurrent = config.kind == "recurrent"
        super().__init__(config, task)

    def make_model(self, envs: Any, **common: Any) -> Any:
        """The model of the kind that was asked for."""
        import sb3_contrib
        import stable_baselines3

        config, tokens = self.config, self.config.envs * self.steps
        divides = tokens % config.num_minibatches == 0 and tokens > config.num_minibatches
        collection = f"the {tokens} tokens of a collection (envs x texts x T)"
        require(divides, f"num_minibatches must divide {collection}, found {config.num_minibatches}")
        kinds = {"maskable": sb3_contrib.MaskablePPO, "recurrent": sb3_contrib.RecurrentPPO}
        algorithm: Any = kinds.get(config.kind, stable_baselines3.PPO)
        return algorithm(
            "MultiInputLstmPolicy" if self.recurrent else "MultiInputPolicy",
            envs,
            batch_size=tokens // config.num_minibatches,
            n_epochs=config.epochs,
            clip_range=config.clip_range,
            **self.actor_critic,
            **common,
        )


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(PPO, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
