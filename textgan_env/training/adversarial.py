"""What every agent shares that learns against a discriminator: both warm starts, the d-step, and how a g-step begins.

A subclass says what G is (`new_policy`) and what it learns from a batch (`g_step`). Loads no torch when imported.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from textgan_env.utils.errors import friendly_errors, require
from textgan_env.utils.options import Config, SharedConfig, above_zero, at_least, parse

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from textgan_env.discriminators import DiscriminatorModule, ReplayedTexts
    from textgan_env.envs import EpisodeBatch, TextGANVectorEnv
    from textgan_env.policies import PolicyModule
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Phase


@dataclass(frozen=True)
class AdversarialConfig(SharedConfig):
    """Options of every agent that learns against a discriminator."""

    pretrained: Path | None = None
    """A finished run on the same task whose policy G begins as; None: pre-train here."""
    mle_batch_size: int = 128
    """Real texts in a step of maximum likelihood."""
    mle_learning_rate: float = 1e-2
    """Of G in maximum likelihood."""
    weight_decay: float = 0.1
    """Of G in maximum likelihood (AdamW)."""
    dropout: float = 0.3
    """Of G in maximum likelihood; never while it generates or learns from rewards."""
    ema_decay: float = 0.998
    """Decay of the exponential moving average of G's weights in maximum likelihood, which G goes on with; 0: none."""
    embed_size: int | None = 32
    """Of G."""
    hidden_size: int | None = 32
    """Of G."""
    discriminator: Literal["pair", "conv", "bleu"] = "pair"
    """pair: a small judge of words and near pairs; conv: the published CNN; bleu: no D, but BLEU-4 against the training
    texts, which never learns (PG-BLEU)."""
    d_steps: int = 1
    """d-steps in an adversarial round; each takes fresh texts of G, as many as there are training texts."""
    d_epochs: int = 1
    """Passes over these texts in a d-step (k)."""
    d_batch_size: int = 64
    """Texts of each side in a step of D."""
    rounds: int = 20
    """Adversarial rounds."""
    g_steps: int = 5
    """g-steps in an adversarial round."""
    batch_size: int = 128
    """Texts in a g-step (B)."""
    learning_rate: float | None = 2e-3
    """Of G in g-steps (Adam)."""
    max_grad_norm: float = 5.0
    """Largest norm of a gradient of G."""
    rollouts: int = 4
    """Completions of each prefix (N); 0: no completions, each token gets the whole text's reward."""
    transform: Literal["prob", "logit", "log", "minimax", "2p-1", "rank"] = "logit"
    """What the reward makes of D's judgement."""
    baseline: Literal["none", "position", "leave-one-out"] = "leave-one-out"
    """What is subtracted from the reward: nothing, the batch's mean at the position, or the mean of the other texts."""
    control: Literal["constant", "random", "shuffled", "untrained"] | None = None
    """A reward that knows nothing instead."""


