"""Discriminators: text -> how real it looks; the registry, the fit and the report."""

from textgan_env.discriminators.base import (
    SCORING_TILE,
    Discriminator,
    DiscriminatorModule,
    Part,
    score_features,
    score_logits,
)
from textgan_env.discriminators.conv import ConvDiscriminator
from textgan_env.discriminators.fit import (
    EQUILIBRIUM_VALUE,
    FitReport,
    JudgeReport,
    ReplayedTexts,
    fit_discriminator,
    judge_report,
)
from textgan_env.discriminators.pair import PairDiscriminator
from textgan_env.discriminators.registry import DISCRIMINATORS, make_discriminator

__all__ = [
    "DISCRIMINATORS",
    "EQUILIBRIUM_VALUE",
    "SCORING_TILE",
    "ConvDiscriminator",
    "Discriminator",
    "DiscriminatorModule",
    "FitReport",
    "JudgeReport",
    "PairDiscriminator",
    "Part",
    "ReplayedTexts",
    "fit_discriminator",
    "judge_report",
    "make_discriminator",
    "score_features",
    "score_logits",
]
