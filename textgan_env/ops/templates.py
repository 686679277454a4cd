"""Templates: texts with blanks. How blanks are drawn, and the network that reads a template from both sides.

A template is a row of T numbers: a token where it is given, `BLANK` where it is not, PAD after its end token.
"""

import torch
from torch import Tensor, nn

from textgan_env.utils.errors import require

#: Stands in a template where the token is not given. No token has this number, nor has PAD.
BLANK = -1


def given_cells(template_BT: Tensor, vocab_size: int) -> Tensor:
    """Where a template holds a token, bool (B, T): neither blank nor PAD."""
    return (template_BT != BLANK) & (template_BT != vocab_size)


def followed_cells(template_BT: Tensor, vocab_size: int) -> Tensor:
    """Where some later token is given, so that the text cannot end there: bool (B, T)."""
    given_BT = given_cells(template_BT, vocab_size).long()
    return given_BT.flip(1).cumsum(1).flip(1) - given_BT > 0


def check_template(template_BT: Tensor, vocab_size: int, end_token: int | None = None) -> None:
    """Refuse what is no batch of templates; values are looked at on CPU only, as it would stall a GPU.

    Raises:
        InputError: If the shape or type is another, a number is none of a token, `BLANK` and PAD, or something stands
            after PAD or after the end token.
    """
    shape = tuple(template_BT.shape)
    require(len(shape) == 2 and min(shape) > 0, f"templates must have shape (B, T), found {shape}")
    require(template_BT.dtype == torch.int64, f"templates must be int64, found {template_BT.dtype}")
    if not template_BT.is_cpu:
        return
    low, high = (int(value) for value in torch.aminmax(template_BT))
    expected = (
        f"a template holds tokens 0 to {vocab_size - 1}, {BLANK} for a blank and {vocab_size} (PAD) after its end"
    )
    require(low >= BLANK and high <= vocab_size, f"{expected}, found {low if low < BLANK else high}")
    ended_BT = template_BT == vocab_size
    if end_token is not None:
        ended_BT = ended_BT | (template_BT == end_token)
    require(bool((~ended_BT[:, :-1] | (template_BT[:, 1:] == vocab_size)).all()), "nothing may follow a template's end")


def draw_templates(
    tokens_BT: Tensor, vocab_size: int, rates_B: Tensor, generator: torch.Generator, *, contiguous: bool
) -> Tensor:
    """Make templates of texts: in each, a share of the tokens becomes blank, at least one.

    The end token is a token as any other. Where it is blank, what follows is blank, too, as PAD would give it away.

    Args:
        tokens_BT: int64, PAD after the end; on the CPU.
        vocab_size: V.
        rates_B: float, 0 to 1; the share of each text, rounded to whole tokens.
        generator: Of the places.
        contiguous: Whether the blanks of a text stand side by side; every place for them is equally probable.

    Returns:
        int64 (B, T).
    """
    (rows, length), length_B1 = tokens_BT.shape, (tokens_BT != vocab_size).sum(1, keepdim=True)
    places_T = torch.arange(length)
    count_B1 = torch.minimum((rates_B[:, None] * length_B1).round().long().clamp(min=1), length_B1)
    if contiguous:
        share_B1 = torch.rand(rows, 1, generator=generator, dtype=torch.float64)
        first_B1 = (share_B1 * (length_B1 - count_B1 + 1)).long()
        blank_BT = (places_T >= first_B1) & (places_T < first_B1 + count_B1)
    else:
        lot_BT = torch.rand(rows, length, generator=generator).masked_fill(places_T >= length_B1, 2.0)
        blank_BT = lot_BT.argsort(1).argsort(1) < count_B1
    last_is_blank_B1 = blank_BT.gather(1, (length_B1 - 1).clamp(min=0))
    blank_BT |= (places_T >= length_B1) & last_is_blank_B1
    return tokens_BT.masked_fill(blank_BT, BLANK)


class TemplateReader(nn.Module):
    """Reads templates from both sides: an embedding, a bidirectional LSTM, and a linear layer.

    Args:
        vocab_size: V.
        embed_size: Width of the embedding, and of what comes out.
        hidden_size: Width of the LSTM in each direction.
    """

    def __init__(self, vocab_size: int, embed_size: int, hidden_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size + 2, embed_size)  # PAD, and then the blank
        self.lstm = nn.LSTM(embed_size, hidden_size, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * hidden_size, embed_size)

    @staticmethod
    def weights(vocab_size: int, embed_size: int, hidden_size: int) -> int:
        """How many weights it has."""
        lstm = 8 * hidden_size * (embed_size + hidden_size + 2)
        return (vocab_size + 2) * embed_size + lstm + embed_size * (2 * hidden_size + 1)

    def forward(self, template_BT: Tensor) -> Tensor:
        """What the template says at each place, float (B, T, embed_size)."""
        rows_BT = torch.where(template_BT == BLANK, self.vocab_size + 1, template_BT)
        states_BTH = self.lstm(self.embedding(rows_BT))[0]
        context_BTE: Tensor = self.output(states_BTH)
        return context_BTE
