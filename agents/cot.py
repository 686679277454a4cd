"""CoT, cooperative training: a second language model learns real and written text alike, and G moves toward it.

Lu et al. 2018. The mediator M learns the mixture of real text and G's by maximum likelihood; G minimises KL(G || M),
which with the best M goes down the Jensen-Shannon divergence. There is no discriminator and no reward. Presets:

  fast    from a generator pre-trained by maximum likelihood (the default)
  paper   the published code's sizes, from nothing, 200,000 steps
  smoke   seconds, to see that everything runs

--credit step: exact over all next tokens, blind to what a token does to later ones. to-go: REINFORCE, which sees that.
--control frozen keeps M as it was after its pre-training; real lets it learn real text only: then G is distilled from
another maximum-likelihood model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from textgan_env.training.agent import run_command
from textgan_env.training.pretrained import PretrainedAgent, PretrainedConfig
from textgan_env.utils.options import ORACLES, above_zero, at_least

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.ops.parallel import Sum
    from textgan_env.policies import PolicyModule
    from textgan_env.rewards import Texts
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Schedule, Step


@dataclass(frozen=True)
class CoTConfig(PretrainedConfig):
    """Train a policy by cooperative training."""

    credit: Literal["step", "to-go"] = "step"
    """step: the KL of next tokens at each prefix, which is taken as given; to-go: REINFORCE with the KL still to
    come."""
    g_steps: int = 75
    """Steps of G in a round, each followed by those of M."""
    m_steps: int = 1
    """Steps of M after each step of G."""
    m_epochs: int = 5
    """Epochs of pre-training of M on half real, half written text."""
    m_embed_size: int = 64
    """Width of M's embedding."""
    m_hidden_size: int = 64
    """Width of M's LSTM."""
    m_dropout: float = 0.5
    """Share of M's units set to 0 while it learns."""
    m_learning_rate: float = 3e-3
    """Learning rate of M (Adam)."""
    control: Literal["frozen", "real"] | None = None
    """frozen: M stays as it was after its pre-training; real: it learns real text only."""


def fast(task: str) -> CoTConfig:
    """Minutes on two cores."""
    config = CoTConfig(preset="fast", task=task, select="last")
    if task in ORACLES:
        return config
    return replace(
        config, embed_size=128, hidden_size=128, m_embed_size=256, m_hidden_size=256, mle_learning_rate=5e-3
    )  # fmt: skip


def paper(task: str) -> CoTConfig:
    """Sizes, rates and turns of the published code, on text, too."""
    return CoTConfig(
        preset="paper", task=task, select="last", mle_epochs=0, m_epochs=0, dropout=0.0, ema_decay=0.0, rounds=400,
        g_steps=500,
    )  # fmt: skip


def smoke(task: str) -> CoTConfig:
    """As small as it can be."""
    return CoTConfig(
        preset="smoke", task=task, select="last", mle_epochs=1, mle_batch_size=256, m_epochs=1, rounds=2, g_steps=2,
        embed_size=8, hidden_size=8, m_embed_size=8, m_hidden_size=8,
    )  # fmt: skip


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "paper": paper, "smoke": smoke}


