"""What the agents that learn by Stable-Baselines3 share: pre-training, the discriminator, and a round of `learn`.

Loads neither torch nor Stable-Baselines3 when it is imported: `--help` of an agent is instant.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textgan_env.training.adversarial import CreditConfig, PretrainingConfig, RewardedAgent, RewardedConfig
from textgan_env.utils.errors import MissingDataError, require
from textgan_env.utils.options import above_zero, at_least

if TYPE_CHECKING:
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Schedule, Step

# What SB3 logs though it follows from the config.
_KNOWN = ("train/n_updates", "train/learning_rate", "train/clip_range", "rollout/exploration_rate")
# Of the finished texts of a collection: our name -> SB3's.
_OF_TEXTS = {"reward": "r", "length": "l"}


@dataclass(frozen=True)
class SB3Config(PretrainingConfig, CreditConfig, RewardedConfig):
    """Options of every agent that learns by Stable-Baselines3."""

    added: ClassVar[tuple[str, ...]] = (*RewardedConfig.added, "ema_decay", "max_grad_norm")
    ema_decay: float = 0.0
    rounds: int = 30
    learn_steps: int = 10
    """Collections of texts, each with what is learnt from it, in a round."""
    envs: int = 128
    """Texts generated side by side."""
    texts: int = 1
    """Texts of T tokens that each of them has room for in a collection."""
    reward: Literal["terminal", "difference", "rollout"] = "terminal"
    """terminal: the whole text's reward at its end; the others complete prefixes at every token, by the actor as it is
    at that moment, which costs far more. rollout is learnt with gamma 0, the others with gamma 1."""
    learning_rate: float = 3e-4
    """Learning rate of reinforcement learning."""


class SB3Agent(RewardedAgent):
    """The actor of an SB3 model is our LSTM policy: MLE warm start, then SB3's `learn` and refits of D in turn.

    Each `learn` begins with new texts and a seed of its own, so a run that is resumed from a checkpoint does what the
    uninterrupted run does. SB3 draws from the global generators; they are given back as they were.

    Args:
        config: Sizes, schedule, reward.
        task: What to generate.

    Raises:
        InputError: If a number is out of its range, or the pre-trained policy is of another task or kind.
        MissingDataError: If Stable-Baselines3 is not installed.
    """

    config: SB3Config
    kinds = ("lstm",)
    curves: ClassVar[tuple[str, ...]] = (*RewardedAgent.curves, "reward")
    recurrent = False
    """Whether the model has a memory of its own and is shown the last token only."""
    masked = False
    """Whether the model asks the environment which tokens may be generated."""

    def __init__(self, config: SB3Config, task: Task) -> None:
        _check(config)
        from stable_baselines3.common.vec_env import VecMonitor

        from textgan_env.envs.sb3 import SB3VecEnv, global_seeds_kept, never_write, share_weights

        super().__init__(config, task)
        self.envs = self.make_envs(
            config.envs,
            reward=config.reward,
            rollouts=config.rollouts,
            transform=config.transform,
            rollout_policy=self.policy,
        )
        with global_seeds_kept():
            self.model: Any = self.make_model(
                VecMonitor(SB3VecEnv(self.envs)),
                learning_rate=config.learning_rate,
                gamma=0.0 if config.reward == "rollout" else 1.0,
                policy_kwargs=self._network(),
                stats_window_size=config.envs * config.texts,
                seed=self.seed("network") % 2**31,
                device=config.device or "cpu",
            )
        share_weights(self.model, self.policy)
        if not self.masked:
            never_write(self.model, task.forbidden)
        # The policy's weights are the model's now.
        self.mle_optimizer = self.optimizers["mle"] = self.new_mle_optimizer(config.mle_learning_rate)
        self.modules["networks"] = self.model.policy
        self.optimizers["rl"] = self.model.policy.optimizer

    def make_model(self, envs: Any, **common: Any) -> Any:
        """The SB3 model on a ``VecEnv``, given the arguments that every SB3 model takes."""
        raise NotImplementedError

    @property
    def steps(self) -> int:
        """Tokens that each text has room for in a collection."""
        return self.task.max_length * self.config.texts

    def _network(self) -> dict[str, Any]:
        """An actor that is the policy's network."""
        from textgan_env.envs.sb3 import LastTokenExtractor, TokenExtractor

        sizes = self.policy.config()
        options = {"embed_size": sizes["embed_size"], "start_token": sizes["start_token"]}
        if self.recurrent:
            lstm = {"lstm_hidden_size": sizes["hidden_size"], "n_lstm_layers": sizes["num_layers"]}
            return {
                "features_extractor_class": LastTokenExtractor,
                "features_extractor_kwargs": options,
                "net_arch": [],
                **lstm,
            }
        options |= {"hidden_size": sizes["hidden_size"], "num_layers": sizes["num_layers"]}
        return {"features_extractor_class": TokenExtractor, "features_extractor_kwargs": options, "net_arch": []}

    def schedule(self) -> Schedule:
        """Pre-train the actor, pre-train D, then `learn` and d-steps in turn."""
        from textgan_env.training.schedule import Phase, Schedule, Steps

        steps = (Steps(self.learn, self.config.learn_steps), self.d_steps_of(self.config.d_steps))
        return Schedule((*self.pretraining(), Phase("rl", self.config.rounds, steps)))

    def learn(self, step: Step) -> Numbers:
        """Let SB3 generate one collection of texts and learn from it."""
        from textgan_env.envs.sb3 import global_seeds_kept
        from textgan_env.ops.sampling import draw_seed

        self.queue_discriminator()
        tokens = self.config.envs * self.steps
        with global_seeds_kept():
            self.model.set_random_seed(draw_seed(step.generator) % 2**31)
            self.model.learn(tokens, log_interval=None)
        logged = self.model.logger.name_to_value.items()
        numbers = {name: float(value) for name, value in logged if name not in _KNOWN}
        texts = self.model.ep_info_buffer
        return numbers | {name: sum(text[key] for text in texts) / len(texts) for name, key in _OF_TEXTS.items()}


