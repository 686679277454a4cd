"""Negative log-likelihoods of whole texts under any policy."""

import torch
from torch import Tensor

from textgan_env.ops.sampling import derived_seed, evaluating
from textgan_env.policies import LatentPolicy, Policy, PolicyModule
from textgan_env.rewards import Keys, for_texts
from textgan_env.utils.errors import require

#: Texts that are scored at once.
TILE = 512
#: Draws of z for each text where a policy has a latent vector: of an evaluation, and of one while a run goes on.
LATENT_DRAWS, FEW_LATENT_DRAWS = 32, 8


def nll(
    policy: Policy, tokens_BT: Tensor, mask_BT: Tensor, *, latent_draws: int = LATENT_DRAWS
) -> tuple[float, Tensor]:
    """Negative log-likelihood of texts under a policy, dropout off, without gradients.

    Under a policy with a random initial state for each text: an upper bound in expectation, from one state a text.
    Under one with a latent vector, likewise: from K importance samples, see `LatentPolicy.text_log_prob`.

    Args:
        policy: Scores at its own temperature.
        tokens_BT: int64.
        mask_BT: bool; the tokens that count.
        latent_draws: K, where the policy has a latent vector.

    Returns:
        Mean in nats per token (of all tokens, so long texts weigh more), and each text's own mean, float64 (B,).

    Raises:
        InputError: If the policy's log-probabilities have another shape than the texts, or hold NaN.
    """
    sum_B, counts = torch.zeros(len(tokens_BT), dtype=torch.float64), mask_BT.sum(1)
    keys = Keys.counted(derived_seed(0, "nll"), len(tokens_BT), device=policy.device)
    # Like lengths side by side, so that short texts are not read on to the end of long ones.
    length_B = _lengths(mask_BT).cpu()
    with evaluating(policy), torch.no_grad():
        for rows in length_B.argsort(stable=True).split(TILE):
            rows_R = rows.to(policy.device)
            its = policy.for_rows(rows_R) if isinstance(policy, PolicyModule) else policy
            some = tokens_BT[rows].to(policy.device), mask_BT[rows].to(policy.device)
            sum_B[rows] = -_text_log_prob(its, *some, keys[rows_R], latent_draws).cpu()
    return float(sum_B.sum() / counts.sum()), sum_B / counts.clamp(min=1)


def _text_log_prob(policy: Policy, tokens_BT: Tensor, mask_BT: Tensor, keys: Keys, latent_draws: int) -> Tensor:
    """Log-probability of texts as `nll` says, float64 (B,)."""
    if isinstance(policy, LatentPolicy):
        key = {"seed_B": keys.seed_B, "episode_B": keys.episode_B}
        logp_BT = policy.text_log_prob(tokens_BT, mask_BT, **key, draws=latent_draws)[:, None]
    else:
        longest = max(1, int(_lengths(mask_BT).amax()))
        mask_BT = mask_BT[:, :longest]
        logp_BT = for_texts(policy, keys).log_prob(tokens_BT[:, :longest], mask_BT)
        expected, found = tuple(mask_BT.shape), tuple(logp_BT.shape)
        fits = f"the policy's log-probabilities must have shape (B, T)={expected}, found {found}"
        require(found == expected, fits)
    require(not bool(logp_BT.isnan().any()), "the policy's log-probabilities hold NaN")
    return logp_BT.double().sum(1)


def _lengths(mask_BT: Tensor) -> Tensor:
    """How far the cells that count reach, int64 (B,)."""
    return (mask_BT * torch.arange(1, 1 + mask_BT.shape[1], device=mask_BT.device)).amax(1)
