"""What a token is worth: completions of every prefix, sources of credit, transforms, controls."""

from textgan_env.ops.reward_kinds import CONTROLS, REWARDS, TRANSFORMS, Transform
from textgan_env.rewards.credit import (
    ConstantCredit,
    CreditSource,
    EntropyCredit,
    Estimate,
    KLCredit,
    RandomCredit,
    RolloutCredit,
    ShuffledCredit,
    TextCredit,
    check_gamma,
    check_transform,
    rank_rescaled,
)
from textgan_env.rewards.rollouts import TILE, Completions, complete, for_texts, generate
from textgan_env.rewards.spec import RewardSpec, Source
from textgan_env.rewards.texts import Keys, Texts

__all__ = [
    "CONTROLS", "REWARDS", "TILE", "TRANSFORMS", "Completions", "ConstantCredit", "CreditSource", "EntropyCredit",
    "Estimate", "KLCredit", "Keys", "RandomCredit", "RewardSpec", "RolloutCredit", "ShuffledCredit", "Source",
    "TextCredit", "Texts", "Transform", "check_gamma", "check_transform", "complete", "for_texts", "generate",
    "rank_rescaled",
]  # fmt: skip
