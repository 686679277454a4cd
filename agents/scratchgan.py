"""ScratchGAN: policy gradient on what a recurrent discriminator makes of every prefix, without completions.

De Masson d'Autume et al. 2019: each token is paid 2D - 1 of the prefix that it ends, later tokens count less and less
(gamma .23), and G and D take steps in turn, each on fresh texts. Presets:

  fast    from a generator pre-trained by maximum likelihood (the default)
  paper   from nothing, with batches of 512 texts; hours on CPU
  smoke   seconds, to see that everything runs

--control constant, random or shuffled replaces the reward by one that knows nothing of the text; untrained asks a
discriminator that has learnt nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from textgan_env.training.adversarial import SMOKE, PolicyGradientAgent, PolicyGradientConfig
from textgan_env.training.agent import run_command, sized_for
from textgan_env.utils.errors import require
from textgan_env.utils.options import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.discriminators import RecurrentDiscriminator
    from textgan_env.envs import EpisodeBatch
    from textgan_env.ops.parallel import Sum
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Step, Steps


@dataclass(frozen=True)
class ScratchGANConfig(PolicyGradientConfig):
    """Train a policy by ScratchGAN."""

    added: ClassVar = (*PolicyGradientConfig.added, "all_actions")
    discriminator: Literal["recurrent"] = "recurrent"
    """An LSTM with a logit for every prefix."""
    transform: Literal["2p-1", "prob", "logit", "log", "minimax"] = "2p-1"
    """What a token's reward makes of the logit of the prefix that it ends."""
    gamma: float = 0.23
    """Discount: what a token is paid counts gamma^k for the token k places before it; 0: for itself only."""
    baseline: Literal["none", "average", "position", "leave-one-out"] = "average"
    """What is subtracted from the credit: nothing, an average over steps, the batch's mean at the position, or the mean
    of the other texts there."""
    d_batches: int = 1
    """Batches of D after each g-step."""
    all_actions: bool = False
    """Learn from what D would pay for every token that G could have written next, not for the written one alone. D then
    reads V tokens at each prefix: for small vocabularies."""


def fast(task: str) -> ScratchGANConfig:
    """Minutes on two cores."""
    return sized_for(task, ScratchGANConfig(preset="fast", task=task, select="last", g_steps=25, d_steps=0, rounds=20))


def paper(task: str) -> ScratchGANConfig:
    """The published batch, rates and discount; networks of one layer of 128 units and no pre-trained embeddings."""
    return ScratchGANConfig(
        preset="paper", task=task, select="last", mle_epochs=0, d_pretraining=0, embed_size=128, hidden_size=128,
        dropout=0.0, ema_decay=0.0, batch_size=512, d_batch_size=512, learning_rate=9.59e-5, d_learning_rate=9.38e-3,
        g_steps=500, d_steps=0, rounds=400,
    )  # fmt: skip


def smoke(task: str) -> ScratchGANConfig:
    """As small as it can be."""
    return ScratchGANConfig(task=task, d_steps=0, **(SMOKE | {"g_steps": 2, "d_batch_size": 64}))


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "paper": paper, "smoke": smoke}


class ScratchGAN(PolicyGradientAgent):
    """G learns from ``credit_t = sum_{s >= t} gamma^(s - t) (2 D(y_1..y_s) - 1)``, less a baseline."""

    config: ScratchGANConfig
    discriminator: RecurrentDiscriminator | None

    def __init__(self, config: ScratchGANConfig, task: Task) -> None:
        from textgan_env.ops.averages import MovingAverage

        at_least(0, config, "d_batches")
        knows = config.control in (None, "untrained")
        blind = "--all-actions asks D about every next token, which this control has no score of"
        require(knows or not config.all_actions, f"{blind}: leave out --all-actions, found --control {config.control}")
        super().__init__(config, task)
        # The published weight on the old value.
        self.modules["credit_average"] = self.credit_average = MovingAverage(0.08).to(config.device)
        self.envs = self.make_envs(config.batch_size, reward="dense", transform=config.transform, gamma=config.gamma)

    def round_steps(self) -> tuple[Steps, ...]:
        """g-steps, each followed by batches of D; at the end, what D makes of texts that it has not seen."""
        from textgan_env.training.schedule import Steps

        return *super().round_steps(), Steps(self.ask_d, times=int(self.d_learns))

    def g_step(self, step: Step) -> Numbers:
        """A g-step, then some batches of D."""
        numbers = super().g_step(step)
        return {**numbers, **self.fit_d(step, self.config.d_batches)}

    def advantage(self, batch: EpisodeBatch) -> Tensor:
        """Credit less the baseline, float (B, T); with all actions that of later tokens only."""
        from textgan_env.ops.losses import baseline, masked_mean

        credit_BT = batch.credit_BT
        if self.config.all_actions:  # R_t = r_t + gamma R_(t + 1)
            credit_BT = self.config.gamma * credit_BT.roll(-1, 1)
            credit_BT[:, -1] = 0
        if self.config.baseline != "average":
            return credit_BT - baseline(self.config.baseline, credit_BT, batch.mask_BT)
        mean = self.credit_average.update(masked_mean(credit_BT, batch.mask_BT))
        return (credit_BT - mean) * batch.mask_BT

    def _objective(self, tokens_BT: Tensor, mask_BT: Tensor, *more_B: Tensor) -> dict[str, Sum]:
        """REINFORCE; with all actions on what later tokens are paid, and the mean pay of the next one as it is."""
        from textgan_env.ops.losses import TILE
        from textgan_env.ops.tiles import tiled_sum
        from textgan_env.training.mle import trained

        found = super()._objective(tokens_BT, mask_BT, *more_B)
        if not self.config.all_actions:
            return found
        (loss, texts), rows = found["loss"], max(1, TILE.on(tokens_BT.device) // tokens_BT.shape[1])
        now, _ = tiled_sum(self._paid_now, (tokens_BT, mask_BT), trained(self.policy), rows=rows)
        return {"loss": (loss - now, texts)}

    def _paid_now(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Sum over all tokens w of G(w | y_<t) f(D(y_<t, w)), float (B, T)."""
        from textgan_env.ops.reward_kinds import TRANSFORMS

        assert self.discriminator is not None
        reward_BTV = TRANSFORMS[self.config.transform](self.discriminator.next_logits(tokens_BT))
        paid_BT: Tensor = (self.policy.all_log_probs(tokens_BT).exp() * reward_BTV).sum(-1)
        return paid_BT.masked_fill(~mask_BT, 0.0)


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(ScratchGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
