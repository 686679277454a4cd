"""SeqGAN: policy gradient on a discriminator's judgement of Monte-Carlo completions.

Algorithm 1 of Yu et al. 2017: pre-train G by maximum likelihood, pre-train D against G, then alternate g-steps
(REINFORCE with Q from completions) and d-steps (refit D on fresh texts of G). Presets:

  fast    a small judge that generalises, its logit as reward, KL to the pre-trained policy, baseline (the default)
  paper   the published code: CNN judge, probability as reward, no baseline; hours a run on CPU
  smoke   seconds, to see that everything runs

--control constant, random or shuffled replaces the reward by one that knows nothing of the text. What such a run
reaches, the discriminator had no part in.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textgan_env.errors import friendly_errors, require
from textgan_env.options import CommonConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from textgan_env.discriminators import DiscriminatorModule
    from textgan_env.envs import EpisodeBatch
    from textgan_env.policies import PolicyModule
    from textgan_env.tasks import Task
    from textgan_env.training import Schedule


@dataclass(frozen=True)
class SeqGANConfig(CommonConfig):
    """Train a policy by SeqGAN."""

    pretrained: Path | None = None
    """A finished run of agents/mle.py on the same task, whose policy G begins as; None: pre-train here."""
    mle_epochs: int = 20
    """Epochs of pre-training."""
    mle_learning_rate: float = 1e-2
    """Of G in pre-training."""
    weight_decay: float = 0.1
    """Of G in pre-training (AdamW)."""
    dropout: float = 0.3
    """Of G in pre-training; never while it writes or learns from rewards."""
    embed_size: int = 32
    """Of G."""
    hidden_size: int = 32
    """Of G."""
    discriminator: Literal["pair", "conv"] = "pair"
    """pair: a small judge of words and near pairs; conv: the published CNN."""
    d_pretraining: int = 10
    """Rounds of pre-training of D."""
    d_steps: int = 1
    """d-steps in an adversarial round; each takes fresh texts of G, as many as there are training texts."""
    d_epochs: int = 1
    """Passes over these texts in a d-step (k)."""
    d_batch_size: int = 64
    """Texts of each side in a step of D."""
    rounds: int = 30
    """Adversarial rounds."""
    g_steps: int = 10
    """g-steps in an adversarial round."""
    batch_size: int = 128
    """Texts in a g-step (B); also in a step of pre-training."""
    learning_rate: float = 2e-3
    """Of G in g-steps (Adam)."""
    clip_norm: float = 5.0
    """Largest norm of G's gradient."""
    rollouts: int = 4
    """Completions of each prefix (N); 0: no completions, each token gets the whole text's reward."""
    transform: Literal["prob", "logit", "log", "minimax", "2p-1", "rank"] = "logit"
    """What the reward makes of D's judgement."""
    control: Literal["constant", "random", "shuffled"] | None = None
    """A reward that knows nothing instead."""
    baseline: Literal["none", "position", "leave-one-out"] = "leave-one-out"
    """What is taken off the credit: nothing, the batch's mean at the position, or the mean of the other texts there."""
    kl: float = 1.0
    """Weight of the KL divergence to the pre-trained policy, reward units per nat."""
    rollout_lag: float = 0.0
    """Share of old weights that the policy which completes prefixes keeps at each g-step; 0: the current policy."""


def fast(task: str) -> SeqGANConfig:
    """Minutes on two cores."""
    return SeqGANConfig(preset="fast", task=task, select="last")


def paper(task: str) -> SeqGANConfig:
    """The published code's sizes, schedule and rates; its rollout policy is the current one (its lag is dead code)."""
    return SeqGANConfig(
        preset="paper",
        task=task,
        select="last",
        batch_size=64,
        mle_epochs=120,
        weight_decay=0.0,
        dropout=0.0,
        discriminator="conv",
        d_pretraining=50,
        d_steps=5,
        d_epochs=3,
        d_batch_size=32,
        rounds=200,
        g_steps=1,
        learning_rate=1e-2,
        rollouts=16,
        transform="prob",
        baseline="none",
        kl=0.0,
    )


def smoke(task: str) -> SeqGANConfig:
    """As small as it can be."""
    return SeqGANConfig(
        preset="smoke",
        task=task,
        select="last",
        mle_epochs=1,
        embed_size=8,
        hidden_size=8,
        d_pretraining=1,
        rounds=2,
        g_steps=1,
        batch_size=16,
        rollouts=2,
        d_batch_size=256,
    )


PRESETS: dict[str, Callable[[str], SeqGANConfig]] = {"fast": fast, "paper": paper, "smoke": smoke}


