"""Credit of what was filled into blanks."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from textgan_env.discriminators import InfillingDiscriminator
from textgan_env.ops.parallel import by_rows
from textgan_env.ops.reward_kinds import TRANSFORMS
from textgan_env.ops.sampling import evaluating
from textgan_env.ops.templates import given_cells
from textgan_env.rewards.credit import check_gamma, to_go
from textgan_env.rewards.texts import Texts
from textgan_env.utils.errors import require, require_known


@dataclass(frozen=True)
class BlankCredit:
    """What each filled token is paid by a D that knows the template, and what later ones are still to be paid.

    MaskGAN (Fedus et al. 2018, eq. 3 to 5): r_t = f(D(text up to t | template)), f = log D there, and the credit of a
    token is the sum over filled places s >= t of gamma^(s - t) r_s. A given token is paid nothing.

    Args:
        discriminator: D.
        template_BT: int64; the template of each text.
        transform: f, a name of `TRANSFORMS`; not one that compares texts.
        gamma: Discount for each place from one to the other, given ones counted.

    Raises:
        InputError: If the name is unknown or compares texts, or gamma is out of range.
    """

    discriminator: InfillingDiscriminator
    template_BT: Tensor
    transform: str = "log"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Check name and number."""
        require_known("reward transform", self.transform, TRANSFORMS)
        compares = TRANSFORMS[self.transform].compares_rows
        require(not compares, f"each blank is paid as it is filled, and '{self.transform}' compares whole returns")
        check_gamma(self.gamma)

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """Credit to go of the wanted tokens, float32 (B, T)."""
        return by_rows(self._of_each, texts, wanted_BT, self.template_BT)[0]

    def _of_each(self, texts: Texts, wanted_BT: Tensor, template_BT: Tensor) -> tuple[Tensor]:
        """The same by each text alone."""
        # `Any`: whatever can be given a template and has a logit for every prefix.
        given: Any = self.discriminator.given(template_BT)
        with evaluating(given), torch.no_grad():
            logits_BT = given.token_logits(texts.tokens_BT)
        finite = bool(torch.isfinite(logits_BT).all())
        require(finite, "the discriminator's logits of filled blanks must be finite, found others")
        filled_BT = texts.mask_BT & ~given_cells(template_BT, given.vocab_size)
        return (to_go(TRANSFORMS[self.transform](logits_BT) * filled_BT, self.gamma) * wanted_BT,)
