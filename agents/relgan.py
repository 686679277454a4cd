"""RelGAN: D's gradient goes through the words themselves, made soft by Gumbel noise; there is no reward.

Nie et al. 2019. Each token is a mixture of all tokens, which gets nearer to one token as training goes on. D learns
which of two texts is real, and G follows D's gradient in the mixtures down to its own weights. Presets:

  fast    from a generator pre-trained by maximum likelihood, with the small discriminator (the default)
  paper   sizes, rates and steps of the published code, with one CNN as D; hours on CPU
  smoke   seconds, to see that everything runs

--policy relational is the paper's generator, a memory with attention. --relaxation straight-through lets D read the
hard text, and takes its gradient there. --control untrained follows a discriminator that has learnt nothing, shuffled
gives each text the gradient of another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from textgan_env.training.adversarial import SMOKE, PolicyGradientConfig
from textgan_env.training.agent import run_command, sized_for
from textgan_env.training.relaxed import RelaxedAgent, require_relaxable
from textgan_env.utils.kinds import TokenNetworkKind
from textgan_env.utils.options import ORACLES, above_zero, at_least

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.relaxed import RelaxedTexts
    from textgan_env.training.schedule import Step, Steps


@dataclass(frozen=True)
class RelGANConfig(PolicyGradientConfig):
    """Train a policy by RelGAN."""

    discriminator: TokenNetworkKind = "pair"
    d_objective: Literal["pairs"] = "pairs"
    """What D learns: which of two texts is real (relativistic)."""
    relaxation: Literal["soft", "straight-through"] = "soft"
    """What D reads of G's texts, here and when it learns: mixtures of tokens, or the tokens themselves."""
    inverse_temperature: float = 100.0
    """How near to one token each mixture is after the last g-step (beta); it begins as 1."""
    anneal: bool = True
    """Let beta rise from 1 as a power; else it is the same from the first g-step on."""
    d_batches: int = 5
    """Batches of D after each g-step."""
    control: Literal["shuffled", "untrained"] | None = None
    """A gradient that knows nothing of the text instead, or nothing but its words: see above."""


def fast(task: str) -> RelGANConfig:
    """Minutes on two cores."""
    config = RelGANConfig(
        preset="fast", task=task, select="last", batch_size=64, g_steps=15, rounds=20, d_steps=0, d_batches=2
    )
    return sized_for(task, config)


def paper(task: str) -> RelGANConfig:
    """The published code's: it ends where its schedule of 5,000 steps is after 3,000 (oracle) or 2,000 (text)."""
    config = RelGANConfig(
        preset="paper", task=task, select="last", policy="relational", embed_size=32, hidden_size=512, dropout=0.0,
        weight_decay=0.0, ema_decay=0.0, mle_epochs=150, mle_batch_size=64, d_pretraining=0, discriminator="conv",
        batch_size=64, d_batch_size=64, learning_rate=1e-4, d_learning_rate=1e-4, d_steps=0, g_steps=20, rounds=150,
        inverse_temperature=100**0.6,
    )  # fmt: skip
    return config if task in ORACLES else replace(config, rounds=100, inverse_temperature=100**0.4)


def smoke(task: str) -> RelGANConfig:
    """As small as it can be."""
    return RelGANConfig(task=task, d_steps=0, d_batches=1, **(SMOKE | {"g_steps": 2, "d_batch_size": 64}))


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "paper": paper, "smoke": smoke}


class RelGAN(RelaxedAgent):
    """G minimises ``-log sigmoid(z_fake - z_real)``, D ``-log sigmoid(z_real - z_fake)``, z the logits of a pair."""

    config: RelGANConfig
    takes_objective: ClassVar = False
    curves: ClassVar[tuple[str, ...]] = ("nll_valid", "nll_oracle", "d_auc", "d_accuracy", "gradient_snr")

    def __init__(self, config: RelGANConfig, task: Task) -> None:
        above_zero(config, "inverse_temperature")
        at_least(0, config, "d_batches")
        require_relaxable(config.discriminator)
        super().__init__(config, task)

    def round_steps(self) -> tuple[Steps, ...]:
        """g-steps, each followed by batches of D; at the end, what D makes of texts that it has not seen."""
        from textgan_env.training.schedule import Steps

        return *super().round_steps(), Steps(self.ask_d, times=int(self.d_learns))

    def beta(self, step: Step) -> float:
        """The inverse temperature of a g-step: after the share s of all of them, that of the end to the power s."""
        config = self.config
        share = (step.round * config.g_steps + step.repeat + 1) / (config.rounds * config.g_steps)
        return config.inverse_temperature ** (share if config.anneal else 1)

    def g_step(self, step: Step) -> Numbers:
        """Generate B texts, and follow D's gradient in them; then some batches of D."""
        from torch.nn import functional

        rows, discriminator = self.config.batch_size, self.scoring_discriminator
        fake, real_BT = (
            self.relaxed(step.generator, rows, self.beta(step)),
            self.real_texts(step.generator, rows, task=self.d_task),
        )

        def loss(soft_BTV: Tensor) -> Tensor:
            fake_B = discriminator.relaxed_logits(soft_BTV, fake.texts.mask_BT)
            return functional.softplus(discriminator.logits(real_BT) - fake_B).sum()

        slope_BTV, total = self.slope(self.read_by_d(fake), loss, step.generator)
        numbers = {"g_loss": total / rows, "beta": fake.inverse_temperature, **self.descend_slope(fake, slope_BTV)}
        return {**numbers, **self.fit_d(step, self.config.d_batches)}

    def read_by_d(self, fake: RelaxedTexts) -> Tensor:
        """The texts of G as D reads them, float (B, T, V)."""
        from textgan_env.ops.relaxation import one_hot

        soft_BTV = self.soft(fake)
        if self.config.relaxation == "soft":
            return soft_BTV
        return one_hot(fake.texts.tokens_BT, self.task.vocab_size, soft_BTV.dtype)

    def fit_d(self, step: Step, batches: int) -> Numbers:
        """A few batches of D on fresh texts, as it reads them in a g-step; nothing where it does not learn."""
        import torch

        from textgan_env.discriminators.fit import fit_soft_step
        from textgan_env.ops.sampling import draw_seed, seeded

        if self.config.relaxation == "straight-through" or not (batches and self.d_learns):
            return super().fit_d(step, batches)
        losses = []
        for _ in range(batches):
            fake = self.relaxed(step.generator, self.config.d_batch_size, self.beta(step))
            real_BT = self.real_texts(step.generator, self.config.d_batch_size, task=self.d_task)
            with seeded(draw_seed(step.generator)):
                soft = (self.soft(fake), fake.texts.mask_BT)
                losses.append(fit_soft_step(self.scoring_discriminator, self.d_optimizer, real_BT, *soft)["loss"])
        return {"d_loss": torch.stack(losses).mean()}


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(RelGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
