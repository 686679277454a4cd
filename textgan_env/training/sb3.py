"""What the agents that learn by Stable-Baselines3 share: pre-training, the discriminator, and a round of `learn`.

Loads neither torch nor Stable-Baselines3 when it is imported: `--help` of an agent is instant.
"""

import copy
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from textgan_env.utils.errors import MissingDataError, require
from textgan_env.utils.options import CommonConfig, above_zero, at_least

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer

    from textgan_env.discriminators import DiscriminatorModule
    from textgan_env.policies import LSTMPolicy
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Schedule

# What SB3 logs though it follows from the config.
_KNOWN = ("train/n_updates", "train/learning_rate", "train/clip_range", "rollout/exploration_rate")
# Of the finished texts of a collection: our name -> SB3's.
_OF_TEXTS = {"reward": "r", "length": "l"}


@dataclass(frozen=True)
class SB3Config(CommonConfig):
    """Options of every agent that learns by Stable-Baselines3."""

    pretrained: Path | None = None
    """A finished run of agents/mle.py on the same task, whose policy the actor begins as; None: pre-train here."""
    mle_epochs: int = 20
    """Epochs of pre-training; 0: begin from nothing."""
    mle_learning_rate: float = 1e-2
    """Of the actor in pre-training."""
    mle_batch_size: int = 128
    """Texts in a step of pre-training."""
    weight_decay: float = 0.1
    """Of the actor in pre-training (AdamW)."""
    dropout: float = 0.3
    """Of the actor in pre-training; never while it writes or learns from rewards."""
    embed_size: int = 32
    """Of actor and critic."""
    hidden_size: int = 32
    """Of actor and critic."""
    discriminator: Literal["pair", "conv"] = "pair"
    """pair: a small judge of words and near pairs; conv: the published CNN of SeqGAN."""
    d_pretraining: int = 10
    """Rounds of pre-training of D."""
    d_steps: int = 1
    """d-steps in a round; each takes fresh texts of the actor, as many as there are training texts."""
    d_epochs: int = 1
    """Passes over these texts in a d-step."""
    d_batch_size: int = 64
    """Texts of each side in a step of D."""
    rounds: int = 30
    """Rounds of reinforcement learning."""
    learn_steps: int = 10
    """Collections of texts, each with what is learnt from it, in a round."""
    envs: int = 128
    """Texts written side by side."""
    texts: int = 1
    """Texts of T tokens that each of them has room for in a collection."""
    reward: Literal["terminal", "difference", "rollout"] = "terminal"
    """terminal: the whole text's reward at its end; the others complete prefixes at every token, which costs far
    more. rollout is learnt with gamma 0, the others with gamma 1."""
    rollouts: int = 4
    """Completions of each prefix (N), by the actor as it is at that moment; not with reward terminal."""
    transform: Literal["prob", "logit", "log", "minimax", "2p-1", "rank"] = "logit"
    """What the reward makes of D's judgement."""
    control: Literal["constant", "random", "shuffled"] | None = None
    """A reward that knows nothing instead."""
    learning_rate: float = 3e-4
    """Of reinforcement learning."""


