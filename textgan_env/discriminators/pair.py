"""The small discriminator of words and near pairs of words."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.discriminators.base import DiscriminatorModule, Part, mean_rows
from textgan_env.utils.errors import require_at_least
from textgan_env.utils.reading import check_weights


class PairDiscriminator(DiscriminatorModule):
    """A small discriminator that generalises: which words are usual, and which pairs of near words.

    A text is read between two marks, both PAD: one before its first token, one after its last. The logit is a sum over
    the text: each token (and the end mark) has a score of its own, and any two of them, marks included, that stand
    d = 1..D apart add <left_d, right_d>, an inner product of rank r: a low-rank table of all pairs of words.
    However much PAD follows the last token, the end mark counts once; a text of T tokens has one, too.

    Features, F = D * r + 1: for each distance the element-wise product of left and right, summed over the text,
    then the sum of single scores. Being sums, those of a growing text can be updated token by token. The head
    starts as all ones and is not decayed. The tables are, strongly: a plain one learns its training texts by heart.
    Measured on samples of SeqGAN's oracle, against LSTM, bigram and unigram texts: dropout lowered the held-out
    AUC where weight decay raised it, so it is off; distance 2 is what sees through bigram texts.

    Args:
        vocab_size: V.
        max_length: T.
        rank: r.
        distances: D.
        dropout: Share of features set to 0 in training.
        seed: Of the initial weights.

    Raises:
        InputError: If a size is below 1 or a share out of range.
    """

    kind: ClassVar[str] = "pair"

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        *,
        rank: int = 16,
        distances: int = 2,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        require_at_least(1, rank=rank, distances=distances)
        check_weights((vocab_size + 1) * (2 * distances * rank + 1), "a pair discriminator")
        super().__init__(vocab_size, max_length, distances * rank + 1, dropout)
        self.rank, self.distances = rank, distances
        generator = torch.Generator().manual_seed(seed)
        # Small: what rare words start with is noise that fitting would first have to undo.
        self.left = nn.Parameter(0.03 * torch.randn(vocab_size + 1, distances * rank, generator=generator))
        self.right = nn.Parameter(0.03 * torch.randn(vocab_size + 1, distances * rank, generator=generator))
        self.single = nn.Parameter(torch.zeros(vocab_size + 1, 1))
        nn.init.ones_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def make_optimizer(self, learning_rate: float | None = None) -> torch.optim.Optimizer:
        """AdamW, weight decay 2 on the tables and 0 on the head, at rate 5e-3 unless another is given."""
        tables = {"params": [self.left, self.right, self.single], "weight_decay": 2.0}
        head = {"params": list(self.output.parameters()), "weight_decay": 0.0}
        return torch.optim.AdamW([tables, head], lr=5e-3 if learning_rate is None else learning_rate, fused=True)

    def features(self, tokens_BT: Tensor) -> Tensor:
        """Sums over the text: the products of each distance, then the single scores; float (B, D * r + 1)."""
        self._check(tokens_BT)
        marked_BS = functional.pad(tokens_BT, (1, 1), value=self.vocab_size)
        left_BSX = functional.embedding(marked_BS, self.left)
        right_BSX = functional.embedding(marked_BS[:, 1:], self.right)
        single_BS1 = functional.embedding(marked_BS[:, 1:], self.single)
        return self._sums(left_BSX, right_BSX, single_BS1, tokens_BT != self.vocab_size)

    def relaxed_features(self, soft_BTV: Tensor, mask_BT: Tensor) -> Tensor:
        """See `DiscriminatorModule.relaxed_features`; here the exact mean over tokens drawn independently.

        No product has a place twice, and the mean of a product of independent numbers is that of their means.
        """
        self._check_relaxed(soft_BTV, mask_BT)
        tables = (self.left, self.right, self.single)
        rows_BTX = mean_rows(soft_BTV, mask_BT, torch.cat(tables, dim=1))
        mark_B1X = torch.cat([table[-1] for table in tables]).expand(len(rows_BTX), 1, -1)
        marked_BSX = torch.cat([mark_B1X, rows_BTX, mark_B1X], dim=1)
        left_BSX, right_BSX, single_BS1 = marked_BSX.split([table.shape[1] for table in tables], dim=2)
        return self._sums(left_BSX, right_BSX[:, 1:], single_BS1[:, 1:], mask_BT)

    def _sums(self, left_BSX: Tensor, right_BSX: Tensor, single_BS1: Tensor, mask_BT: Tensor) -> Tensor:
        """`features` from the rows of the tables: of the marked text, and twice of the marked text but its first."""
        # What follows the start or a token is a token or the end mark; what follows that is filling.
        counts_BS = functional.pad(mask_BT.to(self.left.dtype), (1, 0), value=1.0)
        right_BSX, single_BS = right_BSX * counts_BS[..., None], single_BS1[..., 0] * counts_BS
        sums = []
        for distance in range(1, self.distances + 1):
            # Position s of `right` is position s + 1 of the marked text. No pair is left where d > T + 1.
            columns = slice((distance - 1) * self.rank, distance * self.rank)
            right_BPr = right_BSX[:, distance - 1 :, columns]
            sums.append((left_BSX[:, : right_BPr.shape[1], columns] * right_BPr).sum(1))
        return torch.cat([*sums, single_BS.sum(1, keepdim=True)], dim=1)

    @torch.no_grad()
    def parts(self, tokens_T: Tensor) -> list[Part]:
        """Each token's own score and that of each pair of near tokens (see `DiscriminatorModule.parts`)."""
        marked_S = functional.pad(tokens_T[tokens_T != self.vocab_size], (1, 1), value=self.vocab_size)
        weight_F = self.output.weight[0]
        values = [self.single[marked_S[1:], 0] * weight_F[-1]]
        places: list[tuple[str, tuple[int, ...]]] = [("token", (at,)) for at in range(len(marked_S) - 1)]
        for distance in range(1, min(self.distances, len(marked_S) - 1) + 1):
            columns = slice((distance - 1) * self.rank, distance * self.rank)
            left_Pr, right_Pr = self.left[marked_S[:-distance], columns], self.right[marked_S[distance:], columns]
            values.append((left_Pr * right_Pr) @ weight_F[columns])
            # Place 0 is the mark before the first token.
            places += [(f"pair, {distance} apart", (at - 1, at - 1 + distance)) for at in range(len(left_Pr))]
        return self._weighted(places, torch.cat(values))
