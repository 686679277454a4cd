"""The ranker of RankGAN: how near a text is to real ones, beside others."""

from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.discriminators.base import DiscriminatorModule, Part
from textgan_env.utils.errors import require_at_least, require_known
from textgan_env.utils.kinds import DISCRIMINATORS, token_networks

#: Whether the comparison with the others is made for each reference, or once for the sum over references.
RankRule = Literal["paper", "reference"]


class RankDiscriminator(DiscriminatorModule):
    """How near a text is to references, which are real, as its share among the texts of a comparison set.

    With F the features of another network and s(y, u) = gamma cos(F(y), F(u)), the share of a text y beside the
    comparison set C is the mean over references u

        ``R(y) = mean_u exp s(y, u) / (exp s(y, u) + sum_{c in C} exp s(c, u))``

    as in RankGAN (Lin et al. 2017). Rule ``reference``, that of its published code, adds s up over the references
    first: exp and the share are taken of the sums. The logit is log R / (1 - R): of chance it is -log C, not 0.
    Both sets are buffers; they are empty texts until `draw`.

    Args:
        vocab_size: V.
        max_length: T.
        network: Whose features are compared: one of `token_networks()`. Its own head takes no part.
        references: U, how many references.
        comparison: C, how many texts to compare with.
        gamma: How much a cosine counts; 0: every text has the same share.
        rule: ``paper`` or ``reference``.
        seed: Of the network's initial weights.

    Raises:
        InputError: If a name is unknown or a number out of range.
    """

    kind: ClassVar[str] = "rank"
    references_RT: Tensor
    comparison_CT: Tensor

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        *,
        network: str = "pair",
        references: int = 16,
        comparison: int = 16,
        gamma: float = 16.0,
        rule: RankRule = "paper",
        seed: int = 0,
    ) -> None:
        require_known("network of a ranker", network, token_networks())
        require_known("rule", rule, get_args(RankRule))
        require_at_least(1, references=references, comparison=comparison)
        require_at_least(0, gamma=gamma)
        reader: Any = DISCRIMINATORS[network].load()(vocab_size, max_length, seed=seed)
        super().__init__(vocab_size, max_length, reader.feature_size, reader.dropout.p)
        self.reader: DiscriminatorModule = reader
        # No linear head: the network's stands for it where the base asks for a device, and learns nothing.
        self.output = reader.output.requires_grad_(False)
        self.network, self.gamma, self.rule = network, gamma, rule
        self.references, self.comparison = references, comparison
        for name, rows in (("references_RT", references), ("comparison_CT", comparison)):
            setattr(self, name, nn.Buffer(torch.full((rows, max_length), vocab_size)))

    def draw(self, real_RT: Tensor, generator: torch.Generator) -> None:
        """New references and a new comparison set from real texts, each text drawn by itself.

        Args:
            real_RT: int64.
            generator: Of the choice; on the CPU.
        """
        for set_XT in (self.references_RT, self.comparison_CT):
            set_XT.copy_(real_RT[torch.randint(len(real_RT), (len(set_XT),), generator=generator)])

    def make_optimizer(self, learning_rate: float | None = None) -> torch.optim.Optimizer:
        """The optimizer of the network whose features are compared."""
        return self.reader.make_optimizer(learning_rate)

    def features(self, tokens_BT: Tensor) -> Tensor:
        """Those of the network, float (B, F)."""
        return self.reader.features(tokens_BT)

    def head(self, features_BF: Tensor) -> Tensor:
        """Log R / (1 - R) beside the comparison set, float (B,), from features, float (B, F)."""
        sets_XF = self.dropout(self.features(torch.cat([self.references_RT, self.comparison_CT])))
        reference_RF, other_CF = sets_XF.split([self.references, self.comparison])
        return self.beside(self.closeness(features_BF, reference_RF), self.closeness(other_CF, reference_RF))

    def closeness(self, features_BF: Tensor, reference_RF: Tensor) -> Tensor:
        """Gamma times the cosines with the references, float (B, R); with rule ``reference`` their sum, (B, 1)."""
        text_BF, references = functional.normalize(features_BF, dim=1), functional.normalize(reference_RF, dim=1)
        # No matrix product: it may round a row by where it stands, and a score must not depend on the order of texts.
        cosine_BR = torch.stack([(text_BF * reference_F).sum(1) for reference_F in references], dim=1)
        return self.gamma * (cosine_BR.sum(1, keepdim=True) if self.rule == "reference" else cosine_BR)

    @staticmethod
    def beside(closeness_BR: Tensor, other_CR: Tensor) -> Tensor:
        """Log R / (1 - R) of each text beside others, float (B,), from what `closeness` says of both."""
        margin_BR = closeness_BR - other_CR.logsumexp(0)
        # R is the mean of sigmoids, 1 - R that of the opposite ones.
        return functional.logsigmoid(margin_BR).logsumexp(1) - functional.logsigmoid(-margin_BR).logsumexp(1)

    def ranking_loss(self, real_HT: Tensor, fake_HT: Tensor) -> tuple[Tensor, Tensor]:
        """What the ranker is fitted to: real texts rank high among written ones, written ones low among real ones.

        Rule ``paper``: -(log R(real | C = the written ones) + log(1 - R(written | C = the real ones))) / 2. Rule
        ``reference``: log R(written) - log R(real), both in one softmax over the whole batch, whose denominator drops
        out: what is left is the difference of the two mean scores.

        Args:
            real_HT: int64.
            fake_HT: int64; as many.

        Returns:
            The loss, nats, and how much nearer the real text is, both float (H,): real and written text of one place.
        """
        features_XF = self.dropout(self.features(torch.cat([real_HT, fake_HT, self.references_RT])))
        sizes = [len(real_HT), len(fake_HT), self.references]
        real_HF, fake_HF, reference_RF = features_XF.split(sizes)
        real_HR, fake_HR = (self.closeness(side_HF, reference_RF) for side_HF in (real_HF, fake_HF))
        nearer_H = real_HR.sum(1) - fake_HR.sum(1)
        if self.rule == "reference":
            return -nearer_H, nearer_H
        losses = functional.softplus(-self.beside(real_HR, fake_HR)), functional.softplus(self.beside(fake_HR, real_HR))
        return (losses[0] + losses[1]) / 2, nearer_H

    @torch.no_grad()
    def parts(self, tokens_T: Tensor) -> list[Part]:
        """One part: a share is no sum over the text. The constant is the logit of chance."""
        chance = -torch.tensor(float(self.comparison)).log()
        logit = float(self.logits(tokens_T[None])[0])
        return [Part("nearness to the references", (), logit - float(chance)), Part("constant", (), float(chance))]
