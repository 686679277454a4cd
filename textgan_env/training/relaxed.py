"""What agents share whose gradient goes through the text itself, not through its probability.

D's loss is differentiated in the tokens, which Gumbel-softmax has made mixtures of tokens, and these in G's weights.
Loads no torch when imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from textgan_env.training.adversarial import PolicyGradientAgent
from textgan_env.utils.errors import require
from textgan_env.utils.kinds import token_networks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from textgan_env.ops.parallel import Sum
    from textgan_env.rewards import Texts
    from textgan_env.runs.numbers import Numbers


def require_relaxable(kind: str) -> None:
    """Refuse a discriminator that no gradient goes through to its tokens, before anything is trained.

    Raises:
        InputError: If it is one.
    """
    known = token_networks()
    through = f"a gradient reaches the tokens through {', '.join(known)} only"
    require(kind in known, f"{through}: found --discriminator {kind}")


@dataclass(frozen=True)
class RelaxedTexts:
    """B texts of G, and what softens them.

    Attributes:
        texts: As G writes them.
        noise_BTV: float32, see `textgan_env.ops.relaxation.race_noise`.
        inverse_temperature: Beta.
    """

    texts: Texts
    noise_BTV: Tensor
    inverse_temperature: float


class RelaxedAgent(PolicyGradientAgent):
    """G follows the slope of a loss in its soft texts; a subclass says which loss.

    The token that G reads next is the hard one, so the slope reaches the weights through each token's distribution and
    through what is remembered of earlier ones, but never through the choice of an earlier token.
    """

    def relaxed(self, generator: torch.Generator, count: int, inverse_temperature: float) -> RelaxedTexts:
        """Some fresh texts of G, with the noise that softens them."""
        from textgan_env.ops.relaxation import race_noise

        texts = self.generated(generator, count)
        noise_BTV = race_noise(texts.tokens_BT, self.task.vocab_size, generator)
        return RelaxedTexts(texts, noise_BTV, inverse_temperature)

    def soft(self, fake: RelaxedTexts) -> Tensor:
        """The soft texts, float (B, T, V), without gradients; after the end of a text they mean nothing."""
        import torch

        self.policy.eval()
        with torch.no_grad():
            return self._soften(fake.inverse_temperature, fake.texts.tokens_BT, fake.noise_BTV)

    def slope(
        self, soft_BTV: Tensor, loss: Callable[[Tensor], Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The gradient of a loss in soft texts, D in eval mode; with ``--control shuffled`` each text has another's.

        Args:
            soft_BTV: float.
            loss: Soft texts -> float scalar, a sum over texts.
            generator: Of the control.

        Returns:
            The gradient, float (B, T, V), and the loss, without gradients.
        """
        import torch

        from textgan_env.ops.sampling import evaluating

        leaf_BTV = soft_BTV.detach().requires_grad_()
        with evaluating(self.discriminator):
            total = loss(leaf_BTV)
        (slope_BTV,) = torch.autograd.grad(total, leaf_BTV)
        if self.config.control == "shuffled":
            slope_BTV = slope_BTV[torch.randperm(len(slope_BTV), generator=generator).to(slope_BTV.device)]
        return slope_BTV, total.detach()

    def descend_slope(self, fake: RelaxedTexts, slope_BTV: Tensor) -> Numbers:
        """One step of G down the mean over texts of a loss whose gradient in the soft texts is known."""
        from textgan_env.ops.losses import gradient_snr
        from textgan_env.ops.parallel import backward
        from textgan_env.training.mle import trained

        columns = (fake.texts.tokens_BT, fake.texts.mask_BT, fake.noise_BTV, slope_BTV)
        objective = partial(self._along, fake.inverse_temperature)
        _, halves_P = backward(trained(self.policy), columns, objective, halves=True)
        snr = gradient_snr(*halves_P) if len(halves_P) == 2 else 0.0
        return {"gradient_norm": self.update(self.g_optimizer)[0], "gradient_snr": snr}

    def _along(
        self, inverse_temperature: float, tokens_BT: Tensor, mask_BT: Tensor, noise_BTV: Tensor, slope_BTV: Tensor
    ) -> dict[str, Sum]:
        """How far some soft texts are along their slope: its gradient in the weights is that of the loss."""
        soft_BTV = self._soften(inverse_temperature, tokens_BT, noise_BTV)
        return {"loss": ((soft_BTV * slope_BTV).sum(2)[mask_BT].sum(), float(len(tokens_BT)))}

    def _soften(self, inverse_temperature: float, tokens_BT: Tensor, noise_BTV: Tensor) -> Tensor:
        """Soft texts of G as it is now, float (B, T, V); differentiable."""
        from textgan_env.ops.relaxation import soft_tokens

        logp_BTV = self.policy.all_log_probs(tokens_BT)
        return soft_tokens(logp_BTV, tokens_BT, noise_BTV, inverse_temperature)
