"""What a policy with a latent vector can do besides: texts between two texts, and texts near a text."""

import torch
from torch import Tensor

from textgan_env.ops.sampling import derived_seed, evaluating, keyed_normal
from textgan_env.policies import Decoding, LatentPolicy, Policy
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import Task
from textgan_env.utils.errors import require, require_at_least


def interpolate(policy: Policy, task: Task, first: str, last: str, count: int = 7) -> list[str]:
    """Texts along the straight line between the z of two texts, the most probable token always.

    Args:
        policy: A `LatentPolicy`.
        task: Says which words tokens stand for.
        first: Where the line begins: the mean of the encoder for this text.
        last: Where it ends.
        count: How many, both ends included.

    Returns:
        ``count`` texts; the first and the last are what the decoder makes of the two given ones, often other texts.

    Raises:
        InputError: If the policy has no latent vector, ``count`` is below 2, or a text is empty, too long or has words
            of which the task knows nothing.
    """
    require_at_least(2, count=count)
    mean_2Z, _ = _encoded(policy, task, first, last)
    share_N1 = torch.linspace(0, 1, count, device=mean_2Z.device)[:, None]
    return _written(policy, task, (1 - share_N1) * mean_2Z[0] + share_N1 * mean_2Z[1])


def near(policy: Policy, task: Task, text: str, count: int = 7, *, seed: int = 0) -> list[str]:
    """Texts of z that the encoder draws for a text, the most probable token always.

    Args:
        policy: A `LatentPolicy`.
        task: Says which words tokens stand for.
        text: Any text of the task.
        count: How many.
        seed: Of the draws.

    Raises:
        InputError: As `interpolate`; ``count`` must be at least 1.
    """
    require_at_least(1, count=count)
    mean_1Z, log_variance_1Z = _encoded(policy, task, text)
    keys = Keys.counted(derived_seed(seed, "near"), count, device=mean_1Z.device)
    noise_NZ = keyed_normal(keys.seed_B, keys.episode_B, (mean_1Z.shape[1],)).to(mean_1Z)
    return _written(policy, task, mean_1Z + (log_variance_1Z / 2).exp() * noise_NZ)


def _encoded(policy: Policy, task: Task, *texts: str) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of z for some texts, float (B, Z)."""
    latent = isinstance(policy, LatentPolicy)
    require(latent, "only a policy with a latent vector can do this: train one with textgan train vae")
    assert isinstance(policy, LatentPolicy)
    rows = [[*task.encode(text), *([] if task.end_token is None else [task.end_token])] for text in texts]
    for text, tokens in zip(texts, rows, strict=True):
        fits = len(text.split()) > 0 and len(tokens) <= task.max_length
        require(fits, f"a text must have 1 to {task.max_length} tokens, its end counted, found {len(tokens)}")
    tokens_BT = torch.tensor([[*tokens, *[task.vocab_size] * (task.max_length - len(tokens))] for tokens in rows])
    with evaluating(policy), torch.no_grad():
        return policy.encode(tokens_BT.to(policy.device))


def _written(policy: Policy, task: Task, z_BZ: Tensor) -> list[str]:
    """The most probable text of each z, token by token."""
    assert isinstance(policy, LatentPolicy)
    given = policy.with_latent(z_BZ).with_decoding(Decoding(deterministic=True))
    keys = Keys.counted(0, len(z_BZ), device=z_BZ.device)
    tokens_BT, _ = generate(given, keys, task.max_length, end_token=task.end_token)
    return [task.text(tokens) for tokens in tokens_BT.tolist()]