class AdversarialAgent:
    """G learns from what D makes of its texts, D to tell them from real ones; G begins with maximum likelihood.

    Args:
        config: Sizes, schedule, reward.
        task: What to write.

    Raises:
        InputError: If a number is out of its range, or the pre-trained policy is of another task.
    """

    config: Any
    policy: Any
    envs: TextGANVectorEnv
    finished = "policy"

    def __init__(self, config: AdversarialConfig, task: Task) -> None:
        from torch.optim import AdamW

        from textgan_env.policies import LaggedCopy

        _check(config)
        self.config, self.task = config, task
        self.policy = self.first_policy().to(config.device)
        self.discriminator = self.new_discriminator()
        self.d_optimizer = None if self.discriminator is None else self.new_d_optimizer(self.discriminator)
        self.replay: ReplayedTexts | None = None
        self.learners = self.averaged()
        self.average = LaggedCopy(self.learners, config.ema_decay)
        self.mle_optimizer = AdamW(
            trained(self.taught()), lr=config.mle_learning_rate, weight_decay=config.weight_decay
        )

    # What a subclass says.
    def new_policy(self) -> PolicyModule:
        """G as it is drawn."""
        raise NotImplementedError

    def g_step(self, generator: torch.Generator) -> dict[str, float]:
        """Generate B texts, and learn from their credit."""
        raise NotImplementedError

    def taught(self) -> nn.Module:
        """What maximum likelihood teaches."""
        return self.policy  # type: ignore[no-any-return]

    def averaged(self) -> nn.Module:
        """What is averaged over steps of maximum likelihood."""
        return self.policy  # type: ignore[no-any-return]

    def first_policy(self) -> PolicyModule:
        """G as it begins: that of a run, or a new one."""
        from textgan_env.runs.loading import pretrained_policy

        pretrained = self.config.pretrained
        return self.new_policy() if pretrained is None else pretrained_policy(pretrained, self.task)

    def new_discriminator(self, **options: Any) -> DiscriminatorModule | None:
        """D as it is drawn."""
        from textgan_env.discriminators import make_discriminator

        task, seed = self.task, self.seed("discriminator")
        kind, sizes = self.config.discriminator, {"vocab_size": task.vocab_size, "max_length": task.max_length}
        return make_discriminator(kind, **sizes, seed=seed, **options).to(self.config.device)

    def new_d_optimizer(self, discriminator: DiscriminatorModule) -> Optimizer:
        """Of D, at its own rate."""
        return discriminator.make_optimizer()

    def new_lstm(self, **options: Any) -> PolicyModule:
        """An LSTM of the config's sizes."""
        from textgan_env.policies import LSTMPolicy

        config, task = self.config, self.task
        sizes = {name: getattr(config, name) for name in ("embed_size", "hidden_size", "dropout")}
        own = {"start_token": task.start_token, "forbidden": task.forbidden, "seed": self.seed("policy")}
        return LSTMPolicy(task.vocab_size, **sizes, **own, **options)

    # What they share.
    def seed(self, name: str) -> int:
        """Of the weights of a network."""
        from textgan_env.ops.sampling import derived_seed

        return derived_seed(self.config.seed, name)

    def make_envs(self, **options: Any) -> TextGANVectorEnv:
        """The environment that judges; ``untrained`` is a D that never learns."""
        from textgan_env.envs import TextGANVectorEnv

        config = self.config
        control = None if config.control == "untrained" else config.control
        return TextGANVectorEnv(config.batch_size, self.task, transform=config.transform, control=control, **options)

    def judge(self) -> Any:
        """D as it is now: what judges is never trained any more."""
        return copy.deepcopy(self.discriminator).eval().requires_grad_(False)  # type: ignore[union-attr]

    def warm_start(self, epochs: int, last_step: str) -> Phase:
        """The phase of maximum likelihood, left out where a run was given."""
        from textgan_env.training.schedule import Phase

        return Phase("mle", 0 if self.config.pretrained else epochs, (("mle_epoch", 1),), last_step=last_step)

    def modules(self) -> Mapping[str, nn.Module]:
        """G, D, the average of G, and what negatives are kept."""
        average = self.average.policy if self.config.ema_decay else None
        parts = {"policy": self.policy, "discriminator": self.discriminator, "average": average}
        return {name: part for name, part in {**parts, "negatives": self.replay}.items() if part is not None}

    def curves(self) -> dict[str, dict[str, str]]:
        """NLLs, the reward, and how well D does on texts that neither it nor G has seen."""
        return {
            "NLL (nats per token)": {"nll_valid": "NLL-valid", "nll_oracle": "NLL-oracle"},
            "credit": {"credit": "mean", "credit_spread": "spread over texts"},
            "D on unseen texts": {"d_auc": "AUC", "d_accuracy": "accuracy"},
        }

    def mle_epoch(self, generator: torch.Generator) -> dict[str, float]:
        """One epoch of maximum likelihood."""
        from textgan_env.training.mle import mle_epoch, update_average

        loss = mle_epoch(
            self.policy,
            self.mle_optimizer,
            self.task,
            batch_size=self.config.mle_batch_size,
            max_grad_norm=self.config.max_grad_norm,
            generator=generator,
            after_step=lambda: update_average(self.average, self.learners, self.mle_optimizer),
        )
        return {"loss": loss}

    def mle_step(self, generator: torch.Generator) -> dict[str, float]:
        """One step of maximum likelihood on some real texts."""
        import torch

        from textgan_env.ops.sampling import draw_seed, seeded
        from textgan_env.training.mle import mle_step

        real_BT = self.task.split("train").tokens_BT
        chosen_B = torch.randint(len(real_BT), (self.config.mle_batch_size,), generator=generator)
        self.policy.train()
        with seeded(draw_seed(generator)):
            loss = mle_step(self.policy, self.mle_optimizer, self.task, real_BT[chosen_B], self.config.max_grad_norm)
        return {"loss": float(loss)}

    def take_average(self, _: torch.Generator) -> dict[str, float]:
        """Go on with the averaged weights."""
        if self.config.ema_decay:
            self.learners.load_state_dict(self.average.policy.state_dict())
        return {}

    def begin_texts(self, generator: torch.Generator) -> None:
        """Ready to collect: G in eval mode, the environment seeded."""
        from textgan_env.ops.sampling import draw_seed

        self.policy.eval()
        self.envs.reset(seed=draw_seed(generator) % 2**31)

    def step(self, optimizer: Optimizer) -> float:
        """One step along the gradient that is there; returns its norm."""
        import torch

        norm = torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self.config.max_grad_norm)
        require(bool(torch.isfinite(norm)), f"the gradient of G is {float(norm)}: try a smaller --learning-rate")
        optimizer.step()
        return float(norm)

    def refit(self, generator: torch.Generator, writer: PolicyModule, slower: float = 1.0) -> dict[str, float]:
        """Refit D on fresh texts of G at a part of its rate, and ask it about texts that neither of them has seen."""
        from textgan_env.training.discriminator import refit_discriminator

        assert self.discriminator is not None
        assert self.d_optimizer is not None
        for group in self.d_optimizer.param_groups:
            group["lr"] = slower * self.d_optimizer.defaults["lr"]
        return refit_discriminator(
            self.discriminator,
            self.d_optimizer,
            writer,
            self.task,
            batch_size=self.config.d_batch_size,
            epochs=self.config.d_epochs,
            generator=generator,
            replay=self.replay,
        )


