"""The kinds of discriminator, by the name that options and saved runs use."""

import inspect
from typing import Any

from textgan_env.discriminators.base import DiscriminatorModule
from textgan_env.discriminators.conv import ConvDiscriminator
from textgan_env.discriminators.pair import PairDiscriminator
from textgan_env.utils.errors import require

#: Fixed on purpose: what a file can name is listed here, it never says what to import.
DISCRIMINATORS: dict[str, type[DiscriminatorModule]] = {
    discriminator.kind: discriminator for discriminator in (ConvDiscriminator, PairDiscriminator)
}


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
    kinds = ", ".join(DISCRIMINATORS)
    require(kind in DISCRIMINATORS, f"the kind of a discriminator must be one of {kinds}, found '{kind}'")
    known = inspect.signature(DISCRIMINATORS[kind]).parameters
    unknown = ", ".join(sorted(options.keys() - known.keys()))
    require(not unknown, f"the {kind} discriminator takes {', '.join(known)}, found {unknown}")
    arguments = {"vocab_size": vocab_size, "max_length": max_length, "seed": seed, **options}
    return DISCRIMINATORS[kind](**arguments)
