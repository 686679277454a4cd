"""Templates of real texts as an agent draws them, a policy's fillings, and D's batches of both."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from textgan_env.discriminators import InfillingDiscriminator
from textgan_env.evaluation import blank_nll
from textgan_env.ops.losses import nll_sum
from textgan_env.ops.metrics import roc_auc
from textgan_env.ops.parallel import Sum, by_rows
from textgan_env.ops.sampling import draw_seed, evaluating
from textgan_env.ops.templates import draw_templates, given_cells
from textgan_env.policies import PolicyModule
from textgan_env.rewards import Keys, Texts, generate
from textgan_env.tasks import Task
from textgan_env.training.mle import epochs
from textgan_env.utils.errors import require


@dataclass(frozen=True)
class Blanks:
    """Which tokens of real texts are blank.

    Args:
        task: Gives the texts.
        first: Share of a text that is blank, in the first round of a schedule.
        last: In its last round.
        contiguous: Whether the blanks of a text stand side by side.
        whole: Share of texts that are blank as a whole.

    Raises:
        InputError: If a share is not 0 to 1.
    """

    task: Task
    first: float = 0.5
    last: float = 0.5
    contiguous: bool = True
    whole: float = 0.0

    def __post_init__(self) -> None:
        """Check the shares."""
        for name, share in (("mask_rate", self.first), ("mask_to", self.last), ("whole", self.whole)):
            require(0 <= share <= 1, f"{name} must be 0 to 1, found {share}")

    def rate(self, done: float) -> float:
        """The share of blanks when a part of the schedule is done, 0 to 1: in a straight line."""
        return self.first + (self.last - self.first) * done

    def draw(self, tokens_BT: Tensor, generator: torch.Generator, rate: float | None = None) -> Tensor:
        """Templates of real texts, int64 (B, T).

        Args:
            tokens_BT: int64.
            generator: Of the choice.
            rate: The share of blanks; None: drawn for each text, between the first and the last.
        """
        drawn_2B = torch.rand(2, len(tokens_BT), generator=generator)
        rates_B = self.first + (self.last - self.first) * drawn_2B[1] if rate is None else drawn_2B.new_tensor(rate)
        rates_B = torch.where(drawn_2B[0] < self.whole, 1.0, rates_B)
        how = {"contiguous": self.contiguous}
        return draw_templates(tokens_BT.cpu(), self.task.vocab_size, rates_B, generator, **how).to(tokens_BT.device)

    def cells(self, tokens_BT: Tensor, template_BT: Tensor) -> Tensor:
        """The tokens of texts that are blank in their templates, bool (B, T)."""
        return (tokens_BT != self.task.vocab_size) & ~given_cells(template_BT, self.task.vocab_size)

    def fill(self, policy: PolicyModule, template_BT: Tensor, seed: int) -> Texts:
        """A text of a policy for each template; processes that train together share them out."""
        task, keys = self.task, Keys.counted(seed, len(template_BT), device=template_BT.device)

        def some(keys: Keys, template_BT: Tensor) -> tuple[Tensor, Tensor]:
            given = policy.given(template_BT, task.end_token)
            return generate(given, keys, task.max_length, end_token=task.end_token)

        tokens_BT, lengths_B = by_rows(some, keys, template_BT)
        return Texts.finished(tokens_BT, lengths_B, keys, task.end_token)

    def beside_real(
        self, policy: PolicyModule, real_BT: Tensor, generator: torch.Generator, rate: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """What D learns from: real texts, then fillings of their templates, int64 (2 B, T), and all their templates."""
        template_BT = self.draw(real_BT, generator, rate)
        fake_BT = self.fill(policy, template_BT, draw_seed(generator)).tokens_BT
        return torch.cat([real_BT, fake_BT]), torch.cat([template_BT, template_BT])

    def learnt(
        self, task: Task, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[int | None, Tensor, Tensor]]:
        """The batches of an epoch of maximum likelihood of a task: seed of dropout (see `epochs`), texts, templates."""
        for seed, tokens_BT in epochs(task, batch_size, generator):
            yield seed, tokens_BT, self.draw(tokens_BT, generator)

    def likelihood(self, policy: PolicyModule, tokens_BT: Tensor, template_BT: Tensor) -> dict[str, Sum]:
        """``loss``: the negative log-likelihood of the blanks of real texts, and their number."""
        mask_BT = self.task.scored(tokens_BT) & self.cells(tokens_BT, template_BT)
        return {"loss": nll_sum(policy.given(template_BT, self.task.end_token).log_prob(tokens_BT, mask_BT), mask_BT)}

    def nll_valid(self, policy: PolicyModule) -> float:
        """`blank_nll` of the valid split, at the mean share of blanks."""
        of_split = partial(blank_nll, policy, self.task, split="valid", contiguous=self.contiguous)
        return of_split(mask_rate=self.rate(0.5))

    def told_apart(
        self, discriminator: InfillingDiscriminator, tokens_BT: Tensor, template_BT: Tensor
    ) -> dict[str, float]:
        """``d_auc`` and ``d_accuracy`` of D at blanks of texts that it has not seen, as `beside_real` gives them."""
        given = discriminator.given(template_BT)
        with evaluating(given), torch.no_grad():
            logits_BT, counts_BT = given.fitted_logits(tokens_BT)
        half = len(tokens_BT) // 2
        real, fake = (logits_BT[side][counts_BT[side]].cpu().numpy() for side in (slice(half), slice(half, None)))
        return {"d_auc": roc_auc(real, fake), "d_accuracy": float((real > 0).mean() + (fake <= 0).mean()) / 2}