class CoT(PretrainedAgent):
    """G minimises ``KL(G || M) / 2T``, M learns half real, half written text.

    With M = (p + G) / 2 the gradient of KL(G || M) / 2, M held fixed, is that of the Jensen-Shannon divergence.
    """

    config: CoTConfig
    curves: ClassVar[tuple[str, ...]] = ("nll_valid", "nll_oracle")

    def __init__(self, config: CoTConfig, task: Task) -> None:
        from torch.optim import Adam

        from textgan_env.policies import LSTMPolicy

        at_least(1, config, "g_steps", "m_steps")
        at_least(0, config, "m_epochs")
        above_zero(config, "m_learning_rate")
        super().__init__(config, task)
        self.mediator: PolicyModule = LSTMPolicy(
            task.vocab_size, start_token=task.start_token, forbidden=task.forbidden, embed_size=config.m_embed_size,
            hidden_size=config.m_hidden_size, dropout=config.m_dropout, seed=self.seed("mediator"),
        ).to(config.device)  # fmt: skip
        self.modules["mediator"] = self.mediator
        self.m_optimizer = self.optimizers["m"] = Adam(self.mediator.parameters(), lr=config.m_learning_rate)

    def schedule(self) -> Schedule:
        """Pre-train G, pre-train M, then let them take turns."""
        from textgan_env.training.mle import mle_batches
        from textgan_env.training.schedule import Phase, Schedule, Steps

        config = self.config
        epoch = Steps(self.m_step, mle_batches(self.task, config.batch_size // 2))
        mediator = Phase("mediator", config.m_epochs, (epoch,))
        turns = Phase("cooperative", config.rounds, (Steps(self.turn, config.g_steps),))
        return Schedule((self.mle_phase(), mediator, turns))

    def turn(self, step: Step) -> Numbers:
        """A step of G, then those of M, each on fresh texts."""
        numbers = dict(self.g_step(step))
        for _ in range(0 if self.config.control == "frozen" else self.config.m_steps):
            numbers |= self.m_step(step)
        return numbers

    def g_step(self, step: Step) -> Numbers:
        """Generate B texts, and move G toward M at their prefixes."""
        texts = self.generated(step.generator, self.config.batch_size)
        self.policy.eval()
        self.mediator.eval()
        if self.config.credit == "step":
            means, _ = self.descend([self.g_optimizer], (texts.tokens_BT, texts.mask_BT), self._step_objective)
            return {"kl_to_m": means["loss"]}
        return self.reinforce(texts)

    def _step_objective(self, tokens_BT: Tensor, mask_BT: Tensor) -> dict[str, Sum]:
        """``sum_t KL(G(. | s_t) || M(. | s_t)) / 2T``, the prefixes s_t as they are."""
        from textgan_env.training.divergence import prefix_kl

        total, _ = prefix_kl(self.policy, self.mediator, tokens_BT, mask_BT)
        return {"loss": (total / 2, float(mask_BT.numel()))}

    def reinforce(self, texts: Texts) -> Numbers:
        """A step of REINFORCE: a token's credit is minus half of ``log G - log M``, of itself and all later tokens."""
        from textgan_env.ops.losses import baseline
        from textgan_env.rewards import KLCredit

        mask_BT = texts.mask_BT
        credit_BT = KLCredit(self.policy, self.mediator, weight=0.5).credit(texts, mask_BT)
        advantage_BT = credit_BT - baseline("leave-one-out", credit_BT, mask_BT)
        self.descend([self.g_optimizer], (texts.tokens_BT, mask_BT, advantage_BT), self._to_go_objective)
        return {"kl_to_m": -credit_BT[:, 0].mean() / mask_BT.shape[1]}

    def _to_go_objective(self, tokens_BT: Tensor, mask_BT: Tensor, advantage_BT: Tensor) -> dict[str, Sum]:
        """Minus the advantage times the log-probability, over T."""
        from textgan_env.ops.losses import policy_gradient_sum

        total, _ = policy_gradient_sum(self.policy.log_prob(tokens_BT, mask_BT), advantage_BT, mask_BT)
        return {"loss": (total, float(mask_BT.numel()))}

    def m_step(self, step: Step) -> Numbers:
        """M learns B texts by maximum likelihood, dropout on: the first half real, the others fresh ones of G."""
        import torch

        from textgan_env.ops.sampling import draw_seed
        from textgan_env.training.mle import mle_step

        size = self.config.batch_size
        real = size if self.config.control == "real" else size // 2
        tokens_BT = self.real_texts(step.generator, real, writable=False)
        if real < size:
            tokens_BT = torch.cat([tokens_BT, self.generated(step.generator, size - real).tokens_BT])
        self.mediator.train()
        with step.dropout(draw_seed(step.generator)):
            clip = self.config.max_grad_norm
            loss = mle_step(self.mediator, self.m_optimizer, self.task, tokens_BT, max_grad_norm=clip)
        return {"m_loss": loss}


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(CoT, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
