"""The controls: rewards that know nothing of the text. The discriminator has no part in what is learnt from them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from textgan_env.ops.sampling import Stream, derived_generator, keyed_uniform
from textgan_env.rewards.credit import CreditSource
from textgan_env.rewards.texts import Texts
from textgan_env.utils.errors import require


@dataclass(frozen=True)
class ConstantCredit:
    """1 for every token: a control. Whatever learning it causes, the discriminator had no part in it."""

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """1 at the wanted tokens, float32 (B, T)."""
        return wanted_BT.float()


@dataclass(frozen=True)
class RandomCredit:
    """A uniform random number between 0 and 1 for every token: a control."""

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """U(0, 1) at the wanted tokens, float32 (B, T), keyed like every other draw."""
        positions_T = torch.arange(wanted_BT.shape[1], device=wanted_BT.device)
        seed_B1, episode_B1 = texts.keys.seed_B[:, None], texts.keys.episode_B[:, None]
        return keyed_uniform(seed_B1, episode_B1, position=positions_T, stream=Stream.REWARD).float() * wanted_BT


@dataclass(frozen=True)
class ShuffledCredit:
    """The credit of another text: whole rows of a source, permuted once a batch. A control.

    It keeps the values and how they run along a text, and takes away what they say about this one. A text longer than
    the one whose credit it is given keeps that one's last wanted value to its end: 0 would punish length. A text of
    which nothing is wanted gives nothing: the texts that others are given begin again with the first.

    Args:
        source: Whose rows are permuted.
    """

    source: CreditSource

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """Permuted credit at the wanted tokens, float32 (B, T).

        Raises:
            InputError: If there is only one row.
        """
        rows = len(wanted_BT)
        require(rows >= 2, "the shuffled control needs at least 2 texts side by side, found 1")
        seed, episode = int(texts.keys.seed_B[0]), int(texts.keys.episode_B[0])
        order_B = torch.randperm(rows, generator=derived_generator(seed, "shuffled", episode)).to(wanted_BT.device)
        credit_BT = self.source.credit(texts, wanted_BT)
        donor_X = order_B[wanted_BT.any(1)[order_B]]
        if not len(donor_X):
            return credit_BT
        # Each wanted credit holds until the next, and the first one also before it.
        columns_T = torch.arange(wanted_BT.shape[1], device=wanted_BT.device)
        newest_BT = torch.where(wanted_BT, columns_T, -1).cummax(1).values
        held_BT = torch.where(newest_BT < 0, wanted_BT.byte().argmax(1)[:, None], newest_BT)
        donor_B = donor_X[torch.arange(rows, device=donor_X.device) % len(donor_X)]
        return credit_BT.gather(1, held_BT)[donor_B] * wanted_BT


def controlled(control: str | None, source: Callable[[], CreditSource]) -> CreditSource:
    """A source of credit, or the control in its place.

    Args:
        control: A name of `CONTROLS`; None: no control.
        source: Makes the source; not asked where the control has no use for it.
    """
    if control == "constant":
        return ConstantCredit()
    if control == "random":
        return RandomCredit()
    return ShuffledCredit(source()) if control == "shuffled" else source()
