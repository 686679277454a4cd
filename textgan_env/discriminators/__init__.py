"""Discriminators: text -> how real it looks; the registry, the fit and the report."""

import inspect
from typing import Any

from textgan_env.discriminators.base import Discriminator as Discriminator
from textgan_env.discriminators.base import DiscriminatorModule as DiscriminatorModule
from textgan_env.discriminators.base import Part as Part
from textgan_env.discriminators.conv import ConvDiscriminator as ConvDiscriminator
from textgan_env.discriminators.fit import EQUILIBRIUM_VALUE as EQUILIBRIUM_VALUE
from textgan_env.discriminators.fit import DiscriminatorReport as DiscriminatorReport
from textgan_env.discriminators.fit import ReplayedTexts as ReplayedTexts
from textgan_env.discriminators.fit import discriminator_report as discriminator_report
from textgan_env.discriminators.fit import fit_discriminator as fit_discriminator
from textgan_env.discriminators.fit import fit_soft_step as fit_soft_step
from textgan_env.discriminators.infilling import InfillingDiscriminator as InfillingDiscriminator
from textgan_env.discriminators.lm import LMDiscriminator as LMDiscriminator
from textgan_env.discriminators.pair import PairDiscriminator as PairDiscriminator
from textgan_env.discriminators.rank import RankDiscriminator as RankDiscriminator
from textgan_env.discriminators.recurrent import RecurrentDiscriminator as RecurrentDiscriminator
from textgan_env.discriminators.scoring import require_precision as require_precision
from textgan_env.discriminators.scoring import require_token_logits as require_token_logits
from textgan_env.discriminators.scoring import score_completions as score_completions
from textgan_env.discriminators.scoring import score_features as score_features
from textgan_env.discriminators.scoring import score_logits as score_logits
from textgan_env.discriminators.scoring import score_token_logits as score_token_logits
from textgan_env.utils import kinds
from textgan_env.utils.errors import require, require_known

#: Name -> class of every discriminator with weights.
DISCRIMINATORS: dict[str, type[DiscriminatorModule]] = kinds.classes(kinds.DISCRIMINATORS)


def make_discriminator(
    kind: str, *, vocab_size: int, max_length: int, seed: int = 0, **options: Any
) -> DiscriminatorModule:
    """Build a discriminator by name, with the arguments that `DiscriminatorModule.config` gave, or others.

    Args:
        kind: A key of `DISCRIMINATORS`.
        vocab_size: V.
        max_length: T.
        seed: Of the initial weights.
        **options: More arguments of that class.

    Raises:
        InputError: If the name or an option is unknown, or a value is refused by the class.
    """
    require_known("discriminator", kind, DISCRIMINATORS)
    discriminator: type[Any] = DISCRIMINATORS[kind]
    known = inspect.signature(discriminator).parameters
    unknown = ", ".join(sorted(options.keys() - known.keys()))
    require(not unknown, f"the {kind} discriminator takes {', '.join(known)}, found {unknown}")
    made: DiscriminatorModule = discriminator(vocab_size=vocab_size, max_length=max_length, seed=seed, **options)
    return made
