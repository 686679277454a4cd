"""MaskGAN: G fills the blanks of real texts, and D, which knows what was given, says how real each filled word is.

Fedus et al. 2018. G and D read the text with its blanks from both sides; every filled word is paid, less a critic's
guess or what other fillings of the same template were paid. With --mask-rate 1 all is blank: an ordinary adversarial
language model. Presets:

  fast    small networks from pre-training by maximum likelihood of blanks (the default)
  paper   the published sizes and rates; many hours on CPU
  smoke   seconds, to see that everything runs

--control constant, random or shuffled replaces the reward by one that knows nothing of the text; untrained asks a
discriminator that has learnt nothing; --no-d-context hides the template from D.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from textgan_env.training.adversarial import SMOKE, PolicyGradientAgent, PolicyGradientConfig
from textgan_env.training.agent import run_command, sized_for
from textgan_env.utils.errors import require
from textgan_env.utils.options import above_zero, at_least

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor
    from torch.optim import Optimizer

    from textgan_env.discriminators import DiscriminatorModule, InfillingDiscriminator
    from textgan_env.ops.parallel import Sum
    from textgan_env.policies import InfillingPolicy
    from textgan_env.rewards import Texts
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Phase, Step, Steps


@dataclass(frozen=True)
class MaskGANConfig(PolicyGradientConfig):
    """Train a policy that fills blanks by MaskGAN."""

    policy: Literal["infilling"] = "infilling"
    """An LSTM that is told what stands on both sides of a blank."""
    discriminator: Literal["infilling"] = "infilling"
    """An LSTM with a logit for every prefix that is told what was given."""
    d_objective: Literal["cross-entropy"] = "cross-entropy"
    """What D learns: which of the filled words are real."""
    layers: int = 1
    """Layers of G's decoder."""
    mask: Literal["contiguous", "independent"] = "contiguous"
    """Whether the blanks of a text stand side by side."""
    mask_rate: float = 0.5
    """Share of a text that is blank."""
    mask_to: float | None = None
    """The share in the last round, to which it moves in a straight line; pre-training draws shares between the two.
    None: it stays."""
    whole: float = 0.1
    """Share of texts that are blank as a whole, so that G can also write texts of its own."""
    fillings: int = 4
    """Fillings of each template in a g-step; they stand side by side in a batch."""
    transform: Literal["2p-1", "prob", "logit", "log", "minimax"] = "log"
    """What a filled word's reward makes of its logit."""
    gamma: float = 0.89
    """Discount: what a filled word is paid counts gamma^k for one k places before it."""
    baseline: Literal["none", "critic", "leave-one-out"] = "leave-one-out"
    """What is subtracted from the credit: nothing, what a learned critic expects there, or the mean of the other
    fillings of the same template there."""
    critic_learning_rate: float = 1e-2
    """Learning rate of the critic (Adam)."""
    d_context: bool = True
    """Whether D is told what was given."""
    d_batches: int = 1
    """Batches of D after each g-step."""


def fast(task: str) -> MaskGANConfig:
    """Minutes on two cores."""
    return sized_for(task, MaskGANConfig(
        preset="fast", task=task, select="last", g_steps=10, d_steps=0, rounds=20, learning_rate=5e-4,
    ))  # fmt: skip


def paper(task: str) -> MaskGANConfig:
    """Sizes and rates of the published code's README, with its critic; all its templates are half blank."""
    return MaskGANConfig(
        preset="paper", task=task, select="last", embed_size=650, hidden_size=650, layers=2, dropout=0.5, whole=0.0,
        fillings=1, baseline="critic", batch_size=128, learning_rate=3.9e-5, d_learning_rate=5e-4,
        critic_learning_rate=5.2e-7, mle_learning_rate=1e-3, d_batches=2, d_steps=0, g_steps=500, rounds=400,
    )  # fmt: skip


def smoke(task: str) -> MaskGANConfig:
    """As small as it can be."""
    return MaskGANConfig(task=task, d_steps=0, **(SMOKE | {"d_batch_size": 64}))


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "paper": paper, "smoke": smoke}


