"""The CNN's filters over prefixes that grow token by token."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class _OneWidth:
    """The f filters of one width: kernels (width * f, E), the first place first, and where their numbers are."""

    width: int
    kernel_XE: Tensor
    filters: slice
    open: slice


class GrowingMatches:
    """The best match of each filter with any window of a prefix that is filled up with PAD.

    A window that lies inside the prefix never changes again, so only the maximum of these is kept. The match of a
    window that reaches into the padding is kept; each token changes it by the product of one place of the filter with
    the token's embedding less that of PAD. So a token costs as much as one window of each filter would, or less.

    Args:
        embedding: Float (V + 1, E); PAD's is the last.
        kernels: Float (f, width * E) for each width.
        widths: Tokens that the filters see.
        max_length: T.
    """

    def __init__(self, embedding: Tensor, kernels: Sequence[Tensor], widths: Sequence[int], max_length: int) -> None:
        self.embedding, self.max_length = embedding, max_length
        #: The match of each filter with a window that sees PAD alone, float (F,).
        self.blank_F = torch.cat(
            [kernel @ self.embedding[-1].repeat(width) for kernel, width in zip(kernels, widths, strict=True)]
        )
        self.parts: list[_OneWidth] = []
        place = slots = 0
        for width, kernel in zip(widths, kernels, strict=True):
            count = len(kernel)
            # As many windows are open at once as start in the last width - 1 places, or as fit into the text.
            most = count * min(width - 1, max_length - width + 1)
            by_place = kernel.view(count, width, -1).transpose(0, 1).flatten(0, 1)
            self.parts.append(_OneWidth(width, by_place, slice(place, place + count), slice(slots, slots + most)))
            place, slots = place + count, slots + most
        self.slots = slots

    def begin(self, batch_size: int) -> dict[str, Tensor]:
        """Before the first token: ``closed`` float (B, F), ``open`` float (B, X)."""
        closed_BF = self.blank_F.new_full((batch_size, len(self.blank_F)), -math.inf)
        return {"closed": closed_BF, "open": self.blank_F.new_zeros(batch_size, self.slots)}

    def read(self, tokens_B: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Read a token in each prefix.

        Args:
            tokens_B: int64.
            state: ``length`` int64 (B,), the tokens read before, -1 if this one is none yet; ``closed``, the best match
                with a window inside the prefix; ``open``, for each width the matches of its open windows, the one that
                sees the fewest tokens first.

        Returns:
            The best match of each filter, float (B, F), and ``closed`` and ``open`` with this token.
        """
        length_B, closed_BF, open_BX = state["length"], state["closed"], state["open"]
        lengths = length_B.unique().tolist()
        if len(lengths) == 1:
            found = self._read_all(tokens_B, lengths[0], closed_BF, open_BX)
        else:
            found = torch.empty_like(closed_BF), closed_BF.clone(), open_BX.clone()
            for length in lengths:
                rows_r = (length_B == length).nonzero()[:, 0]
                of_rows = self._read_all(tokens_B[rows_r], length, closed_BF[rows_r], open_BX[rows_r])
                for whole, part in zip(found, of_rows, strict=True):
                    whole[rows_r] = part
        return found[0], {"closed": found[1], "open": found[2]}

    def _read_all(
        self, tokens_B: Tensor, length: int, closed_BF: Tensor, open_BX: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read a token in prefixes that all have this length; PAD after T tokens changes nothing."""
        if length in (-1, self.max_length):
            return (self.blank_F.expand_as(closed_BF) if length < 0 else closed_BF), closed_BF, open_BX
        change_BE = functional.embedding(tokens_B, self.embedding) - self.embedding[-1]
        best_BF, closed_BF, read_BX = torch.empty_like(closed_BF), closed_BF.clone(), torch.empty_like(open_BX)
        for part in self.parts:
            at = part.filters
            parts = closed_BF[:, at], open_BX[:, part.open], read_BX[:, part.open]
            best_BF[:, at] = self._read_one(part, length + 1, change_BE, *parts)
        return best_BF, closed_BF, read_BX

    def _read_one(
        self, part: _OneWidth, length: int, change_BE: Tensor, closed_Bf: Tensor, open_BX: Tensor, read_BX: Tensor
    ) -> Tensor:
        """The best match of the filters of one width; brings ``closed_Bf`` and ``read_BX`` to this length in place."""
        width, count, blank_f = part.width, closed_Bf.shape[1], self.blank_F[part.filters]
        # A window starts at T - width at the latest, so that it sees so many tokens now; the others see one more each.
        fewest = max(1, length + width - self.max_length)
        number = min(width - 1, length) - fewest + 1
        if width <= length:
            closing = (width - 1 - max(1, fewest - 1)) * count
            before_Bf = open_BX[:, closing : closing + count] if width > 1 else blank_f
            match_Bf = torch.addmm(before_Bf, change_BE, part.kernel_XE[-count:].t())
            torch.maximum(closed_Bf, match_Bf, out=closed_Bf)
        now_BX, unused_BX = read_BX.tensor_split([max(0, number) * count], dim=1)
        unused_BX.zero_()
        if number <= 0:
            best_Bf = closed_Bf
        else:
            kernel_XE = part.kernel_XE[(fewest - 1) * count : (fewest - 1 + number) * count]
            if fewest > 1:
                torch.addmm(open_BX[:, : number * count], change_BE, kernel_XE.t(), out=now_BX)
            else:
                now_BX[:, :count] = blank_f
                now_BX[:, count:] = open_BX[:, : (number - 1) * count]
                now_BX.addmm_(change_BE, kernel_XE.t())
            best_Bf = torch.maximum(closed_Bf, now_BX.unflatten(1, (number, count)).amax(1))
        return torch.maximum(best_Bf, blank_f) if length + width <= self.max_length else best_Bf


class SlidingMatches:
    """`GrowingMatches` where starting a kernel is dear: a few for all filters, and rows may be of different lengths.

    Windows are kept by how many tokens of the prefix they have read, so that a token is read by moving all of them up
    one place and adding one product. A window that a filter of width w has read w tokens of moves on unchanged.

    Args:
        embedding, kernels, widths, max_length: As of `GrowingMatches`.
    """

    def __init__(self, embedding: Tensor, kernels: Sequence[Tensor], widths: Sequence[int], max_length: int) -> None:
        self.widest, embed_size = max(widths), embedding.shape[1]
        by_place = [
            functional.pad(kernel.view(len(kernel), width, embed_size), (0, 0, 0, self.widest - width))
            for kernel, width in zip(kernels, widths, strict=True)
        ]
        kernel_FWE = torch.cat(by_place)
        #: All filters, place by place, 0 behind their width: float (E, W * F).
        self.kernel_EX = kernel_FWE.permute(2, 1, 0).flatten(1)
        self.change_VE = embedding - embedding[-1]
        blank_F = kernel_FWE.sum(1) @ embedding[-1]
        width_F = torch.cat([
            torch.full((len(kernel),), width, device=embedding.device)
            for kernel, width in zip(kernels, widths, strict=True)
        ])  # fmt: skip
        places_N, features_F = (torch.arange(end, device=embedding.device) for end in (max_length + 2, len(width_F)))
        fits_NF = places_N[:, None] <= max_length - width_F
        #: The match of a window that begins at place n while it has read nothing; -inf where none fits: (T + 2, F).
        self.start_NF = torch.where(fits_NF, blank_F, -math.inf)
        #: Where the windows are that have just been read to their end, in a row of `begin`.
        self.closing_F = width_F * len(width_F) + features_F

    def begin(self, batch_size: int) -> dict[str, Tensor]:
        """Before the first token: ``windows`` float (B, W + 2, F), read 0 to W tokens of; last the best match."""
        shape = batch_size, self.widest + 2, self.start_NF.shape[1]
        return {"windows": self.start_NF.new_full(shape, -math.inf)}

    def read(self, tokens_B: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """As `GrowingMatches.read`, with the state of `begin`."""
        before_BWF, features = state["windows"], self.start_NF.shape[1]
        beginning_B1F = self.start_NF[state["length"] + 1][:, None]
        windows_BWF = torch.cat([beginning_B1F, before_BWF[:, :-2], before_BWF[:, -1:]], dim=1)
        row_BX, best_BF = windows_BWF.flatten(1), windows_BWF[:, -1]
        row_BX[:, features:-features].addmm_(functional.embedding(tokens_B, self.change_VE), self.kernel_EX)
        torch.maximum(best_BF, row_BX.index_select(1, self.closing_F), out=best_BF)
        return windows_BWF.amax(1), {"windows": windows_BWF}


class KnownFeatures:
    """Features of prefixes that were looked at before.

    In a step of LeakGAN the same texts are written, read again to be completed, and read once more for the losses.

    Args:
        most: Prefixes that are kept: the first ones.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: dict[bytes, Tensor] = {}

    def get(self, tokens_BT: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """Features of prefixes filled up with PAD, float (B, F): those kept if they are of all, else new ones."""
        keys = [tokens_T.tobytes() for tokens_T in tokens_BT.numpy()]
        found = [self.kept[key] for key in keys if key in self.kept]
        if len(found) == len(keys):
            return torch.stack(found)
        features_BF = compute()
        if len(self.kept) + len(keys) <= self.most:
            self.kept |= zip(keys, features_BF, strict=True)
        return features_BF