class SB3Agent:
    """The actor of an SB3 model is our LSTM policy: MLE warm start, then SB3's `learn` and refits of D in turn.

    Each `learn` begins with new texts and a seed of its own, so a run that goes on from a checkpoint does what the
    uninterrupted run does. SB3 draws from the global generators; they are given back as they were.

    Args:
        config: Sizes, schedule, reward.
        task: What to write.

    Raises:
        InputError: If a number is out of its range, or the pre-trained policy is of another task or kind.
        MissingDataError: If Stable-Baselines3 is not installed.
    """

    config: SB3Config
    recurrent = False
    """Whether the model has a memory of its own and is shown the last token only."""
    masked = False
    """Whether the model asks the environment which tokens may be written."""

    def __init__(self, config: SB3Config, task: "Task") -> None:
        _check(config)
        from stable_baselines3.common.vec_env import VecMonitor
        from torch.optim import AdamW

        from textgan_env.discriminators import make_discriminator
        from textgan_env.envs import TextGANVectorEnv
        from textgan_env.envs.sb3 import SB3VecEnv, global_seeds_kept, never_write, share_weights
        from textgan_env.ops.sampling import derived_seed

        self.config = config
        self.task = task
        self.finished = "policy"
        self.policy = self._first_policy().to(config.device)
        self.discriminator: DiscriminatorModule = make_discriminator(
            config.discriminator,
            vocab_size=task.vocab_size,
            max_length=task.max_length,
            seed=derived_seed(config.seed, "discriminator"),
        ).to(config.device)
        self.d_optimizer = self.discriminator.make_optimizer()
        self.envs = TextGANVectorEnv(
            config.envs,
            task,
            reward=config.reward,
            rollouts=config.rollouts,
            transform=config.transform,
            control=config.control,
            discriminator=self._judge() if config.control not in ("constant", "random") else None,
            rollout_policy=self.policy,
        )
        with global_seeds_kept():
            self.model: Any = self.make_model(
                VecMonitor(SB3VecEnv(self.envs)),
                learning_rate=config.learning_rate,
                gamma=0.0 if config.reward == "rollout" else 1.0,
                policy_kwargs=self._network(),
                stats_window_size=config.envs * config.texts,
                seed=derived_seed(config.seed, "network") % 2**31,
                device=config.device or "cpu",
            )
        share_weights(self.model, self.policy)
        if not self.masked:
            never_write(self.model, task.forbidden)
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        self.mle_optimizer = AdamW(trained, lr=config.mle_learning_rate, weight_decay=config.weight_decay)

    def make_model(self, envs: Any, **common: Any) -> Any:
        """The SB3 model on a ``VecEnv``, given the arguments that every SB3 model takes."""
        raise NotImplementedError

    @property
    def steps(self) -> int:
        """Tokens that each text has room for in a collection."""
        return self.task.max_length * self.config.texts

    def _first_policy(self) -> "LSTMPolicy":
        from textgan_env.ops.sampling import derived_seed
        from textgan_env.policies import LSTMPolicy

        config, task = self.config, self.task
        if config.pretrained is not None:
            from textgan_env.runs.loading import pretrained_policy

            policy = pretrained_policy(config.pretrained, task)
            require(
                isinstance(policy, LSTMPolicy),
                f"the pre-trained run '{config.pretrained}' must hold an lstm policy, found {policy.kind}",
            )
            return policy  # type: ignore[return-value]
        return LSTMPolicy(
            task.vocab_size,
            start_token=task.start_token,
            embed_size=config.embed_size,
            hidden_size=config.hidden_size,
            dropout=config.dropout,
            forbidden=task.forbidden,
            seed=derived_seed(config.seed, "policy"),
        )

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

    def schedule(self) -> "Schedule":
        """Pre-train the actor, pre-train D, then `learn` and d-steps in turn."""
        from textgan_env.training.schedule import Phase, Schedule

        config = self.config
        judged = self.envs.game.judged
        steps = (("learn", config.learn_steps), *((("d_step", config.d_steps),) if judged else ()))
        return Schedule(
            (
                Phase("mle", config.mle_epochs if config.pretrained is None else 0, (("mle_epoch", 1),)),
                Phase("pretrain_d", config.d_pretraining if judged else 0, (("d_step", 1),)),
                Phase("rl", config.rounds, steps),
            )
        )

    def modules(self) -> "Mapping[str, nn.Module]":
        """The policy, all networks of the model (the policy is one of them), and D."""
        return {"policy": self.policy, "networks": self.model.policy, "discriminator": self.discriminator}

    def optimizers(self) -> "Mapping[str, Optimizer]":
        """One for each way of learning."""
        return {"mle": self.mle_optimizer, "rl": self.model.policy.optimizer, "d": self.d_optimizer}

    def curves(self) -> dict[str, dict[str, str]]:
        """NLLs, the reward of a text, and how well D tells real from written on texts that neither has seen."""
        return {
            "NLL (nats per token)": {"nll_valid": "NLL-valid", "nll_oracle": "NLL-oracle"},
            "reward": {"reward": "mean of a text"},
            "D on unseen texts": {"d_auc": "AUC", "d_accuracy": "accuracy"},
        }

    def mle_epoch(self, generator: "torch.Generator") -> dict[str, float]:
        """One epoch of pre-training (behaviour cloning of the training texts)."""
        from textgan_env.training.mle import mle_epoch

        config = self.config
        loss = mle_epoch(
            self.policy,
            self.mle_optimizer,
            self.task,
            batch_size=config.mle_batch_size,
            max_grad_norm=5.0,
            generator=generator,
        )
        return {"loss": loss}

    def learn(self, generator: "torch.Generator") -> dict[str, float]:
        """Let SB3 write one collection of texts and learn from it."""
        from textgan_env.envs.sb3 import global_seeds_kept
        from textgan_env.ops.sampling import draw_seed

        if self.envs.game.judged:
            self.envs.game.queue_discriminator(self._judge())
        tokens = self.config.envs * self.steps
        with global_seeds_kept():
            self.model.set_random_seed(draw_seed(generator) % 2**31)
            self.model.learn(tokens, log_interval=None)
        told = {name: float(value) for name, value in self.model.logger.name_to_value.items() if name not in _KNOWN}
        texts = self.model.ep_info_buffer
        return told | {name: sum(text[key] for text in texts) / len(texts) for name, key in _OF_TEXTS.items()}

    def d_step(self, generator: "torch.Generator") -> dict[str, float]:
        """Refit D on fresh texts of the actor, and ask what it makes of texts that neither of them has seen."""
        from textgan_env.training.discriminator import refit_discriminator

        return refit_discriminator(
            self.discriminator,
            self.d_optimizer,
            self.policy,
            self.task,
            batch_size=self.config.d_batch_size,
            epochs=self.config.d_epochs,
            generator=generator,
        )

    def _judge(self) -> "DiscriminatorModule":
        """D as it is now: what judges is never trained any more."""
        return copy.deepcopy(self.discriminator).eval().requires_grad_(False)


