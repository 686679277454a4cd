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
    DiscriminatorReport,
    FitReport,
    ReplayedTexts,
    discriminator_report,
    fit_discriminator,
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
    "DiscriminatorReport",
    "FitReport",
    "PairDiscriminator",
    "Part",
    "ReplayedTexts",
    "discriminator_report",
    "fit_discriminator",
    "make_discriminator",
    "score_features",
    "score_logits",
]
