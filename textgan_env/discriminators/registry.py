"""Discriminators by the name that options and saved runs use, see `textgan_env.utils.kinds`."""

import inspect
from typing import Any

from textgan_env.discriminators.base import DiscriminatorModule
from textgan_env.utils import kinds
from textgan_env.utils.errors import require

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
    discriminator = kinds.named(DISCRIMINATORS, kind, "discriminator")
    known = inspect.signature(discriminator).parameters
    unknown = ", ".join(sorted(options.keys() - known.keys()))
    require(not unknown, f"the {kind} discriminator takes {', '.join(known)}, found {unknown}")
    made: DiscriminatorModule = discriminator(vocab_size=vocab_size, max_length=max_length, seed=seed, **options)
    return made
