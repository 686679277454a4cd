"""SeqGAN: policy gradient on a discriminator's judgement of Monte-Carlo completions.

Algorithm 1 of Yu et al. 2017: pre-train G by maximum likelihood, pre-train D against G, then alternate g-steps
(REINFORCE with Q from completions) and d-steps (refit D on fresh texts of G). Presets:

  fast    a small judge that generalises, its logit as reward, KL to the pre-trained policy, baseline (the default)
  tuned   the same from the best maximum likelihood of this size, with many texts a step and more of them
  paper   the published code: CNN judge, probability as reward, no baseline; hours a run on CPU
  smoke   seconds, to see that everything runs

--control constant, random or shuffled replaces the reward by one that knows nothing of the text; untrained asks a
discriminator that has learnt nothing. What such a run reaches, the discriminator had no part in.
--discriminator bleu is the paper's baseline PG-BLEU: the same with BLEU as the reward, and no discriminator.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textgan_env.errors import friendly_errors, require
from textgan_env.options import ORACLES, SharedConfig, above_zero, at_least

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from textgan_env.discriminators import Discriminator, DiscriminatorModule
    from textgan_env.envs import EpisodeBatch
    from textgan_env.policies import PolicyModule
    from textgan_env.tasks import Task
    from textgan_env.training import Schedule


@dataclass(frozen=True)
class SeqGANConfig(SharedConfig):
    """Train a policy by SeqGAN."""

    pretrained: Path | None = None
    """A finished run of agents/mle.py on the same task, whose policy G begins as; None: pre-train here."""
    mle_epochs: int = 20
    """Epochs of pre-training."""
    mle_batch_size: int = 128
    """Real texts in a step of maximum likelihood."""
    mle_learning_rate: float = 1e-2
    """Of G in pre-training."""
    weight_decay: float = 0.1
    """Of G in pre-training (AdamW)."""
    dropout: float = 0.3
    """Of G while it learns from real texts; never while it writes or learns from rewards."""
    average: float = 0.998
    """Share of the old that each step of pre-training keeps in the averaged weights, which G goes on with; 0: none."""
    embed_size: int = 32
    """Of G."""
    hidden_size: int = 32
    """Of G."""
    initial_state: Literal["zeros", "random"] = "zeros"
    """Of G's LSTM. random: another for each text, kept by its completions; NLLs are then upper bounds."""
    discriminator: Literal["pair", "conv", "bleu"] = "pair"
    """pair: a small judge of words and near pairs; conv: the published CNN; bleu: no D, but BLEU-4 against the training
    texts, which never learns (PG-BLEU)."""
    d_pretraining: int = 10
    """Rounds of pre-training of D."""
    d_steps: int = 1
    """d-steps in an adversarial round; each takes fresh texts of G, as many as there are training texts."""
    d_epochs: int = 1
    """Passes over these texts in a d-step (k)."""
    d_batch_size: int = 64
    """Texts of each side in a step of D."""
    negatives: Literal["current", "replayed"] = "current"
    """What D learns to tell from real: texts of G as it is, or, replayed, half of them kept from earlier d-steps."""
    rounds: int = 20
    """Adversarial rounds."""
    g_steps: int = 5
    """g-steps in an adversarial round."""
    mle_steps: int = 0
    """Steps of maximum likelihood in an adversarial round."""
    batch_size: int = 128
    """Texts in a g-step (B)."""
    learning_rate: float = 2e-3
    """Of G in g-steps (Adam)."""
    clip_norm: float = 5.0
    """Largest norm of G's gradient."""
    rollouts: int = 4
    """Completions of each prefix (N); 0: no completions, each token gets the whole text's reward."""
    transform: Literal["prob", "logit", "log", "minimax", "2p-1", "rank"] = "logit"
    """What the reward makes of D's judgement."""
    gamma: float = 1.0
    """Discount: a reward counts gamma^k at the token that k others follow."""
    control: Literal["constant", "random", "shuffled", "untrained"] | None = None
    """A reward that knows nothing instead."""
    baseline: Literal["none", "position", "leave-one-out"] = "leave-one-out"
    """What is taken off the credit: nothing, the batch's mean at the position, or the mean of the other texts there."""
    kl: float = 1.0
    """Weight of the KL divergence to the pre-trained policy, reward units per nat."""
    entropy: float = 0.0
    """Weight of the entropy of G's texts, reward units per nat."""
    writing_temperature: float = 1.0
    """G's temperature while it writes for D and learns from rewards; above 1 it explores."""
    rollout_lag: float = 0.0
    """Share of old weights that the policy which completes prefixes keeps at each g-step; 0: the current policy."""


