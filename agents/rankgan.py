"""RankGAN: a ranker in the place of a discriminator: which text is nearest to real ones?

Lin et al. 2017: the ranker compares features of a text with those of real references; G is paid by how high its texts
rank among others. Presets:

  fast    the paper's rule, the small network's features, a baseline (the default)
  paper   the published code: its rule, the CNN, 32 texts a g-step and no baseline; hours a run on CPU
  smoke   seconds, to see that everything runs

--rule reference is the rule of the published code, in which the texts of a batch compete with each other.
--control constant, random or shuffled replaces the reward by one that knows nothing of the text; untrained compares
features of a network that has learnt nothing. Read a run without a baseline only beside --control constant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textgan_env.training.adversarial import SMOKE, PolicyGradientAgent, PolicyGradientConfig
from textgan_env.training.agent import run_command, sized_for
from textgan_env.utils.errors import require
from textgan_env.utils.kinds import TokenNetworkKind
from textgan_env.utils.options import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.discriminators import RankDiscriminator
    from textgan_env.envs import EpisodeBatch
    from textgan_env.policies import Policy
    from textgan_env.rewards import Texts
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Step


@dataclass(frozen=True)
class RankGANConfig(PolicyGradientConfig):
    """Train a policy by RankGAN."""

    discriminator: TokenNetworkKind = "pair"
    d_objective: Literal["ranking"] = "ranking"  # type: ignore[assignment]
    """What the ranker learns: to rank real texts above written ones."""
    rule: Literal["paper", "reference"] = "paper"
    """paper: a text ranks among real ones; reference: among the others that G has just written."""
    references: int = 16
    """Real texts that a text is compared with (U)."""
    comparison: int = 16
    """Real texts beside which a text of G ranks (C), with the rule of the paper."""
    gamma: float | None = None
    """How much a cosine counts; None: 16, and 1 where cosines are summed over the references (reference)."""
    rollouts: int = 4
    """Completions of each prefix (N); 0: no completions, each token gets the whole text's reward."""
    transform: Literal["prob", "logit", "log", "minimax", "2p-1"] = "logit"
    """What the reward makes of the rank R: itself, log R/(1-R), log R, -log(1-R) or 2R-1."""
    baseline: Literal["none", "position", "leave-one-out"] = "leave-one-out"
    """What is subtracted from the credit: nothing, the batch's mean at the position, or the mean of the other texts."""


def fast(task: str) -> RankGANConfig:
    """Minutes on two cores."""
    return sized_for(task, RankGANConfig(preset="fast", task=task, select="last"))


def paper(task: str) -> RankGANConfig:
    """The published code's sizes, schedule and rates; 150 rounds of D of one epoch where it has 50 of three."""
    return RankGANConfig(
        preset="paper", task=task, select="last", mle_batch_size=64, mle_epochs=120, weight_decay=0.0, dropout=0.0,
        ema_decay=0.0, discriminator="conv", d_pretraining=150, d_steps=5, d_batch_size=32, rounds=200, g_steps=1,
        batch_size=32, learning_rate=1e-2, rollouts=16, rule="reference", transform="prob", baseline="none",
    )  # fmt: skip


def smoke(task: str) -> RankGANConfig:
    """As small as it can be."""
    return RankGANConfig(task=task, rollouts=2, **SMOKE)


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "paper": paper, "smoke": smoke}