class SeqGAN:
    """G learns from credit that D gives to its texts, D from telling them from real ones.

    A g-step maximises, by REINFORCE, the mean over B texts of ``sum_t (credit_t - baseline_t) log G(y_t | s_t)``, where
    credit_t is Q(s_t, y_t) less the KL still to come (Yu et al. 2017, eq. 6 and 7; KL and baseline are ours). The
    published code sums over texts where this takes the mean; Adam does not care, the clipping of the gradient does.

    Args:
        config: Sizes, schedule, reward.
        task: What to write.

    Raises:
        InputError: If a number is out of its range, or the pre-trained policy is of another task.
    """

    def __init__(self, config: SeqGANConfig, task: "Task") -> None:
        from torch.optim import Adam, AdamW

        from textgan_env.discriminators import make_discriminator
        from textgan_env.envs import TextGANVectorEnv
        from textgan_env.policies import LaggedCopy
        from textgan_env.sampling import derived_seed

        for name in ("batch_size", "d_batch_size", "d_epochs"):
            require(getattr(config, name) >= 1, f"{name} must be at least 1, found {getattr(config, name)}")
        for name in ("rollouts", "d_steps", "g_steps"):
            require(getattr(config, name) >= 0, f"{name} must be at least 0, found {getattr(config, name)}")
        for name in ("learning_rate", "mle_learning_rate", "clip_norm"):
            require(getattr(config, name) > 0, f"{name} must be above 0, found {getattr(config, name)}")
        require(config.kl >= 0, f"kl must be at least 0, found {config.kl}")
        require(
            config.baseline == "none" or config.batch_size >= 2,
            f"a baseline compares texts: batch_size must be at least 2, found {config.batch_size}",
        )
        self.config = config
        self.task = task
        self.finished = "policy"
        self.policy = self._first_policy().to(config.device)
        # G as it was after pre-training: what the KL is measured from.
        self.reference = copy.deepcopy(self.policy).eval().requires_grad_(False)
        self.lagged = LaggedCopy(self.policy, config.rollout_lag) if config.rollout_lag else None
        self.discriminator: DiscriminatorModule = make_discriminator(
            config.discriminator,
            vocab_size=task.vocab_size,
            max_length=task.max_length,
            seed=derived_seed(config.seed, "discriminator"),
        ).to(config.device)
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        self.mle_optimizer = AdamW(trained, lr=config.mle_learning_rate, weight_decay=config.weight_decay)
        self.g_optimizer = Adam(trained, lr=config.learning_rate)
        self.d_optimizer = self.discriminator.make_optimizer()
        self.envs = TextGANVectorEnv(
            config.batch_size,
            task,
            reward="rollout" if config.rollouts else "terminal",
            rollouts=max(1, config.rollouts),
            transform=config.transform,
            control=config.control,
            discriminator=self._judge() if config.control not in ("constant", "random") else None,
            rollout_policy=None if self.lagged is None else self.lagged.policy,
        )

    def _first_policy(self) -> "PolicyModule":
        from textgan_env.policies import LSTMPolicy
        from textgan_env.sampling import derived_seed

        config, task = self.config, self.task
        if config.pretrained is not None:
            from textgan_env.training import pretrained_policy

            return pretrained_policy(config.pretrained, task)
        return LSTMPolicy(
            task.vocab_size,
            start_token=task.start_token,
            embed_size=config.embed_size,
            hidden_size=config.hidden_size,
            dropout=config.dropout,
            forbidden=task.forbidden,
            seed=derived_seed(config.seed, "policy"),
        )

    def schedule(self) -> "Schedule":
        """Pre-train G, pre-train D, then g-steps and d-steps in turn."""
        from textgan_env.training import Phase, Schedule

        config = self.config
        judged = config.control not in ("constant", "random")
        steps = (("g_step", config.g_steps), *((("d_step", config.d_steps),) if judged else ()))
        return Schedule(
            (
                Phase("mle", config.mle_epochs if config.pretrained is None else 0, (("mle_epoch", 1),)),
                Phase("pretrain_d", config.d_pretraining if judged else 0, (("d_step", 1),)),
                Phase("adversarial", config.rounds, steps),
            )
        )

    def modules(self) -> "Mapping[str, nn.Module]":
        """G, the pre-trained G, D, and the G that completes prefixes where that is another one."""
        own = {"policy": self.policy, "reference": self.reference, "discriminator": self.discriminator}
        return own if self.lagged is None else {**own, "lagged": self.lagged.policy}

    def optimizers(self) -> "Mapping[str, Optimizer]":
        """One for each way of learning."""
        return {"mle": self.mle_optimizer, "g": self.g_optimizer, "d": self.d_optimizer}

    def curves(self) -> dict[str, dict[str, str]]:
        """NLLs, the reward, and how well D tells real from written on texts that neither it nor G has seen."""
        return {
            "NLL (nats per token)": {"nll_valid": "NLL-valid", "nll_oracle": "NLL-oracle"},
            "credit": {"credit": "mean", "credit_spread": "spread over texts"},
            "D on unseen texts": {"d_auc": "AUC", "d_accuracy": "accuracy"},
        }

    def mle_epoch(self, generator: "torch.Generator") -> dict[str, float]:
        """One epoch of pre-training; afterwards the reference is G as it then is."""
        from textgan_env.training import mle_epoch

        loss = mle_epoch(
            self.policy,
            self.mle_optimizer,
            self.task,
            batch_size=self.config.batch_size,
            clip_norm=self.config.clip_norm,
            generator=generator,
        )
        self.reference.load_state_dict(self.policy.state_dict())
        if self.lagged is not None:
            self.lagged.policy.load_state_dict(self.policy.state_dict())
        return {"loss": loss}

    def g_step(self, generator: "torch.Generator") -> dict[str, float]:
        """Write B texts, take their credit, and make those with more of it than the others more probable."""
        import torch

        from textgan_env.losses import masked_mean, policy_gradient_loss
        from textgan_env.sampling import fold

        self.policy.eval()
        if self.envs.game.judged:
            self.envs.game.queue_discriminator(self._judge())
        self.envs.reset(seed=fold(generator) % 2**31)
        batch = self.envs.collect(self.policy)
        credit_BT, mask_BT = self._credit(batch), batch.mask_BT
        baseline_BT = baseline(self.config.baseline, credit_BT, mask_BT)
        logp_BT = self.policy.log_prob(batch.tokens_BT, mask_BT)
        loss = policy_gradient_loss(logp_BT, credit_BT, mask_BT, baseline_BT)
        self.g_optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.clip_norm)
        require(bool(torch.isfinite(norm)), f"the gradient of G is {float(norm)}: try a smaller --learning-rate")
        self.g_optimizer.step()
        if self.lagged is not None:
            self.lagged.update(self.policy)
        centred_BT = credit_BT - baseline("position", credit_BT, mask_BT)
        return {
            "credit": float(masked_mean(batch.credit_BT, mask_BT)),
            "credit_spread": float(masked_mean(centred_BT**2, mask_BT).sqrt()),
            "gradient_norm": float(norm),
            "unique": len({tuple(tokens) for tokens in batch.tokens_BT.tolist()}) / len(mask_BT),
        }

    def d_step(self, generator: "torch.Generator") -> dict[str, float]:
        """Refit D on fresh texts of G, and ask what it makes of texts that neither of them has seen."""
        from textgan_env.training import refit_discriminator

        return refit_discriminator(
            self.discriminator,
            self.d_optimizer,
            self.policy,
            self.task,
            batch_size=self.config.d_batch_size,
            epochs=self.config.d_epochs,
            generator=generator,
        )

    def _credit(self, batch: "EpisodeBatch") -> "Tensor":
        """The environment's credit, and the KL to the pre-trained policy that is still to come."""
        from textgan_env.rewards import KLCredit

        if not self.config.kl:
            return batch.credit_BT
        source = KLCredit(self.policy, self.reference, self.config.kl)
        return batch.credit_BT + source.credit(batch.texts, batch.mask_BT)

    def _judge(self) -> "DiscriminatorModule":
        """D as it is now: what judges is never trained any more."""
        return copy.deepcopy(self.discriminator).eval().requires_grad_(False)


def baseline(kind: str, credit_BT: "Tensor", mask_BT: "Tensor") -> "Tensor":
    """What is taken off the credit of each token: a number that does not depend on that token.

    Args:
        kind: ``none``: 0. ``position``: the mean over the texts that reach the position (this one included, which
            shrinks the gradient by 1 / texts). ``leave-one-out``: the mean over the others; 0 where there is none.
        credit_BT: float.
        mask_BT: bool; the tokens written.

    Returns:
        float (B, T).
    """
    import torch

    if kind == "none":
        return torch.zeros_like(credit_BT)
    total_T, count_T = (credit_BT * mask_BT).sum(0), mask_BT.sum(0)
    if kind == "position":
        return (total_T / count_T.clamp(min=1)).expand_as(credit_BT)
    return (total_T - credit_BT * mask_BT) / (count_T - mask_BT.long()).clamp(min=1)


def main(args: list[str] | None = None) -> None:
    """The command."""
    with friendly_errors():
        from textgan_env.options import parse

        config = parse(PRESETS, __doc__ or "", args)
        from textgan_env.training import launch

        launch(config, SeqGAN)


if __name__ == "__main__":
    main()