class MaskGAN(PolicyGradientAgent):
    """G learns from ``credit_t = sum over blanks s >= t of gamma^(s - t) f(D_s)``, less a baseline, at blanks only."""

    config: MaskGANConfig
    takes_objective: ClassVar = False
    policy: InfillingPolicy
    curves: ClassVar = ("nll_blanks", *PolicyGradientAgent.curves)
    kinds: ClassVar = ("infilling",)
    network_options: ClassVar = {"layers": "num_layers"}

    def __init__(self, config: MaskGANConfig, task: Task) -> None:
        from torch import nn
        from torch.optim import Adam

        from textgan_env.ops.sampling import seeded
        from textgan_env.training.filling import Blanks

        at_least(0, config, "d_batches")
        at_least(1, config, "fillings", "layers")
        above_zero(config, "critic_learning_rate")
        require(0 <= config.gamma <= 1, f"gamma must be 0 to 1, found {config.gamma}")
        found = f"found {config.fillings} and {config.batch_size}"
        require(config.batch_size % config.fillings == 0, f"fillings must be a divisor of batch_size, {found}")
        alone = config.baseline == "leave-one-out" and config.fillings < 2
        require(not alone, "baseline leave-one-out compares fillings of a template: fillings must be at least 2")
        last = config.mask_rate if config.mask_to is None else config.mask_to
        self.blanks = Blanks(task, config.mask_rate, last, config.mask == "contiguous", config.whole)
        super().__init__(config, task)
        with seeded(self.seed("critic")):
            self.critic = nn.Linear(self.policy.lstm.hidden_size, 1).to(config.device)
        self.modules["critic"] = self.critic
        self.critic_optimizer: Optimizer = Adam(self.critic.parameters(), lr=config.critic_learning_rate, fused=True)
        self.optimizers["critic"] = self.critic_optimizer

    def new_discriminator(self, **options: Any) -> DiscriminatorModule | None:
        """D as it is drawn."""
        return super().new_discriminator(sees_template=self.config.d_context, **options)

    def mle_phase(self) -> Phase:
        """Maximum likelihood of blanks, and after each epoch what it has brought."""
        from textgan_env.training.schedule import Steps

        phase = super().mle_phase()
        return replace(phase, steps=(*phase.steps, Steps(self.measure_blanks)))

    def mle_batch(self, step: Step, own_share: float = 0.0) -> Numbers:
        """One batch of real texts, dropout on: the likelihood of their blanks."""
        seed, *columns = step.item(partial(self.blanks.learnt, self.g_task, self.mle_batch_size))
        columns, objective = [part.to(self.policy.device) for part in columns], self.blanks.likelihood
        self.policy.train()
        with step.dropout(seed):
            means, _ = self.descend([self.mle_optimizer], columns, partial(objective, self.policy), dropout=True)
        self.update_average(step)
        return {"loss": means["loss"]}

    def measure_blanks(self, _: Step) -> Numbers:
        """How well G fills the blanks of the valid split."""
        return {"nll_blanks": self.blanks.nll_valid(self.policy)}

    def d_batch(self, step: Step, lr_scale: float = 1.0) -> Numbers:
        """A batch of D on real texts and on fillings of their templates by G; the last one asks about unseen ones."""
        from textgan_env.ops.sampling import draw_seed

        def batches(generator: torch.Generator) -> Iterator[tuple[int | None, tuple[Tensor, Tensor]]]:
            seed: int | None = draw_seed(generator)
            while True:
                real_BT = self.real_texts(generator, self.config.d_batch_size, task=self.d_task)
                yield seed, self.blanks.beside_real(self.policy, real_BT, generator)
                seed = None

        seed, batch = step.item(batches)
        for group in self.d_optimizer.param_groups:
            group["lr"] = lr_scale * self.d_optimizer.defaults["lr"]
        with step.dropout(seed):
            loss = self.fit_on(*batch)
        return {"d_loss": loss, **(self.ask_d(step) if step.is_last else {})}

    def fit_on(self, tokens_BT: Tensor, template_BT: Tensor) -> Tensor:
        """One step of D; returns the loss before it."""
        from textgan_env.discriminators.fit import fit_step

        assert self.discriminator is not None
        return fit_step(self.discriminator, self.d_optimizer, tokens_BT, template_BT=template_BT)["loss"]

    def fit_d(self, step: Step, batches: int) -> Numbers:
        """A few batches of D after a g-step; nothing where D does not learn."""
        import torch

        from textgan_env.ops.sampling import draw_seed, seeded

        losses = []
        for _ in range(batches * self.d_learns):
            real_BT = self.real_texts(step.generator, self.config.d_batch_size, task=self.d_task)
            batch = self.blanks.beside_real(self.policy, real_BT, step.generator, self.rate(step))
            with seeded(draw_seed(step.generator)):
                losses.append(self.fit_on(*batch))
        return {"d_loss": torch.stack(losses).mean()} if losses else {}

    def ask_d(self, step: Step) -> Numbers:
        """How well D tells real words from filled ones in blanks of the valid split."""
        from textgan_env.ops.sampling import derived_generator

        real_BT = self.task.writable("valid")[:2000].to(self.policy.device)
        batch = self.blanks.beside_real(self.policy, real_BT, derived_generator(step.seed, "ask"))
        return self.blanks.told_apart(self.discriminator, *batch)  # type: ignore[arg-type]

    def rate(self, step: Step) -> float:
        """The share of blanks in an adversarial round."""
        return self.blanks.rate(step.round / max(1, self.config.rounds - 1))

    def round_steps(self) -> tuple[Steps, ...]:
        """g-steps, each followed by batches of D; at the end, what both make of unseen texts."""
        from textgan_env.training.schedule import Steps

        asked = Steps(self.ask_d, times=int(self.d_learns))
        return *super().round_steps(), asked, Steps(self.measure_blanks)

    def g_step(self, step: Step) -> Numbers:
        """Fill templates of real texts, learn from what D makes of the fillings; then some batches of D."""
        from textgan_env.ops.losses import credit_numbers
        from textgan_env.ops.sampling import draw_seed
        from textgan_env.rewards import BlankCredit, controlled

        self.policy.eval()
        config, discriminator = self.config, cast("InfillingDiscriminator", self.discriminator)
        real_BT = self.real_texts(step.generator, config.batch_size // config.fillings)
        template_BT = self.blanks.draw(real_BT, step.generator, self.rate(step)).repeat_interleave(config.fillings, 0)
        texts = self.blanks.fill(self.policy, template_BT, draw_seed(step.generator))
        filled_BT = self.blanks.cells(texts.tokens_BT, template_BT)
        control = None if config.control == "untrained" else config.control
        reward = partial(BlankCredit, discriminator, template_BT, config.transform, config.gamma)
        credit_BT = controlled(control, reward).credit(texts, filled_BT)
        expected_BT, more = self.expected(texts, template_BT, credit_BT, filled_BT)
        numbers = self.ascend_on(texts.tokens_BT, filled_BT, credit_BT - expected_BT, template_BT)
        return {**credit_numbers(credit_BT, filled_BT), **numbers, **more, **self.fit_d(step, config.d_batches)}

    def expected(
        self, texts: Texts, template_BT: Tensor, credit_BT: Tensor, filled_BT: Tensor
    ) -> tuple[Tensor, Numbers]:
        """The baseline, float (B, T).

        A critic is a linear head on G's state before each word; it learns from these texts after it was asked.
        """
        import torch

        from textgan_env.ops.losses import group_baseline, masked_sum

        if self.config.baseline != "critic":
            return group_baseline(self.config.baseline, credit_BT, filled_BT, self.config.fillings), {}
        with torch.no_grad():
            hidden_BTH = self.policy.reading(template_BT).hidden_states(texts.tokens_BT)
            expected_BT: Tensor = self.critic(hidden_BTH)[..., 0]

        def error(hidden_BTH: Tensor, credit_BT: Tensor, filled_BT: Tensor) -> dict[str, Sum]:
            return {"loss": masked_sum((self.critic(hidden_BTH)[..., 0] - credit_BT).square(), filled_BT)}

        means, _ = self.descend([self.critic_optimizer], (hidden_BTH, credit_BT, filled_BT), error)
        return expected_BT, {"critic_loss": means["loss"]}

    def _objective(self, tokens_BT: Tensor, mask_BT: Tensor, advantage_BT: Tensor, *more: Tensor) -> dict[str, Sum]:
        """What a g-step minimises, for some texts; their templates come last."""
        from textgan_env.ops.losses import policy_gradient_sum

        given = self.policy.given(more[-1], self.task.end_token)
        return {"loss": policy_gradient_sum(given.log_prob(tokens_BT, mask_BT), advantage_BT, mask_BT)}


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(MaskGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