def fast(task: str) -> SeqGANConfig:
    """Minutes on two cores."""
    config = SeqGANConfig(preset="fast", task=task, select="last")
    if task in ORACLES:
        return config
    return replace(config, embed_size=128, hidden_size=128, mle_learning_rate=5e-3)


def tuned(task: str) -> SeqGANConfig:
    """From MLE `tuned`; the whole text's reward of 1,024 texts a g-step says more in a second than completions do."""
    config = replace(fast(task), preset="tuned", mle_epochs=60, mle_batch_size=64)
    config = replace(config, batch_size=1024, rollouts=0, g_steps=10)
    return config if task in ORACLES else replace(config, mle_learning_rate=3e-3, weight_decay=0.2, dropout=0.5)


def paper(task: str) -> SeqGANConfig:
    """The published code's sizes, schedule and rates; its rollout policy is the current one (its lag is dead code)."""
    return SeqGANConfig(
        preset="paper",
        task=task,
        select="last",
        batch_size=64,
        mle_batch_size=64,
        mle_epochs=120,
        weight_decay=0.0,
        dropout=0.0,
        average=0.0,
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


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS: dict[str, Callable[[str], SeqGANConfig]] = {"fast": fast, "tuned": tuned, "paper": paper, "smoke": smoke}


class SeqGAN:
    """G learns from credit that D gives to its texts, D from telling them from real ones.

    A g-step maximises, by REINFORCE, the mean over B texts of ``sum_t (credit_t - baseline_t) log G(y_t | s_t)``, where
    credit_t is Q(s_t, y_t) less the KL and plus the entropy still to come (Yu et al. 2017, eq. 6 and 7; KL, entropy,
    discount and baseline are ours). The published code sums over texts where this takes the mean; Adam does not care,
    the clipping of the gradient does.

    Args:
        config: Sizes, schedule, reward.
        task: What to write.

    Raises:
        InputError: If a number is out of its range, or the pre-trained policy is of another task.
    """

    def __init__(self, config: SeqGANConfig, task: "Task") -> None:
        from torch.optim import Adam, AdamW

        from textgan_env.discriminators import ReplayedTexts, make_discriminator
        from textgan_env.envs import TextGANVectorEnv
        from textgan_env.evaluation import BleuJudge
        from textgan_env.policies import Decoding, LaggedCopy
        from textgan_env.sampling import derived_seed

        _check(config)
        self.config = config
        self.task = task
        self.finished = "policy"
        self.decoding = Decoding(config.writing_temperature)
        self.policy = self._first_policy().to(config.device)
        self.average = LaggedCopy(self.policy, config.average)
        # G as it was after pre-training: what the KL is measured from.
        self.reference = copy.deepcopy(self.policy).eval().requires_grad_(False)
        self.lagged = LaggedCopy(self.policy, config.rollout_lag) if config.rollout_lag else None
        self.bleu = BleuJudge(task) if config.discriminator == "bleu" else None
        self.discriminator: DiscriminatorModule | None = None
        if self.bleu is None:
            self.discriminator = make_discriminator(
                config.discriminator,
                vocab_size=task.vocab_size,
                max_length=task.max_length,
                seed=derived_seed(config.seed, "discriminator"),
            ).to(config.device)
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        self.mle_optimizer = AdamW(trained, lr=config.mle_learning_rate, weight_decay=config.weight_decay)
        self.g_optimizer = Adam(trained, lr=config.learning_rate)
        self.d_optimizer = None if self.discriminator is None else self.discriminator.make_optimizer()
        self.replay: ReplayedTexts | None = None
        if config.negatives == "replayed":
            self.replay = ReplayedTexts(len(task.writable("train")), task.max_length, task.vocab_size).to(config.device)
        self.envs = TextGANVectorEnv(
            config.batch_size,
            task,
            reward="rollout" if config.rollouts else "terminal",
            rollouts=max(1, config.rollouts),
            transform=config.transform,
            gamma=config.gamma,
            control=None if config.control == "untrained" else config.control,
            discriminator=self._judge() if config.control not in ("constant", "random") else None,
            rollout_policy=None if self.lagged is None else self.lagged.policy.with_decoding(self.decoding),
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
            initial_state=config.initial_state,
            seed=derived_seed(config.seed, "policy"),
        )

    def schedule(self) -> "Schedule":
        """Pre-train G, pre-train D, then g-steps, d-steps and steps of maximum likelihood in turn."""
        from textgan_env.training import Phase, Schedule

        config = self.config
        mle_epochs = config.mle_epochs if config.pretrained is None else 0
        d_learns = config.control in (None, "shuffled") and self.discriminator is not None
        d_steps = config.d_steps if d_learns else 0
        return Schedule(
            (
                Phase("mle", mle_epochs, (("mle_epoch", 1),), last_step="end_pretraining"),
                Phase("pretrain_d", config.d_pretraining if d_learns else 0, (("d_step", 1),)),
                Phase(
                    "adversarial",
                    config.rounds,
                    (("g_step", config.g_steps), ("d_step", d_steps), ("mle_step", config.mle_steps)),
                ),
            )
        )

    def modules(self) -> "Mapping[str, nn.Module]":
        """G, the pre-trained G, D if there is one, and what some options need besides."""
        modules: dict[str, nn.Module] = {"policy": self.policy, "reference": self.reference}
        if self.discriminator is not None:
            modules["discriminator"] = self.discriminator
        if self.config.average and self.config.pretrained is None:
            modules["average"] = self.average.policy
        if self.replay is not None:
            modules["negatives"] = self.replay
        if self.lagged is not None:
            modules["lagged"] = self.lagged.policy
        return modules

    def optimizers(self) -> "Mapping[str, Optimizer]":
        """One for each way of learning."""
        optimizers: dict[str, Optimizer] = {"mle": self.mle_optimizer, "g": self.g_optimizer}
        return optimizers if self.d_optimizer is None else {**optimizers, "d": self.d_optimizer}

    def curves(self) -> dict[str, dict[str, str]]:
        """NLLs, divergences, the reward, its gradient, and how well D does on texts that neither it nor G has seen."""
        return {
            "NLL (nats per token)": {"nll_valid": "NLL-valid", "nll_oracle": "NLL-oracle"},
            "divergence (nats per token)": {"cover": "cover", "fit": "fit"},
            "credit": {"credit": "mean", "credit_spread": "spread over texts"},
            "gradient": {"gradient_snr": "signal to noise"},
            "D on unseen texts": {"d_auc": "AUC", "d_accuracy": "accuracy"},
        }

    def mle_epoch(self, generator: "torch.Generator") -> dict[str, float]:
        """One epoch of pre-training."""
        from textgan_env.training import mle_epoch, update_average

        loss = mle_epoch(
            self.policy,
            self.mle_optimizer,
            self.task,
            batch_size=self.config.mle_batch_size,
            clip_norm=self.config.clip_norm,
            generator=generator,
            after_step=lambda: update_average(self.average, self.policy, self.mle_optimizer),
        )
        return {"loss": loss}

    def end_pretraining(self, _: "torch.Generator") -> dict[str, float]:
        """Go on with the averaged weights; the reference is G as it is now."""
        if self.config.average:
            self.policy.load_state_dict(self.average.policy.state_dict())
        self.reference.load_state_dict(self.policy.state_dict())
        if self.lagged is not None:
            self.lagged.policy.load_state_dict(self.policy.state_dict())
        return {}

    def mle_step(self, generator: "torch.Generator") -> dict[str, float]:
        """One step of maximum likelihood on some real texts."""
        import torch

        from textgan_env.sampling import fold, seeded
        from textgan_env.training import mle_step

        real_BT = self.task.split("train").tokens_BT
        chosen_B = torch.randint(len(real_BT), (self.config.mle_batch_size,), generator=generator)
        self.policy.train()
        with seeded(fold(generator)):
            loss = mle_step(self.policy, self.mle_optimizer, self.task, real_BT[chosen_B], self.config.clip_norm)
        return {"loss": float(loss)}

    def g_step(self, generator: "torch.Generator") -> dict[str, float]:
        """Write B texts, take their credit, and make those with more of it than the others more probable."""
        import torch

        from textgan_env.losses import baseline, masked_mean
        from textgan_env.sampling import fold

        self.policy.eval()
        if self.envs.game.judged:
            self.envs.game.queue_discriminator(self._judge())
        self.envs.reset(seed=fold(generator) % 2**31)
        batch = self.envs.collect(self._writer())
        snr = self._gradient(batch, self._credit(batch))
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.clip_norm)
        require(bool(torch.isfinite(norm)), f"the gradient of G is {float(norm)}: try a smaller --learning-rate")
        self.g_optimizer.step()
        if self.lagged is not None:
            self.lagged.update(self.policy)
        centred_BT = batch.credit_BT - baseline("position", batch.credit_BT, batch.mask_BT)
        return {
            "credit": float(masked_mean(batch.credit_BT, batch.mask_BT)),
            "credit_spread": float(masked_mean(centred_BT**2, batch.mask_BT).sqrt()),
            "gradient_norm": float(norm),
            "gradient_snr": snr,
        }

    def _gradient(self, batch: "EpisodeBatch", credit_BT: "Tensor") -> float:
        """Leave the gradient of the batch in G, and estimate how much of it is signal.

        The gradients of two halves of the batch share the signal and nothing else (but for the baseline): their inner
        product is, in expectation, the squared norm of the expected gradient, and a quarter of the squared norm of
        their difference the variance of the batch's gradient. Returned is the ratio; below 1 noise prevails, and it can
        come out negative.
        """
        import torch

        from textgan_env.losses import baseline, policy_gradient_loss
        from textgan_env.parallel import backward
        from textgan_env.rollouts import for_texts

        baseline_BT = baseline(self.config.baseline, credit_BT, batch.mask_BT)

        def share_of(half_b: "Tensor", rows: slice) -> "tuple[Tensor]":
            rows_b = half_b[rows]
            tokens_bT, mask_bT = batch.tokens_BT[rows_b], batch.mask_BT[rows_b]
            logp_bT = for_texts(self._writer(), batch.keys.rows(rows_b.to(batch.keys.seed_B.device))).log_prob(
                tokens_bT, mask_bT
            )
            loss = policy_gradient_loss(logp_bT, credit_BT[rows_b], mask_bT, baseline_BT[rows_b])
            return (loss * len(rows_b) / len(credit_BT),)

        sums = []
        weights = [part for part in self.policy.parameters() if part.requires_grad]
        self.g_optimizer.zero_grad()
        for half_b in torch.arange(len(credit_BT), device=credit_BT.device).chunk(2):
            backward(weights, len(half_b), partial(share_of, half_b))
            sums.append(torch.cat([part.grad.flatten() for part in self.policy.parameters() if part.grad is not None]))
        first, second = sums[0], sums[-1] - sums[0]
        noise = float((first - second).square().sum())
        return float(4 * first @ second) / noise if noise else 0.0

    def d_step(self, generator: "torch.Generator") -> dict[str, float]:
        """Refit D on fresh texts of G, and ask what it makes of texts that neither of them has seen."""
        from textgan_env.training import refit_discriminator

        assert self.discriminator is not None
        assert self.d_optimizer is not None
        return refit_discriminator(
            self.discriminator,
            self.d_optimizer,
            self._writer(),
            self.task,
            batch_size=self.config.d_batch_size,
            epochs=self.config.d_epochs,
            generator=generator,
            replay=self.replay,
        )

    def _credit(self, batch: "EpisodeBatch") -> "Tensor":
        """The environment's credit, and the KL to the pre-trained policy and the entropy that are still to come."""
        from textgan_env.rewards import CreditSource, EntropyCredit, KLCredit

        config, writer = self.config, self._writer()
        sources: list[CreditSource] = []
        if config.kl:
            sources.append(KLCredit(writer, self.reference, config.kl, config.gamma))
        if config.entropy:
            sources.append(EntropyCredit(writer, config.entropy, config.gamma))
        credit_BT = batch.credit_BT
        for source in sources:
            credit_BT = credit_BT + source.credit(batch.texts, batch.mask_BT)
        return credit_BT

    def _writer(self) -> "PolicyModule":
        """G as it writes while it learns."""
        return self.policy.with_decoding(self.decoding)

    def _judge(self) -> "Discriminator":
        """D as it is now: what judges is never trained any more. BLEU is what it always was."""
        if self.discriminator is None:
            assert self.bleu is not None
            return self.bleu
        return copy.deepcopy(self.discriminator).eval().requires_grad_(False)


def _check(config: SeqGANConfig) -> None:
    at_least(1, config, "batch_size", "mle_batch_size", "d_batch_size", "d_epochs")
    at_least(0, config, "rollouts", "d_steps", "g_steps", "mle_steps", "kl", "entropy", "weight_decay")
    above_zero(config, "learning_rate", "mle_learning_rate", "clip_norm")
    require(
        (config.discriminator, config.control) != ("bleu", "untrained"),
        "--control untrained asks a discriminator before it has learnt: --discriminator bleu never learns",
    )
    require(
        config.baseline == "none" or config.batch_size >= 2,
        f"a baseline compares texts: batch_size must be at least 2, found {config.batch_size}",
    )


def main(args: list[str] | None = None) -> None:
    """The command."""
    with friendly_errors():
        from textgan_env.options import parse

        config = parse(PRESETS, __doc__ or "", args)
        from textgan_env.training import launch

        launch(config, SeqGAN)


if __name__ == "__main__":
    main()
