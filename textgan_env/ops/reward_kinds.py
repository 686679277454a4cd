"""Names of rewards, their transforms and their controls: what options offer and environments take. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Transform:
    """One row of `TRANSFORMS`: f in R = f(D(text)).

    Attributes:
        function: f, from D's logit (real is high): float tensor to float tensor of the same shape and dtype.
        about: What f is, in a few words.
        limits: The lowest and the highest value that credit can have; None where it has no ends.
        compares_rows: Whether credit is afterwards replaced by its rank among the texts of the batch.
    """

    function: Callable[[Tensor], Tensor]
    about: str
    limits: tuple[float, float] | None = None
    compares_rows: bool = False

    def __call__(self, logits: Tensor) -> Tensor:
        """The reward of each logit, in its dtype."""
        return self.function(logits)

    @property
    def middle(self) -> float:
        """The reward where D does not know: D = .5."""
        import torch

        return float(self.function(torch.zeros((), dtype=torch.float64)))


def _log(logits: Tensor) -> Tensor:
    """Log D."""
    from torch.nn.functional import logsigmoid

    return logsigmoid(logits)


def _minimax(logits: Tensor) -> Tensor:
    """-log(1 - D)."""
    from torch.nn.functional import softplus

    return softplus(logits)


_RANK = "D, then its rank among the texts of the batch: LeakGAN; needs several rows"
#: Every transform by its name: a new one is one row here. None loses precision where a probability rounds to 0 or 1.
TRANSFORMS: Mapping[str, Transform] = {
    "prob": Transform(lambda logits: logits.sigmoid(), "D: SeqGAN", (0.0, 1.0)),
    "logit": Transform(lambda logits: logits, "log D - log(1 - D), the log ratio of real to generated"),
    "log": Transform(_log, "log D, the non-saturating reward"),
    "minimax": Transform(_minimax, "-log(1 - D), the reward of the minimax game"),
    "2p-1": Transform(lambda logits: (logits / 2).tanh(), "2D - 1", (-1.0, 1.0)),
    "rank": Transform(lambda logits: logits.sigmoid(), _RANK, (0.0, 1.0), compares_rows=True),
}

#: How an environment pays, see `textgan_env.rewards.RewardSpec`.
RewardName = Literal["terminal", "difference", "rollout", "dense"]
#: Rewards that know nothing of the text.
ControlName = Literal["constant", "random", "shuffled"]
#: What the scores of completions are computed in.
PrecisionName = Literal["float32", "bf16"]
#: The names of `RewardName`.
REWARDS: tuple[str, ...] = get_args(RewardName)
#: The names of `ControlName`.
CONTROLS: tuple[str, ...] = get_args(ControlName)
#: The names of `PrecisionName`.
PRECISIONS: tuple[str, ...] = get_args(PrecisionName)

# The type of an option: its choices come from the table. A type checker knows no such choices: to it they are text.
if TYPE_CHECKING:
    TransformName: TypeAlias = str
else:
    #: Any transform.
    TransformName = Literal[tuple(TRANSFORMS)]