@dataclass(frozen=True)
class ContestCredit:
    """The reward of the published code: the share of each text in a softmax over the texts of the batch.

    The n-th completion of a prefix competes with the n-th completions of the others' prefixes of the same length, and
    with the texts that have ended by then. So shares add up to 1 at each position: what one text wins another loses.

    Args:
        policy: Completes the texts.
        ranker: Its logits compete.
        transform: f of log R / (1 - R), R the share.
        rollouts: N; 0: the whole texts compete.
    """

    policy: Policy
    ranker: RankDiscriminator
    transform: str
    rollouts: int

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """The mean of f over N contests at the wanted tokens, float32 (B, T)."""
        import torch

        from textgan_env.ops.parallel import by_rows
        from textgan_env.ops.reward_kinds import TRANSFORMS

        (logits_BTN,) = by_rows(self._logits, texts, wanted_BT)
        # A share may round to 1; its logit is to be finite.
        share_BTN = logits_BTN.double().log_softmax(0).clamp(max=-1e-6)
        reward_BTN = TRANSFORMS[self.transform](share_BTN - torch.log(-torch.expm1(share_BTN)))
        return reward_BTN.mean(2).float() * wanted_BT

    def _logits(self, texts: Texts, wanted_BT: Tensor) -> tuple[Tensor]:
        """What competes after each token of each text, float (B, T, N)."""
        from textgan_env.discriminators import score_logits
        from textgan_env.rewards import complete

        whole_B = score_logits(self.ranker, texts.tokens_BT)
        logits_BTN = whole_B[:, None, None].repeat(1, wanted_BT.shape[1], max(1, self.rollouts))
        if self.rollouts:
            # A prefix of p tokens ends with the token in column p - 1.
            prefixes_BT = (wanted_BT & ~texts.last_BT).roll(1, dims=1)
            how: dict[str, Any] = {"keys": texts.keys, "rollouts": self.rollouts, "end_token": texts.end_token}
            done = complete(self.policy, texts.tokens_BT, prefixes_BT, **how)
            logits_BTN[done.row_R, done.prefix_R - 1, done.rollout_R] = score_logits(self.ranker, done.tokens_RT)
        return (logits_BTN,)


class RankGAN(PolicyGradientAgent):
    """G learns from ranks of its texts by completions, the ranker to rank real texts above them.

    References and the comparison set are drawn anew for each g-step and each batch of D, and are the same within it.
    """

    config: RankGANConfig
    discriminator: RankDiscriminator
    logit_pays: ClassVar = False  # a rank among references is no log p / q

    def __init__(self, config: RankGANConfig, task: Task) -> None:
        at_least(0, config, "rollouts")
        alone = "rule reference pays texts by a contest among them alone: it takes no objective"
        require(config.rule == "paper" or config.objective is None, f"{alone}, found {config.objective}")
        super().__init__(config, task)
        how = {"rollouts": max(1, config.rollouts), "transform": config.transform}
        completes = config.rollouts and config.rule == "paper"
        self.envs = self.make_envs(config.batch_size, reward="rollout" if completes else "terminal", **how)

    def new_discriminator(self, **options: Any) -> RankDiscriminator:
        """The ranker as it is drawn."""
        from textgan_env.discriminators import RankDiscriminator

        config, task = self.config, self.task
        usual = 1.0 if config.rule == "reference" else 16.0  # summed over 16 references, 1 is as sharp
        gamma = usual if config.gamma is None else config.gamma
        sizes = {"references": config.references, "comparison": config.comparison, "gamma": gamma, "rule": config.rule}
        options = {"network": config.discriminator, "seed": self.seed("discriminator"), **sizes, **options}
        ranker = RankDiscriminator(task.vocab_size, task.max_length, **options)
        self.draw_sets(ranker, config.seed)
        return ranker.to(config.device)

    def draw_sets(self, ranker: RankDiscriminator, seed: int, batch: int = 0) -> None:
        """New references and a new comparison set."""
        from textgan_env.ops.sampling import derived_generator

        ranker.draw(self.d_task.writable("train"), derived_generator(seed, "references", batch))

    def d_batch(self, step: Step, lr_scale: float = 1.0) -> Numbers:
        """A batch of the ranker, against new references; chance is a rank of 1 / (C + 1), so 1/2 says nothing."""
        self.draw_sets(self.discriminator, step.seed, step.batch)
        numbers = super().d_batch(step, lr_scale)
        return {name: number for name, number in numbers.items() if name not in ("d_accuracy", "d_value")}

    def collect(self, step: Step) -> EpisodeBatch:
        """B texts of G with their ranks, all beside the same references and the same comparison set."""
        from textgan_env.rewards import controlled

        config = self.config
        self.draw_sets(self.discriminator, step.seed)
        batch = super().collect(step)
        if config.rule == "paper" or not self.envs.game.reward.judged:
            return batch
        contest = ContestCredit(self.behaviour_policy(), self.discriminator, config.transform, config.rollouts)
        control = None if config.control == "untrained" else config.control
        credit_BT = controlled(control, lambda: contest).credit(batch, batch.mask_BT)
        return replace(batch, credit_BT=credit_BT, own_credit_BT=credit_BT)

    def advantage(self, batch: EpisodeBatch) -> Tensor:
        """Credit less the baseline, float (B, T)."""
        from textgan_env.ops.losses import baseline

        return batch.credit_BT - baseline(self.config.baseline, batch.credit_BT, batch.mask_BT)


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(RankGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
