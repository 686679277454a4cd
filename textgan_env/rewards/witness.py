"""Credit by a two-sample test: what a text adds to the distance of G's texts from real ones."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from textgan_env.discriminators import Discriminator, score_features
from textgan_env.ops.kernels import FeatureKernel, mean_of_others, require_pairs, squared_mmd
from textgan_env.rewards.texts import Texts
from textgan_env.utils.errors import require


@dataclass(frozen=True)
class WitnessCredit:
    """Minus twice the witness: how much more a text is like G's other texts than like real ones.

    The gradient of the squared maximum mean discrepancy (Gretton et al. 2012) is ``2 E_q[w(y) grad log q(y)]`` with the
    witness ``w(y) = E_{y' of G} k(y, y') - E_{r real} k(y, r)``, so REINFORCE with the credit -2 w follows it down. The
    mean over G is that over the other texts of the batch, so the gradient has no bias. As a baseline the mean credit of
    the others is taken off, computed as if this text were not there: else it would be in its own baseline.

    The texts that were asked about last are read once, so D and kernel must stay as they are.

    Args:
        discriminator: Its features are compared; its logit has no part.
        real_RT: int64; real texts, at least 2.
        kernel: Compares features.

    Raises:
        InputError: If there are fewer than two real texts.
    """

    discriminator: Discriminator
    real_RT: Tensor
    kernel: FeatureKernel

    def __post_init__(self) -> None:
        """Check the number of texts."""
        require_pairs(len(self.real_RT))

    @cached_property
    def real_RF(self) -> Tensor:
        """Features of the real texts."""
        return score_features(self.discriminator, self.real_RT)

    @cached_property
    def _last(self) -> list[tuple[Texts, tuple[Tensor, Tensor]]]:
        """The texts that were asked about last, and their kernels."""
        return []

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """That of the whole text at the wanted tokens, float32 (B, T).

        Raises:
            InputError: If there are fewer than three texts, or one is unfinished.
        """
        rows = len(texts)
        require(rows >= 3, f"the witness compares texts: it needs at least 3 side by side, found {rows}")
        require(bool(texts.ended_B.all()), "the witness of a text is not known before the text has ended")
        own_BB, cross_BR = self._kernels(texts)
        own_B, real_B = mean_of_others(own_BB), cross_BR.mean(1)
        # The same of the others: the pairs in which this text is not, and the mean over all but it.
        among_B = (own_B.sum() - 2 * own_B) / (rows - 2)
        away_B = (real_B.sum() - real_B) / (rows - 1)
        witness_B = (own_B - real_B) - (among_B - away_B)
        return (-2 * witness_B).float()[:, None] * wanted_BT

    def squared_mmd(self, texts: Texts) -> Tensor:
        """The squared discrepancy of the texts from the real ones, without bias: it can be negative. float64 scalar."""
        return squared_mmd(*self._kernels(texts), self.kernel(self.real_RF, self.real_RF))

    def _kernels(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Of each text with each, float64 (B, B), and with each real one, (B, R)."""
        if not (self._last and self._last[0][0] is texts):
            features_BF = score_features(self.discriminator, texts.tokens_BT)
            kernels = self.kernel(features_BF, features_BF), self.kernel(features_BF, self.real_RF)
            self._last[:] = [(texts, kernels)]
        return self._last[0][1]
