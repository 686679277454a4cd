"""Randomised SMILES: a molecule has many strings, and maximum likelihood can learn another one in each epoch."""

import torch
from torch import Tensor

from textgan_env.tasks import Task
from textgan_env.text.smiles import split_smiles
from textgan_env.utils.errors import require
from textgan_env.utils.molecules import random_smiles, require_rdkit


class RandomSmiles:
    """Writes molecules of a batch anew, each from another atom on (Arus-Pous et al. 2019: all, anew in each epoch).

    A string stays as it is where the new one would not fit (longer than T, or with a token that the vocabulary lacks),
    where it was cut at T, and where rdkit cannot read it.

    Args:
        task: Of molecules.
        share: Of the texts, above 0 and at most 1.

    Raises:
        InputError: If the task has other texts.
        MissingDataError: If rdkit is not installed.
    """

    def __init__(self, task: Task, share: float) -> None:
        require(
            task.language == "molecules",
            f"random_smiles is for molecules (moses, nci, --mode smiles), found task '{task.name}'",
        )
        require_rdkit("writing molecules anew (--random-smiles)")
        self._task, self._share = task, share

    def __call__(self, tokens_BT: Tensor, generator: torch.Generator) -> Tensor:
        """Write some of the texts anew.

        Args:
            tokens_BT: int64, PAD after the end.
            generator: Chooses the texts, and the string of each; as many draws whatever the texts are.

        Returns:
            int64 (B, T).
        """
        chosen_B = torch.rand(len(tokens_BT), generator=generator) < self._share
        seeds_B = torch.randint(1, 2**31 - 1, (len(tokens_BT),), generator=generator)
        written_BT = tokens_BT.clone()
        for row in chosen_B.nonzero()[:, 0].tolist():
            tokens = self._anew(tokens_BT[row].tolist(), int(seeds_B[row]))
            if tokens is not None:
                written_BT[row] = torch.tensor(tokens)
        return written_BT

    def _anew(self, tokens_T: list[int], seed: int) -> list[int] | None:
        """The tokens of another string of the molecule; None where there is none that fits."""
        task = self._task
        assert task.vocabulary is not None
        end = [] if task.end_token is None else [task.end_token]
        if end and task.end_token not in tokens_T:
            return None  # it was cut: where it would go on is not known
        text = random_smiles(task.text(tokens_T), seed)
        if text is None:
            return None
        ids = [task.vocabulary.ids.get(token) for token in split_smiles(text)]
        known = [token for token in ids if token is not None and token not in task.forbidden]
        missing = task.max_length - len(known) - len(end)
        fits = len(known) == len(ids) and (missing >= 0 if end else missing == 0)
        return known + end + [task.vocab_size] * missing if fits else None
