"""Expert iteration: search with G and D writes better texts than G alone, and G learns them by maximum likelihood.

The scheme of AlphaZero, for text as in SelfGAN (Scialom et al. 2021) and GCN (Lamprier et al. 2022). --search resample
weighs whole texts of G and draws again, smc does so while they grow; best keeps the best of M texts; tree tries many
continuations before each token, the promising ones more often (PUCT). Presets:

  fast    the small discriminator (the default)
  smoke   seconds, to see that everything runs

--control random or shuffled replaces D's opinion by one that knows nothing of the text, constant by none at all: then G
learns its own texts (self-training); untrained asks a discriminator that has learnt nothing. --search-for likelihood
searches for what G itself finds probable: low temperature in disguise.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from textgan_env.training.adversarial import SMOKE, AdversarialAgent, PolicyGradientAgent, PolicyGradientConfig
from textgan_env.training.agent import run_command, sized_for
from textgan_env.utils.errors import require
from textgan_env.utils.kinds import DiscriminatorNetworkKind
from textgan_env.utils.options import above_zero, at_least

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from textgan_env.rewards import Texts
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Step


@dataclass(frozen=True)
class ExpertIterationConfig(PolicyGradientConfig):
    """Train a policy by expert iteration."""

    discriminator: DiscriminatorNetworkKind = "pair"
    search: Literal["resample", "smc", "best", "tree"] = "resample"
    """How better texts are written: whole texts drawn again by weight, their prefixes, too, the best of some whole
    texts, or by tree search."""
    search_for: Literal["discriminator", "likelihood"] = "discriminator"
    """What makes a text better: D's logit, or G's own log-probability, a control."""
    real_share: float = 0.5
    """Share of the texts learnt that are real."""
    alpha: float = 1.0
    """A text weighs exp(alpha logit); its value in a tree search is the sigmoid of alpha logit."""
    proposals: int = 8
    """Texts that resample, smc and best write for each that is learnt (M)."""
    resample_every: int = 4
    """Tokens between two draws of smc (k)."""
    rollouts: int = 1
    """Completions by which smc weighs a prefix (N); 0: D's logit of the prefix, for a recurrent D."""
    simulations: int = 16
    """Continuations tried before each token of a tree search."""
    width: int = 8
    """Most probable tokens that a tree search tries after a prefix."""
    c_puct: float = 1.0
    """Weight of G's probabilities beside values in a tree search."""
    visit_temperature: float = 1.0
    """A tree search draws a token in proportion to visits^(1 / this)."""


def fast(task: str) -> ExpertIterationConfig:
    """Minutes on two cores."""
    return sized_for(task, ExpertIterationConfig(preset="fast", task=task, select="last"))


def smoke(task: str) -> ExpertIterationConfig:
    """As small as it can be."""
    return ExpertIterationConfig(task=task, proposals=2, **(SMOKE | {"g_steps": 2}))


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "smoke": smoke}


