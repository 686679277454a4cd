"""DQN on the environment's rewards, by Stable-Baselines3: the policy draws tokens by ``exp(Q / temperature)``.

Mnih et al. 2015. Where we differ: no epsilon; the network explores as it is measured, by Boltzmann's distribution over
its Q at --temperature, in units of reward (the best token alone would give one text). Pre-training by maximum
likelihood makes that distribution the one of the training texts, so Q begins as temperature times its logarithm, up to
a constant for each prefix. The target network is renewed before each collection. Rewards in the replay buffer were
paid by the D of their time. Presets:

  fast    an LSTM of 32 units, the whole text's reward (the default)
  smoke   seconds, to see that everything runs
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from textgan_env.training.agent import run_command
from textgan_env.training.sb3 import SMOKE, SB3Agent, SB3Config
from textgan_env.utils.options import at_least

if TYPE_CHECKING:
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Step


@dataclass(frozen=True)
class DQNConfig(SB3Config):
    """Train a policy by DQN."""

    buffer_size: int = 50_000
    """Tokens in the replay buffer."""
    gradient_steps: int = 20
    """Steps of the optimizer after each collection."""
    batch_size: int = 256
    """Tokens a step."""


def fast(task: str) -> DQNConfig:
    """Minutes on two cores."""
    return DQNConfig(preset="fast", task=task, select="last", temperature=0.2)


def smoke(task: str) -> DQNConfig:
    """As small as it can be."""
    return replace(fast(task), preset="smoke", buffer_size=1000, gradient_steps=2, **SMOKE)


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "smoke": smoke}


class DQN(SB3Agent):
    """See `SB3Agent`; checkpoints hold the replay buffer, too.

    Args:
        config: Sizes, schedule, reward.
        task: What to generate.

    Raises:
        InputError: If a number is out of its range, or the pre-trained policy is of another task or kind.
    """

    config: DQNConfig

    def __init__(self, config: DQNConfig, task: Task) -> None:
        from textgan_env.policies import Decoding

        at_least(1, config, "gradient_steps", "batch_size")
        at_least(config.envs, config, "buffer_size")  # one token of each environment
        decoding = Decoding(config.temperature)
        super().__init__(config, task)
        # What is pre-trained, completes prefixes and is evaluated is what the model draws by.
        self.policy.decoding = decoding
        from textgan_env.envs.sb3 import ReplayState

        self.buffer = ReplayState(self.model.replay_buffer)
        self.modules["replay"] = self.buffer

    def make_model(self, envs: Any, **common: Any) -> Any:
        """The model."""
        from stable_baselines3 import DQN as Algorithm

        from textgan_env.envs.sb3 import BoltzmannDQNPolicy

        return Algorithm(
            BoltzmannDQNPolicy,
            envs,
            buffer_size=self.config.buffer_size,
            learning_starts=0,
            batch_size=self.config.batch_size,
            train_freq=(self.steps, "step"),
            gradient_steps=self.config.gradient_steps,
            target_update_interval=2**62,  # `learn` does it
            exploration_initial_eps=0.0,
            exploration_final_eps=0.0,
            **common,
        )

    def _network(self) -> dict[str, Any]:
        """What SB3 makes the network of, and at which temperature it draws."""
        return {**super()._network(), "temperature": self.config.temperature}

    def learn(self, step: Step) -> Numbers:
        """Renew the target network, then collect and learn."""
        self.model.q_net_target.load_state_dict(self.model.q_net.state_dict())
        self.buffer.put_back()
        numbers = super().learn(step)
        self.buffer.take()
        return numbers


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(DQN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
