"""How alike two texts are by their features, and how far apart two sets of texts are: maximum mean discrepancy."""

import torch
from torch import Tensor, nn

from textgan_env.utils.errors import require, require_known

#: Names that `FeatureKernel` knows.
KERNELS = ("gaussian", "mean")
#: Widths of the Gaussians, in median distances.
WIDTHS = (0.5, 1.0, 2.0)
#: Features that are nearer to each other than this are one: what is left of them is rounding.
LEAST_UNIT = 1e-6


class FeatureKernel(nn.Module):
    """k(f, g) of features, in units of the median distance of real ones.

    ``mean`` is the inner product: its discrepancy is the squared distance of the means, and sees nothing else.
    ``gaussian`` is the mean of ``exp(-d^2 / 2 w^2)``, d their distance, over the widths w = 1/2, 1, 2: its discrepancy
    is 0 only where the features have one distribution. Both are unchanged when all features are moved or scaled. The
    unit is a buffer, because it belongs in a checkpoint.

    Args:
        kind: A name of `KERNELS`.

    Raises:
        InputError: If the name is unknown.
    """

    def __init__(self, kind: str = "gaussian") -> None:
        super().__init__()
        require_known("kernel", kind, KERNELS)
        self.kind = kind
        self.unit = nn.Buffer(torch.ones((), dtype=torch.float64))

    def measure(self, real_RF: Tensor) -> None:
        """Take the median distance of these features as the unit.

        Raises:
            InputError: If there are fewer than two texts.
        """
        require_pairs(len(real_RF))
        self.unit.copy_(torch.pdist(real_RF.double()).median().clamp(min=LEAST_UNIT))

    def forward(self, first_AF: Tensor, second_BF: Tensor) -> Tensor:
        """How alike each of the one is to each of the other: float64 (A, B), as differences of means are small."""
        first_AF, second_BF = first_AF.double() / self.unit, second_BF.double() / self.unit
        if self.kind == "mean":
            return first_AF @ second_BF.T
        squared_AB = torch.cdist(first_AF, second_BF).square()
        bells = ((squared_AB / (-2 * width**2)).exp() for width in WIDTHS)
        return sum(bells, torch.zeros_like(squared_AB)) / len(WIDTHS)


def mean_of_others(kernel_BB: Tensor) -> Tensor:
    """How alike each text is to the others of its set, on average; float (B,)."""
    return (kernel_BB.sum(1) - kernel_BB.diagonal()) / (len(kernel_BB) - 1)


def squared_mmd(own_BB: Tensor, cross_BR: Tensor, real_RR: Tensor) -> Tensor:
    """The squared maximum mean discrepancy of two distributions, estimated without bias from B and R texts.

    Gretton et al. 2012, lemma 6. Where the two are equal the mean of the estimate is 0, so that half of the time it is
    negative; the usual estimate, with each text compared with itself, is never negative and too large.

    Args:
        own_BB: Kernel of each text of the one with each.
        cross_BR: With each text of the other.
        real_RR: Of each text of the other with each.

    Returns:
        float scalar.
    """
    return mean_of_others(own_BB).mean() - 2 * cross_BR.mean() + mean_of_others(real_RR).mean()


def require_pairs(real_texts: int) -> None:
    """Refuse a single real text.

    Raises:
        InputError: If there are fewer than two.
    """
    require(real_texts >= 2, f"a discrepancy needs at least 2 real texts, found {real_texts}")
