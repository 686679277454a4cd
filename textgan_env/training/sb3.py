"""What the agents that learn by Stable-Baselines3 share: pre-training, the discriminator, and a round of `learn`.

Loads neither torch nor Stable-Baselines3 when it is imported: `--help` of an agent is instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textgan_env.training.rewarded import CreditConfig, PretrainingConfig, RewardedAgent, RewardedConfig
from textgan_env.utils.errors import require, require_package
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
    policy: Literal["lstm"] = "lstm"
    """What the actor's network is made of."""
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


#: Options of the preset smoke of every such agent: as small as it can be.
SMOKE: dict[str, Any] = {
    "mle_epochs": 1, "embed_size": 8, "hidden_size": 8, "d_pretraining": 1, "d_batch_size": 256, "rounds": 2,
    "learn_steps": 1, "envs": 16,
}  # fmt: skip


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

    def __init__(self, config: SB3Config, task: Task) -> None:
        at_least(1, config, "envs", "texts", "learn_steps", "rollouts", "q_interval")
        above_zero(config, "learning_rate")
        require_package("sb3_contrib", "sb3", "this agent")  # it needs stable_baselines3 itself
        from stable_baselines3.common.vec_env import VecMonitor

        from textgan_env.envs.sb3 import SB3VecEnv, global_seeds_kept, share_weights

        super().__init__(config, task)
        names = ("reward", "rollouts", "q_interval", "transform", "score_precision")
        rewarded = {name: getattr(config, name) for name in names}
        self.envs = self.make_envs(config.envs, rollout_policy=self.policy, **rewarded)
        self.envs.game.reward.check_steps()
        compared = "rank transform" if config.transform == "rank" else "shuffled control"
        require(
            task.end_token is None or not self.envs.game.reward.compares_rows,
            f"the {compared} compares texts at one position, and stepped texts of this task end at different ones: "
            "take another transform, or the random control",
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
        network = {"features_extractor_kwargs": options, "net_arch": []}
        if self.recurrent:
            lstm = {"lstm_hidden_size": sizes["hidden_size"], "n_lstm_layers": sizes["num_layers"]}
            return {**network, **lstm, "features_extractor_class": LastTokenExtractor}
        options |= {"hidden_size": sizes["hidden_size"], "num_layers": sizes["num_layers"]}
        return {**network, "features_extractor_class": TokenExtractor}

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
        own = {name: getattr(self.config, name) for name in ("gae_lambda", "ent_coef", "vf_coef")}
        return {"n_steps": self.steps, **own}

    def _network(self) -> dict[str, Any]:
        """What SB3 makes the networks of: actor and critic read the prefix each by one of their own."""
        return {**super()._network(), "share_features_extractor": False}
