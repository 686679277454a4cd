"""BLEU against the training texts in the place of a discriminator."""

import torch
from torch import Tensor

from textgan_env.evaluation.evaluate import token_lists
from textgan_env.ops import metrics
from textgan_env.tasks import Task


class BleuDiscriminator:
    """BLEU as a discriminator that never learns, see `textgan_env.discriminators.Discriminator`: PG-BLEU's reward.

    The probability that a text is real is its smoothed BLEU against all training texts, of whole texts as in
    `evaluate` (without the end token). The training texts, since a reward may look at no others: what is measured
    afterwards is BLEU against the test split. It is the baseline "PG-BLEU" of SeqGAN (Yu et al. 2017), which does not
    say the order.

    Args:
        task: Gives the training texts.
        order: n of BLEU-n, 2 or more; 4 is what BLEU usually means.

    Raises:
        InputError: If the order is below 2.
    """

    #: Logits stay within this share of 0 and 1, so that they are finite.
    LEAST = 1e-6

    def __init__(self, task: Task, order: int = 4) -> None:
        self.vocab_size, self.max_length, self.feature_size = task.vocab_size, task.max_length, 1
        self._task = task
        self._references = metrics.BleuReferences(token_lists(task.split("train").tokens_BT, task), order)

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """How real each text looks: float32 (B,), the log-odds of its BLEU."""
        score_B = self._references.scores(token_lists(tokens_BT, self._task))[:, -1]
        return torch.logit(torch.from_numpy(score_B.copy()), eps=self.LEAST).float().to(tokens_BT.device)

    def features(self, tokens_BT: Tensor) -> Tensor:
        """The logit, float32 (B, 1)."""
        return self.logits(tokens_BT)[:, None]
