"""What a token is worth: completions of every prefix, sources of credit, transforms, controls."""

from textgan_env.rewards.credit import (
    CONTROLS,
    TRANSFORMS,
    ConstantCredit,
    CreditSource,
    EntropyCredit,
    KLCredit,
    RandomCredit,
    RolloutCredit,
    ShuffledCredit,
    TextCredit,
    Texts,
    check_gamma,
    check_transform,
    rank_rescaled,
)
from textgan_env.rewards.rollouts import TILE, Completions, Keys, complete, for_texts, generate

__all__ = [
    "CONTROLS",
    "TILE",
    "TRANSFORMS",
    "Completions",
    "ConstantCredit",
    "CreditSource",
    "EntropyCredit",
    "KLCredit",
    "Keys",
    "RandomCredit",
    "RolloutCredit",
    "ShuffledCredit",
    "TextCredit",
    "Texts",
    "check_gamma",
    "check_transform",
    "complete",
    "for_texts",
    "generate",
    "rank_rescaled",
]