class PolicyGradientAgent(AdversarialAgent):
    """REINFORCE on an advantage: a subclass says what each token's is, and the g-step is here."""

    def __init__(self, config: AdversarialConfig, task: Task) -> None:
        from torch.optim import Adam

        super().__init__(config, task)
        self.g_optimizer = Adam(trained(self.policy), lr=config.learning_rate or 2e-3)

    def advantage(self, batch: EpisodeBatch) -> Tensor:
        """What each token's log-probability is weighed with, float (B, T)."""
        raise NotImplementedError

    def writer(self) -> PolicyModule:
        """G as it generates while it learns."""
        return self.policy  # type: ignore[no-any-return]

    def after_g_step(self) -> None:
        """What follows G."""

    def optimizers(self) -> Mapping[str, Optimizer]:
        """One for each way of learning."""
        of_d = {} if self.d_optimizer is None else {"d": self.d_optimizer}
        return {"mle": self.mle_optimizer, "g": self.g_optimizer, **of_d}

    def curves(self) -> dict[str, dict[str, str]]:
        """What every agent shows, and how much of the gradient is signal."""
        return {**super().curves(), "gradient": {"gradient_snr": "signal to noise"}}

    def d_step(self, generator: torch.Generator) -> dict[str, float]:
        """Refit D on fresh texts of G."""
        return self.refit(generator, self.writer())

    def g_step(self, generator: torch.Generator) -> dict[str, float]:
        """Generate B texts, and make those with more advantage than the others more probable."""
        if self.envs.game.judged:
            self.envs.game.queue_discriminator(self.judge())
        self.begin_texts(generator)
        batch = self.envs.collect(self.writer())
        snr = self.gradient(batch, self.advantage(batch))
        norm = self.step(self.g_optimizer)
        self.after_g_step()
        return {**credit_numbers(batch.credit_BT, batch.mask_BT), "gradient_norm": norm, "gradient_snr": snr}

    def gradient(self, batch: EpisodeBatch, advantage_BT: Tensor) -> float:
        """Leave the gradient of the batch in G; returns its signal-to-noise ratio, from the gradients of two halves."""
        import torch

        from textgan_env.ops.losses import gradient_snr, policy_gradient_loss
        from textgan_env.ops.parallel import backward
        from textgan_env.rewards import for_texts

        def share_of(half_b: Tensor, rows: slice) -> tuple[Tensor]:
            rows_b = half_b[rows]
            tokens_bT, mask_bT = batch.tokens_BT[rows_b], batch.mask_BT[rows_b]
            policy = for_texts(self.writer(), batch.keys.rows(rows_b.to(batch.keys.seed_B.device)))
            loss = policy_gradient_loss(policy.log_prob(tokens_bT, mask_bT), advantage_BT[rows_b], mask_bT)
            return (loss * len(rows_b) / len(advantage_BT),)

        sums, weights = [], trained(self.policy)
        self.g_optimizer.zero_grad()
        for half_b in torch.arange(len(advantage_BT), device=advantage_BT.device).chunk(2):
            backward(weights, len(half_b), partial(share_of, half_b))
            sums.append(torch.cat([part.grad.flatten() for part in weights if part.grad is not None]))
        return gradient_snr(sums[0], sums[-1] - sums[0])


def credit_numbers(credit_BT: Tensor, mask_BT: Tensor) -> dict[str, float]:
    """Mean of the credit, and its spread over texts at a position."""
    from textgan_env.ops.losses import baseline, masked_mean

    centred_BT = credit_BT - baseline("position", credit_BT, mask_BT)
    spread = masked_mean(centred_BT**2, mask_BT).sqrt()
    return {"credit": float(masked_mean(credit_BT, mask_BT)), "credit_spread": float(spread)}


def trained(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that learn."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def run_command(
    agent: Callable[[Any, Task], Any],
    presets: Mapping[str, Callable[[str], Config]],
    description: str | None,
    args: list[str] | None,
) -> None:
    """The command of an agent."""
    with friendly_errors():
        config = parse(presets, description or "", args)
        from textgan_env.training.launch import launch

        launch(config, agent)


def _check(config: AdversarialConfig) -> None:
    at_least(1, config, "batch_size", "mle_batch_size", "d_batch_size", "d_epochs", "embed_size", "hidden_size")
    at_least(0, config, "rollouts", "d_steps", "g_steps", "weight_decay")
    above_zero(config, "learning_rate", "mle_learning_rate", "max_grad_norm")
    alone = config.baseline != "none" and config.batch_size < 2
    require(not alone, f"a baseline compares texts: batch_size must be at least 2, found {config.batch_size}")
