"""Text of a fixed random LSTM, whose law is known exactly."""

import json
import os
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from textgan_env.ops.checksums import checksum
from textgan_env.ops.sampling import derived_seed
from textgan_env.policies.base import Policy
from textgan_env.policies.lstm import LSTMPolicy
from textgan_env.rewards import Keys, generate
from textgan_env.tasks.base import MOST_CELLS, Task
from textgan_env.tasks.kept import fill_once, one_thread
from textgan_env.text.corpora import ORACLE_FILE
from textgan_env.text.dataset import Split, TokenDataset, check_length
from textgan_env.text.fetch import fetch
from textgan_env.text.oracle_weights import oracle_shapes, read_oracle_weights
from textgan_env.utils.errors import require, require_at_least
from textgan_env.utils.reading import check_weights

# Logits behind texts that are not worth a file: drawn in about a tenth of a second.
_QUICK = 2**25


class OracleTask(Task):
    """Text of an LSTM with fixed random weights: meaningless, but its exact probability is known.

    SeqGAN (Yu et al. 2017), section "Synthetic Data Experiments": weights N(0, 1), start token 0 which is an ordinary
    token, too, all texts of length T. Different seeds are different tasks: their numbers do not compare.

    Args:
        max_length: T.
        vocab_size: V.
        embed_size: Of the oracle.
        hidden_size: Of the oracle.
        seed: Of the oracle's weights, and of the texts.
        text_seed: Of the texts alone: other texts of the same law. None: ``seed``.
        weights: Path of weights (.npz, or the pickle that SeqGAN published), which then give V and the sizes.
        train_size: Texts to learn from; 10,000 in the paper.
        valid_size: Further texts to choose by.
        test_size: Texts to measure on.

    Raises:
        InputError: If V is below 2, another size below 1 or one too large, or the weights cannot be read.
    """

    def __init__(
        self,
        *,
        max_length: int = 20,
        vocab_size: int = 5000,
        embed_size: int = 32,
        hidden_size: int = 32,
        seed: int = 0,
        text_seed: int | None = None,
        weights: str | os.PathLike[str] | None = None,
        train_size: int = 10_000,
        valid_size: int = 2_000,
        test_size: int = 10_000,
    ) -> None:
        super().__init__()
        sizes = {"train": train_size, "valid": valid_size, "test": test_size}
        require_at_least(1, max_length=max_length, train_size=train_size, valid_size=valid_size, test_size=test_size)
        check_length(max_length)
        for name, size in sizes.items():
            cells = f"{size:,} texts of {max_length:,} tokens"
            require(size * max_length <= MOST_CELLS, f"{name}_size: {cells} are more than {MOST_CELLS:,} tokens")
        self.name = "oracle" if weights is None else "seqgan-oracle"
        if weights is None:
            arrays = draw_oracle_weights(vocab_size, embed_size, hidden_size, seed)
            network: dict[str, Any] = {"vocab_size": vocab_size, "embed_size": embed_size, "hidden_size": hidden_size}
        else:
            arrays = read_oracle_weights(weights)
            network = {"weights": os.fspath(weights)}
        texts = {f"{name}_size": size for name, size in sizes.items()}
        texts |= {} if text_seed is None else {"text_seed": text_seed}
        self._settings = {"max_length": max_length, "seed": seed, **texts, **network}
        self.vocab_size, embed_size = arrays["embedding"].shape
        self.max_length = max_length
        self.start_token = 0
        self._text_seed, self._sizes = seed if text_seed is None else text_seed, sizes
        oracle = LSTMPolicy(
            self.vocab_size, start_token=0, embed_size=embed_size, hidden_size=len(arrays["U_i"]), init_scale=0.0
        )
        oracle.load_gates(arrays)
        self.oracle: LSTMPolicy = oracle.eval().requires_grad_(False)

    @classmethod
    def released(cls, **settings: Any) -> Self:
        """The one with the weights that SeqGAN published, which are known by their checksum wherever they lie.

        Args:
            settings: Other arguments.

        Raises:
            MissingDataError: If they are not here, and cannot be fetched.
        """
        task = cls(weights=fetch(ORACLE_FILE), **settings)
        task._settings = {name: value for name, value in task._settings.items() if name != "weights"}
        return task

    def _load(self, name: Split) -> TokenDataset:
        """Generate one split with the oracle, once on a machine where that takes long."""
        size, seed = self._sizes[name], self._text_seed
        if size * self.max_length * self.vocab_size < _QUICK:
            return draw_split(self.oracle, name, size, self.max_length, seed=seed)
        tokens_BT = torch.zeros(size, self.max_length, dtype=torch.int32)

        def draw() -> None:
            """Draw them."""
            tokens_BT.copy_(draw_split(self.oracle, name, size, self.max_length, seed=seed).tokens_BT)

        follows_from = json.dumps([name, size, self.max_length, seed, checksum("", self.oracle.state_dict())])
        fill_once({"tokens": tokens_BT}, f"the {size:,} {name} texts of task '{self.name}'", follows_from, draw)
        lengths_B = torch.full((size,), self.max_length)
        return TokenDataset(name, tokens_BT.long(), lengths_B, pad=self.vocab_size)


def draw_split(oracle: Policy, name: Split, size: int, max_length: int, *, seed: int) -> TokenDataset:
    """The texts of a split, drawn from the true distribution, each split by itself; alike for any number of threads."""
    keys = Keys.counted(derived_seed(seed, "texts", name), size)
    with one_thread():
        tokens_BT, lengths_B = generate(oracle, keys, max_length)
    return TokenDataset(name, tokens_BT, lengths_B, pad=oracle.vocab_size)


def draw_oracle_weights(
    vocab_size: int, embed_size: int, hidden_size: int, seed: int
) -> dict[str, NDArray[np.float32]]:
    """Weights N(0, 1) of an oracle LSTM, drawn by numpy so that a seed means the same everywhere.

    Returns:
        float32 arrays named as `textgan_env.policies.lstm.LSTMPolicy.load_gates` expects.

    Raises:
        InputError: If V is below 2, another size below 1 or the seed negative.
    """
    require_at_least(2, vocab_size=vocab_size)
    require_at_least(1, embed_size=embed_size, hidden_size=hidden_size)
    require_at_least(0, seed=seed)
    gates = 4 * hidden_size * (embed_size + hidden_size + 1)
    check_weights(vocab_size * (embed_size + hidden_size + 1) + gates, "an oracle")
    rng = np.random.default_rng(seed)
    shapes = oracle_shapes(vocab_size, embed_size, hidden_size)
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