@dataclass(frozen=True)
class ActorCriticConfig(SB3Config):
    """Options of every agent whose SB3 model has a critic."""

    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation: 1 trusts the rewards, 0 the critic."""
    ent_coef: float = 0.0
    """Weight of the policy's entropy (nats)."""
    vf_coef: float = 0.5
    """Weight of the critic's loss."""


class ActorCriticAgent(SB3Agent):
    """`SB3Agent` with a critic, which reads the prefix by an embedding and an LSTM of its own.

    Args:
        config: Sizes, schedule, reward.
        task: What to generate.

    Raises:
        InputError: If a number is out of its range, or as `SB3Agent`.
        MissingDataError: If Stable-Baselines3 is not installed.
    """

    config: ActorCriticConfig

    def __init__(self, config: ActorCriticConfig, task: Task) -> None:
        require(0 <= config.gae_lambda <= 1, f"gae_lambda must be 0 to 1, found {config.gae_lambda}")
        at_least(0, config, "ent_coef", "vf_coef")
        super().__init__(config, task)

    @property
    def actor_critic(self) -> dict[str, Any]:
        """Arguments of the SB3 model."""
        config = self.config
        return {
            "n_steps": self.steps,
            "gae_lambda": config.gae_lambda,
            "ent_coef": config.ent_coef,
            "vf_coef": config.vf_coef,
        }

    def _network(self) -> dict[str, Any]:
        """What SB3 makes the networks of: actor and critic read the prefix each by one of their own."""
        return {**super()._network(), "share_features_extractor": False}


def _check(config: SB3Config) -> None:
    """Refuse numbers out of range, and a machine without Stable-Baselines3."""
    at_least(1, config, "envs", "texts", "learn_steps", "rollouts")
    above_zero(config, "learning_rate")
    for package in ("stable_baselines3", "sb3_contrib"):
        if importlib.util.find_spec(package) is None:
            raise MissingDataError(f"this agent needs the package {package}: pip install 'textgan-env[sb3]'")
