"""Texts that can be differentiated: each token as a mixture of all tokens, by noise that is drawn given the token."""

import torch
from torch import Tensor
from torch.nn import functional


def race_noise(tokens_BT: Tensor, vocab_size: int, generator: torch.Generator) -> Tensor:
    """What `soft_tokens` draws from: independent numbers from Exp(1), float32 (B, T, V).

    Args:
        tokens_BT: The texts; the noise lies on their device.
        vocab_size: V.
        generator: Of the numbers; on the CPU.
    """
    noise_BTV = torch.empty(*tokens_BT.shape, vocab_size).exponential_(generator=generator)
    return noise_BTV.to(tokens_BT.device)


def soft_tokens(logp_BTV: Tensor, tokens_BT: Tensor, noise_BTV: Tensor, inverse_temperature: float) -> Tensor:
    """Each token as ``softmax(beta (log G + Gumbel noise))``, the noise drawn given that the token is its arg max.

    The Gumbel-softmax of Jang et al. 2017 and Maddison et al. 2017, its noise drawn after the token. As a race: token v
    arrives after an exponential time of rate G(v), minus its logarithm is log G(v) + Gumbel noise, and the first to
    arrive is a draw from G. The winner's time is from Exp(1) whoever wins, and the others come an exponential time of
    their own rate later. So texts are written as everywhere else, and token and noise are distributed as if the noise
    had come first. The noise counts as fixed: the gradient in log G is that of ``softmax(beta (log G + noise))``.

    Args:
        logp_BTV: float; log-probabilities of all tokens at each prefix; -inf where there can be none.
        tokens_BT: int64; drawn from them. After the end of a text the result means nothing.
        noise_BTV: float; from Exp(1), see `race_noise`.
        inverse_temperature: Beta; the higher, the nearer to one-hot.

    Returns:
        float (B, T, V), rows that add up to 1 and are highest at the token; differentiable in ``logp_BTV``.
    """
    with torch.no_grad():
        logp, noise_BTV = logp_BTV.detach(), noise_BTV.to(logp_BTV.dtype)
        token_BT1 = tokens_BT.clamp(max=logp.shape[2] - 1)[..., None]
        first_BT1 = noise_BTV.gather(2, token_BT1)
        time_BTV = (noise_BTV * (-logp).exp() + first_BT1).scatter(2, token_BT1, first_BT1)
        perturbed_BTV = -time_BTV.log()
    # Zero, with the gradient of log G; where log G is -inf nothing can change.
    moving_BTV = (logp_BTV - logp_BTV.detach()).nan_to_num(nan=0.0)
    return (inverse_temperature * (perturbed_BTV + moving_BTV)).softmax(2)


def one_hot(tokens_BT: Tensor, vocab_size: int, dtype: torch.dtype) -> Tensor:
    """Each token as a mixture that is all on it, float (B, T, V); after the end of a text it means nothing."""
    return functional.one_hot(tokens_BT.clamp(max=vocab_size - 1), vocab_size).to(dtype)
