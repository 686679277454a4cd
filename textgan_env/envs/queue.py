"""Which discriminator judges which text: a new one waits until a row starts its next text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textgan_env.discriminators import Discriminator, score_features, score_logits
from textgan_env.ops.episodes import Bools, Ints
from textgan_env.rewards import CreditSource, Texts
from textgan_env.tasks import Task
from textgan_env.utils.errors import require


class DiscriminatorQueue:
    """The one or two discriminators that judge B texts, so that no text is judged by two.

    Attributes:
        versions: D, oldest first; at most two are alive.
        version_B: int64; the place in ``versions`` of the D that judges each row's text.

    Args:
        rows: B.
        task: Says what a discriminator must read.
        leaks: Whether observations hold features, so that all versions must have equally many.
    """

    def __init__(self, rows: int, task: Task, *, leaks: bool) -> None:
        self.task, self.leaks = task, leaks
        self.versions: list[Discriminator] = []
        self.version_B: Ints = np.zeros(rows, dtype=np.int64)

    def begin(self, rows_B: Bools) -> None:
        """Some rows start a text: the newest D judges it."""
        self.version_B[rows_B] = len(self.versions) - 1

    def add(self, discriminator: Discriminator, busy_B: Bools) -> bool:
        """Let each row take a new D when it next starts a text, so that no text is judged by two.

        At most two are alive: while rows that began under an older D are still being judged by it, nothing is queued.

        Args:
            discriminator: Is not to be trained any more; train a copy.
            busy_B: bool; the rows whose text is unfinished.

        Returns:
            Whether it was queued; if not, ask again after more texts have ended.

        Raises:
            InputError: If it reads another vocabulary or another T, or its weights are not all on one device.
        """
        self._check(discriminator)
        if len(self.versions) < 2:
            self.versions.append(discriminator)
        elif not (busy_B & (self.version_B == 0)).any():  # the older one has no text left to judge
            self.versions = [self.versions[1], discriminator]
            self.version_B[:] = 0
        elif not (busy_B & (self.version_B == 1)).any():  # the newer one has not judged any yet
            self.versions[1] = discriminator
        else:
            return False
        return True

    def score_real(self, tokens_BT: Ints, rows_B: Bools) -> NDArray[np.float64]:
        """The probability that each of some rows' texts is real, float64 (rows,)."""
        score_B = np.zeros(len(rows_B))
        for discriminator, chosen_B in self._judging(rows_B):
            score_B[chosen_B] = score_logits(discriminator, torch.from_numpy(tokens_BT[chosen_B])).sigmoid().numpy()
        return score_B[rows_B]

    def features(self, tokens_BT: Ints, rows_B: Bools) -> NDArray[np.float32]:
        """What D makes of some rows' prefixes, float32 (rows, F)."""
        features_BF = np.zeros((len(rows_B), self.versions[-1].feature_size), dtype=np.float32)
        for discriminator, chosen_B in self._judging(rows_B):
            found = score_features(discriminator, torch.from_numpy(tokens_BT[chosen_B]), tile=32)
            features_BF[chosen_B] = found.float().numpy()
        return features_BF[rows_B]

    def credit_source(self, source_of: Callable[[Discriminator], CreditSource]) -> CreditSource:
        """A source that asks, for each row, what ``source_of`` makes of the D that judges it."""
        sources = [source_of(discriminator) for discriminator in self.versions]
        first = int(self.version_B[0])
        return sources[first] if (self.version_B == first).all() else _ByVersion(sources, self.version_B)

    def _judging(self, rows_B: Bools) -> Iterator[tuple[Discriminator, Bools]]:
        """Each D that judges some of the rows, and which."""
        for version, discriminator in enumerate(self.versions):
            chosen_B = rows_B & (self.version_B == version)
            if chosen_B.any():
                yield discriminator, chosen_B

    def _check(self, discriminator: Discriminator) -> None:
        """Refuse a D of another vocabulary, T or number of features, or one that is in several places."""
        for name in ("vocab_size", "max_length"):
            has, needs = getattr(discriminator, name), getattr(self.task, name)
            require(has == needs, f"the discriminator must have {name}={needs} as task '{self.task.name}', found {has}")
        if isinstance(discriminator, nn.Module):
            places = {str(part.device) for part in (*discriminator.parameters(), *discriminator.buffers())}
            expected = "the discriminator must have all its weights on one device that holds numbers"
            one = len(places) <= 1 and "meta" not in places
            require(one, f"{expected}, found {' and '.join(sorted(places))}")
        if self.leaks and self.versions:
            has, needs = discriminator.feature_size, self.versions[-1].feature_size
            require(has == needs, f"the discriminator must have feature_size={needs} as the one before, found {has}")


@dataclass(frozen=True)
class _ByVersion:
    """Asks each row's own source; only where rows that step side by side began under two D."""

    sources: Sequence[CreditSource]
    version_B: Ints

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """The credit of each row by its own source, float32 (B, T)."""
        version_B = torch.from_numpy(self.version_B).to(wanted_BT.device)
        credit_BT = torch.zeros_like(wanted_BT, dtype=torch.float32)
        for version, source in enumerate(self.sources):
            chosen_BT = wanted_BT & (version_B == version)[:, None]
            if chosen_BT.any():
                credit_BT += source.credit(texts, chosen_BT)
        return credit_BT