@dataclass(frozen=True)
class ActorCriticConfig(SB3Config):
    """Options of every agent whose SB3 model has a critic."""

    gae_lambda: float = 0.95
    """Of generalised advantage estimation: 1 trusts the rewards, 0 the critic."""
    ent_coef: float = 0.0
    """Weight of the policy's entropy (nats)."""
    vf_coef: float = 0.5
    """Weight of the critic's loss."""


class ActorCriticAgent(SB3Agent):
    """`SB3Agent` with a critic, which reads the prefix by an embedding and an LSTM of its own.

    Args:
        config: Sizes, schedule, reward.
        task: What to write.

    Raises:
        InputError: If a number is out of its range, or as `SB3Agent`.
        MissingDataError: If Stable-Baselines3 is not installed.
    """

    config: ActorCriticConfig

    def __init__(self, config: ActorCriticConfig, task: "Task") -> None:
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
        return {**super()._network(), "share_features_extractor": False}


def _check(config: SB3Config) -> None:
    at_least(1, config, "envs", "texts", "learn_steps", "mle_batch_size", "d_batch_size", "d_epochs")
    at_least(0, config, "d_steps", "weight_decay")
    above_zero(config, "learning_rate", "mle_learning_rate")
    for package in ("stable_baselines3", "sb3_contrib"):
        if importlib.util.find_spec(package) is None:
            raise MissingDataError(f"this agent needs the package {package}: pip install 'textgan-env[sb3]'")
