"""The best discriminator there is, where both distributions are known."""

import torch
from torch import Tensor, nn

from textgan_env.policies.base import PolicyModule
from textgan_env.utils.errors import require


class RatioDiscriminator(nn.Module):
    """Its logit is log p / q, p the true distribution and q a policy's: no other tells their texts apart better.

    Goodfellow et al. 2014, proposition 1, as a logit. That of a prefix is the same of the probabilities that a text
    begins so. It follows the policy, whose weights it shares; a copy stays as it is.

    Args:
        real: The true distribution, e.g. ``task.oracle``.
        policy: Generates.
        max_length: T.

    Raises:
        InputError: If the two do not have one vocabulary.
    """

    feature_size = 1

    def __init__(self, real: PolicyModule, policy: PolicyModule, max_length: int) -> None:
        super().__init__()
        found = f"found V={real.vocab_size} and V={policy.vocab_size}"
        require(real.vocab_size == policy.vocab_size, f"both distributions must be over one vocabulary, {found}")
        self.real, self.policy = real, policy
        self.vocab_size, self.max_length = policy.vocab_size, max_length

    def token_logits(self, tokens_BT: Tensor) -> Tensor:
        """Log p / q of each prefix, the token itself included: float (B, T), 0 after the end of a text."""
        return self._of_tokens(tokens_BT).cumsum(1) * (tokens_BT != self.vocab_size)

    @torch.no_grad()
    def next_logits(self, tokens_BT: Tensor) -> Tensor:
        """Log p / q of each prefix with each token that could come next: float (B, T, V), at t of the t before it."""
        before_BT = (self._of_tokens(tokens_BT).cumsum(1)).roll(1, 1)
        before_BT[:, 0] = 0
        more_BTV = self.real.all_log_probs(tokens_BT) - self.policy.all_log_probs(tokens_BT)
        return before_BT[..., None] + more_BTV

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """Log p / q of each text, float (B,)."""
        return self._of_tokens(tokens_BT).sum(1)

    def features(self, tokens_BT: Tensor) -> Tensor:
        """The logit, float (B, 1)."""
        return self.logits(tokens_BT)[:, None]

    def relaxed_logits(self, soft_BTV: Tensor, mask_BT: Tensor) -> Tensor:
        """The mean logit over texts whose tokens are drawn independently, float (B,): all V^T texts are listed.

        Args:
            soft_BTV: float; the probability of each token at each place.
            mask_BT: bool; True everywhere, as texts that end early are not listed.

        Raises:
            InputError: If a text ends early, or there are over a million texts.
        """
        few = self.max_length < 20 and self.vocab_size**self.max_length <= 10**6
        require(few and bool(mask_BT.all()), "a mean over all texts needs few of them, each of T tokens")
        tokens_V, share_BS = torch.arange(self.vocab_size, device=soft_BTV.device), soft_BTV.new_ones(len(soft_BTV), 1)
        for soft_BV in soft_BTV.unbind(1):
            share_BS = (share_BS[:, :, None] * soft_BV[:, None]).flatten(1)
        texts_ST = torch.cartesian_prod(*[tokens_V] * self.max_length).view(-1, self.max_length)
        return share_BS @ self.logits(texts_ST).to(share_BS)

    def relaxed_features(self, soft_BTV: Tensor, mask_BT: Tensor) -> Tensor:
        """The mean logit, float (B, 1)."""
        return self.relaxed_logits(soft_BTV, mask_BT)[:, None]

    @torch.no_grad()
    def _of_tokens(self, tokens_BT: Tensor) -> Tensor:
        """What each token adds, float (B, T)."""
        mask_BT = tokens_BT != self.vocab_size
        return self.real.log_prob(tokens_BT, mask_BT) - self.policy.log_prob(tokens_BT, mask_BT)