class ExpertIteration(PolicyGradientAgent):
    """G maximises the log-probability of texts that a search with G_0 and D wrote, G_0 being G as the round began.

    By resampling they are drawn from ``G_0(y) exp(alpha logit(y)) / Z``. D learnt to tell texts of G_0 from real ones,
    so with alpha 1 the best D makes the real distribution the target. It stays the same for all g-steps of a round,
    however far G has come. Where there is an objective O, ``(1 - w) logit + w O`` takes the place of the logit.
    """

    config: ExpertIterationConfig
    curves: ClassVar[tuple[str, ...]] = (*AdversarialAgent.curves, "effective_share")

    def __init__(self, config: ExpertIterationConfig, task: Task) -> None:
        at_least(1, config, "proposals", "resample_every")
        at_least(0, config, "real_share", "rollouts")
        at_least(1, config, "simulations", "width")
        above_zero(config, "alpha", "c_puct", "visit_temperature")
        asked = config.search_for == "discriminator" or config.control is None
        require(
            asked, f"search_for likelihood asks no discriminator: there is no control of it, found {config.control}"
        )
        reads = config.search != "smc" or config.rollouts or config.discriminator == "recurrent"
        expected = "rollouts 0 weighs prefixes by D's own logit: discriminator must be recurrent"
        require(bool(reads), f"{expected}, found {config.discriminator}")
        again = "a search asks about one text several times: repeat_decay must be 1"
        require(config.repeat_decay == 1, f"{again}, found {config.repeat_decay}")
        self.real = round(config.real_share * config.batch_size)
        expected = "real_share must leave room for texts that were searched for"
        require(self.real < config.batch_size, f"{expected}, found {config.real_share}")
        super().__init__(config, task)
        self.writer = copy.deepcopy(self.policy).eval().requires_grad_(False)
        self.modules["writer"] = self.writer

    def g_step(self, step: Step) -> Numbers:
        """Search with G as it was when the round began, mix real texts in, and learn them."""
        from textgan_env.ops.losses import credit_numbers
        from textgan_env.ops.sampling import draw_seed
        from textgan_env.rewards import Keys, Texts

        self.policy.eval()
        if step.repeat == 0:
            self.writer.load_state_dict(self.policy.state_dict())
        found, numbers = self.searched(step.generator)
        credit_BT = self.logits(found, step.generator)[:, None] * found.mask_BT
        real_BT = self.real_texts(step.generator, self.real)
        keys = Keys.counted(draw_seed(step.generator), self.real, device=self.policy.device)
        real = Texts.finished(real_BT, (real_BT != self.task.vocab_size).sum(1), keys, self.task.end_token)
        texts = found.joined(real)
        return {**numbers, **credit_numbers(credit_BT, found.mask_BT), **self.ascend(texts, texts.mask_BT.float())}

    def searched(self, generator: torch.Generator) -> tuple[Texts, Numbers]:
        """Better texts than G's own, as many as are learnt beside real ones."""
        from textgan_env.ops.sampling import draw_seed
        from textgan_env.rewards import Keys, TreeSearch, best_of, look_ahead, resample

        config, count, task = self.config, self.config.batch_size - self.real, self.task
        proposals = 1 if config.search == "tree" else config.proposals
        keys = Keys.counted(draw_seed(generator), count * proposals, device=self.policy.device)

        def whole(texts: Texts) -> Tensor:
            """Log of the weight of each text."""
            return config.alpha * self.logits(texts, generator)

        def expected(texts: Texts) -> Tensor:
            """The same, expected of a prefix."""
            return look_ahead(self.writer, texts, whole, config.rollouts) if config.rollouts else whole(texts)

        def value(texts: Texts) -> Tensor:
            """Between 0 and 1: how probably a text is real, or the geometric mean of its tokens' probabilities."""
            logit_R = whole(texts)
            return logit_R.sigmoid() if config.search_for == "discriminator" else (logit_R / texts.lengths_B).exp()

        if config.search == "tree":
            sizes = (config.simulations, config.width, config.c_puct, config.visit_temperature)
            return TreeSearch(self.writer, value, *sizes).generate(keys, task.max_length, end_token=task.end_token), {}
        if config.search == "best":
            given = (self.writer, keys, task.max_length, whole)
            return best_of(*given, proposals=proposals, end_token=task.end_token), {}
        every, weight = (config.resample_every, expected) if config.search == "smc" else (None, whole)
        weighed = (self.writer, keys, task.max_length, weight)
        texts, share = resample(*weighed, count=count, every=every, end_token=task.end_token)
        return texts, {"effective_share": share}

    def logits(self, texts: Texts, generator: torch.Generator) -> Tensor:
        """What is searched for: D's logit of each text, as the run's control has it, or G's log-probability of it."""
        import torch

        from textgan_env.ops.sampling import draw_seed
        from textgan_env.rewards import Keys, Texts, for_texts

        if self.config.search_for == "likelihood":
            with torch.no_grad():
                return for_texts(self.writer, texts.keys).log_prob(texts.tokens_BT, texts.mask_BT).sum(1)
        # Completions of one text have one key; a random number is wanted for each.
        keys = Keys.counted(draw_seed(generator), len(texts), device=texts.tokens_BT.device)
        return self.score_texts(Texts.finished(texts.tokens_BT, texts.lengths_B, keys, texts.end_token))


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(ExpertIteration, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
