"""Tasks: what real text is, in which tokens, how long, and, where one exists, the oracle that writes it.

Every task has the splits ``train``, ``valid`` and ``test``. Only ``train`` teaches, only ``valid`` chooses, and what is
reported is measured on ``test``.
"""

import inspect
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgan_env.data import (
    CORPORA,
    PUBLISHED,
    Corpus,
    Split,
    TokenDataset,
    check_length,
    find_file,
    is_here,
    load_corpus,
    named_corpus,
    read_oracle_weights,
)
from textgan_env.errors import InputError, MissingDataError, require
from textgan_env.policies.base import Policy
from textgan_env.policies.causal_lm import CausalLMPolicy, read_causal_lm
from textgan_env.policies.lstm import LSTMPolicy
from textgan_env.policies.ngram import NGramPolicy
from textgan_env.policies.table import TablePolicy
from textgan_env.reading import check_weights, fits, member, most_weights, shown, told
from textgan_env.rollouts import Keys, write
from textgan_env.sampling import derived_seed
from textgan_env.vocabulary import Vocabulary

_MOST_CELLS = 2**27  # tokens of a split: 1 GiB of int64


class Task(ABC):
    """One kind of real text.

    Attributes:
        name: As in `TASKS`.
        vocab_size: V, the tokens that can be written; V itself is PAD.
        max_length: T; the end token counts.
        start_token: What a policy is fed first: 0 to V.
        end_token: The token that ends a text early; None where every text has T tokens.
        forbidden: Tokens that stand in data but are never written (UNK).
        vocabulary: From tokens to words; None where tokens mean nothing.
        oracle: The true distribution; None where nobody knows it.
    """

    name: str
    vocab_size: int
    max_length: int
    start_token: int
    end_token: int | None = None
    forbidden: tuple[int, ...] = ()
    vocabulary: Vocabulary | None = None
    oracle: Policy | None = None

    def __init__(self) -> None:
        self._splits: dict[str, TokenDataset] = {}

    def __str__(self) -> str:
        """One line for a person."""
        return f"Task '{self.name}': texts of {self.max_length} tokens out of {self.vocab_size:,}."

    def split(self, name: Split) -> TokenDataset:
        """The texts of one split, made when first asked for.

        Raises:
            InputError: If there is no such split.
        """
        if name not in get_args(Split):
            raise InputError(f"unknown split '{name}', expected one of: {', '.join(get_args(Split))}")
        if name not in self._splits:
            self._splits[name] = self._load(name)
        return self._splits[name]

    @abstractmethod
    def _load(self, name: Split) -> TokenDataset:
        """Make one split."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain data from which `make_task` makes the same task."""

    def writable(self, name: Split) -> Tensor:
        """The texts of a split that a policy could have written, int64 (B, T): a discriminator is shown no others.

        Raises:
            InputError: If every text holds a forbidden token.
        """
        tokens_BT = self.split(name).tokens_BT
        if self.forbidden:
            tokens_BT = tokens_BT[~torch.isin(tokens_BT, torch.tensor(self.forbidden)).any(1)]
            require(len(tokens_BT) > 0, f"every text of the {name} split of task '{self.name}' holds an unknown word")
        return tokens_BT

    def scored(self, tokens_BT: Tensor) -> Tensor:
        """The tokens a likelihood is asked for, bool (B, T): not PAD, and not forbidden (no policy can write those)."""
        mask_BT = tokens_BT != self.vocab_size
        if self.forbidden:
            mask_BT &= ~torch.isin(tokens_BT, torch.tensor(self.forbidden, device=tokens_BT.device))
        return mask_BT

    def tokenize(self, text: str) -> list[str]:
        """Words of a piece of text; what stands between blanks where tokens mean nothing."""
        return text.split() if self.vocabulary is None else self.vocabulary.tokenize(text)

    @property
    def rules(self) -> str:
        """What tokens are, in a word or two."""
        return "numbers" if self.vocabulary is None else f"{self.vocabulary.mode} rules"

    def words(self, tokens_T: Sequence[int]) -> list[str]:
        """The words of one text, without end token and PAD; numbers where tokens mean nothing."""
        if self.vocabulary is not None:
            return self.vocabulary.decode(tokens_T)
        return [str(token) for token in tokens_T if token != self.vocab_size]

    def text(self, tokens_T: Sequence[int]) -> str:
        """One text as a person reads it."""
        words = self.words(tokens_T)
        return self.vocabulary.join(words) if self.vocabulary is not None else " ".join(words)

    def encode(self, text: str) -> list[int]:
        """Tokens of a piece of text, without end token; numbers between blanks where tokens mean nothing.

        Raises:
            InputError: If such a number is none of this task's, or a word is not in the vocabulary and there is no UNK.
        """
        if self.vocabulary is not None:
            return self.vocabulary.encode(self.tokenize(text))
        for part in text.split():
            if not (part.isdecimal() and len(part) < 19 and int(part) < self.vocab_size):
                few = f"numbers without words, 0 to {self.vocab_size - 1}"
                raise InputError(f"tokens of task '{self.name}' are {few}, found '{part[:20]}'")
        return [int(part) for part in text.split()]

    def encode_writable(self, text: str) -> list[int]:
        """Tokens of a piece of text that a policy could have written, as `encode` gives them.

        Raises:
            InputError: If there are others; the sentence names the first.
        """
        if self.vocabulary is not None:
            known = set(self.vocabulary.words)
            for word in self.tokenize(text):
                require(
                    word in known, f"{self._seen(word)!r} is not among the {len(known):,} words of task '{self.name}'"
                )
        return self.encode(text)

    def _seen(self, word: str) -> str:
        """A word of the vocabulary as a person sees it."""
        return word


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
        weights: Path of published weights (.npz or SeqGAN's .pkl), which then give V and the sizes.
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
        for name, size in {"max_length": max_length, **{f"{name}_size": size for name, size in sizes.items()}}.items():
            require(size >= 1, f"{name} must be at least 1, found {size}")
        check_length(max_length)
        for name, size in sizes.items():
            cells = f"{size:,} texts of {max_length:,} tokens"
            require(size * max_length <= _MOST_CELLS, f"{name}_size: {cells} are more than {_MOST_CELLS:,} tokens")
        self.name = "oracle" if weights is None else "seqgan-oracle"
        self._config: dict[str, Any] = {
            "max_length": max_length,
            "seed": seed,
            **{f"{name}_size": sizes[name] for name in sizes},
            **_given(text_seed=text_seed),
        }
        if weights is None:
            arrays = draw_oracle_weights(vocab_size, embed_size, hidden_size, seed)
            self._config |= {"vocab_size": vocab_size, "embed_size": embed_size, "hidden_size": hidden_size}
        else:
            arrays = read_oracle_weights(weights)
            self._config |= {"weights": os.fspath(weights)}
        self.vocab_size, embed_size = arrays["embedding"].shape
        self.max_length = max_length
        self.start_token = 0
        self._seed, self._sizes = seed if text_seed is None else text_seed, sizes
        oracle = LSTMPolicy(
            self.vocab_size, start_token=0, embed_size=embed_size, hidden_size=len(arrays["U_i"]), init_scale=0.0
        )
        oracle.load_gates(arrays)
        self.oracle: LSTMPolicy = oracle.eval().requires_grad_(False)

    def config(self) -> dict[str, Any]:
        """Plain data from which `make_task` makes the same task."""
        return {"name": self.name, **self._config}

    def _load(self, name: Split) -> TokenDataset:
        keys = Keys.counted(derived_seed(self._seed, "texts", name), self._sizes[name])
        tokens_BT, lengths_B = write(self.oracle, keys, self.max_length)
        return TokenDataset(name, tokens_BT, lengths_B, pad=self.vocab_size)


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def draw_oracle_weights(
    vocab_size: int, embed_size: int, hidden_size: int, seed: int
) -> dict[str, NDArray[np.float32]]:
    """Weights N(0, 1) of an oracle LSTM, drawn by numpy so that a seed means the same everywhere.

    Returns:
        float32 arrays named as `textgan_env.policies.lstm.LSTMPolicy.load_gates` expects.

    Raises:
        InputError: If V is below 2, another size below 1 or the seed negative.
    """
    require(vocab_size >= 2, f"vocab_size must be at least 2, found {vocab_size}")
    for name, size in (("embed_size", embed_size), ("hidden_size", hidden_size)):
        require(size >= 1, f"{name} must be at least 1, found {size}")
    require(seed >= 0, f"the seed of an oracle must be at least 0, found {seed}")
    gates = 4 * hidden_size * (embed_size + hidden_size + 1)
    check_weights(vocab_size * (embed_size + hidden_size + 1) + gates, "an oracle")
    shapes: dict[str, tuple[int, ...]] = {"embedding": (vocab_size, embed_size)}
    for gate in ("i", "f", "o", "c"):
        shapes |= {
            f"W_{gate}": (embed_size, hidden_size),
            f"U_{gate}": (hidden_size, hidden_size),
            f"b_{gate}": (hidden_size,),
        }
    shapes |= {"W_out": (hidden_size, vocab_size), "b_out": (vocab_size,)}
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


class CorpusTask(Task):
    """Text from a file or a named corpus.

    Args:
        corpus: From `textgan_env.data.load_corpus` or `textgan_env.data.named_corpus`.
        name: Of the task.
        settings: Plain data from which `make_task` reads the same corpus again.

    Raises:
        InputError: If a split consists of unknown words only.
    """

    def __init__(self, corpus: Corpus, *, name: str = "corpus", settings: dict[str, Any] | None = None) -> None:
        super().__init__()
        for split, share in corpus.report.unknown.items():
            known = f"no word of the {split} split is among those of the training part, so nothing could be measured"
            require(share < 1, f"{corpus.report.source}: {known}; more text is needed")
        self.name = name
        self.corpus = corpus
        self.vocabulary: Vocabulary = corpus.vocabulary
        self.vocab_size = corpus.vocabulary.size
        self.max_length = corpus.max_length
        self.start_token = corpus.vocabulary.pad
        self.end_token = corpus.vocabulary.eos
        self.forbidden = () if corpus.vocabulary.unk is None else (corpus.vocabulary.unk,)
        self._settings = settings or {}

    def __str__(self) -> str:
        """What became of every line of the corpus, and what may disappoint in it."""
        report = self.corpus.report
        return "\n".join([f"Task '{self.name}': {report}", *(f"note: {sentence}" for sentence in report.advice())])

    def config(self) -> dict[str, Any]:
        """Plain data from which `make_task` makes the same task."""
        return {"name": self.name, **self._settings}

    def tokenize(self, text: str) -> list[str]:
        """Words of a piece of text, or the numbers of its subwords."""
        return super().tokenize(text) if self.corpus.subwords is None else self.corpus.subwords.tokenize(text)

    @property
    def rules(self) -> str:
        """What tokens are."""
        return super().rules if self.corpus.subwords is None else "subwords of a tokenizer"

    def words(self, tokens_T: Sequence[int]) -> list[str]:
        """The words or subwords of one text, without end token and PAD."""
        return [self._seen(word) for word in super().words(tokens_T)]

    def text(self, tokens_T: Sequence[int]) -> str:
        """One text as a person reads it."""
        if self.corpus.subwords is None:
            return super().text(tokens_T)
        return self.corpus.subwords.join(self.vocabulary.decode(tokens_T))

    def _seen(self, word: str) -> str:
        return word if self.corpus.subwords is None else self.corpus.subwords.piece(word)

    def _load(self, name: Split) -> TokenDataset:
        found = ", ".join(self.corpus.splits)
        require(name in self.corpus.splits, f"task '{self.name}' has no {name} split (its share was 0), only: {found}")
        return self.corpus.splits[name]


class ToyTask(Task):
    """All V^T texts can be listed, so every expectation can be computed instead of estimated.

    Each text has a fixed random probability, proportional to ``exp(N(0, spread))``.

    Args:
        vocab_size: V.
        max_length: T.
        seed: Of the distribution, and of the texts drawn from it.
        text_seed: Of the texts alone: other texts of the same distribution. None: ``seed``.
        spread: Standard deviation of the log-probabilities (nats).
        size: Texts in each split.

    Raises:
        InputError: If V is below 2, another size below 1, the seed or the spread negative, or there are over a million
            texts.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 4,
        max_length: int = 4,
        seed: int = 0,
        text_seed: int | None = None,
        spread: float = 1.5,
        size: int = 1000,
    ) -> None:
        super().__init__()
        require(vocab_size >= 2, f"vocab_size must be at least 2, found {vocab_size}")
        for name, value in (("max_length", max_length), ("size", size)):
            require(value >= 1, f"{name} must be at least 1, found {value}")
        require(seed >= 0, f"the seed of a toy task must be at least 0, found {seed}")
        require(0 <= spread <= 100, f"spread must be 0 to 100 nats, found {spread}")
        # The power of absurd numbers would take for ever: 2^20 is too large already.
        few = max_length < 20 and vocab_size <= 10**6 and vocab_size**max_length <= 10**6
        require(few, f"a toy task has at most 1,000,000 texts, found {vocab_size}^{max_length}")
        require(size * max_length <= _MOST_CELLS, f"size must be at most {_MOST_CELLS // max_length:,}, found {size:,}")
        self.name = "toy"
        self.vocab_size, self.max_length, self.start_token = vocab_size, max_length, 0
        self._config = {
            "vocab_size": vocab_size,
            "max_length": max_length,
            "seed": seed,
            "spread": spread,
            "size": size,
            **_given(text_seed=text_seed),
        }
        self._seed, self._size = seed if text_seed is None else text_seed, size
        rng = np.random.default_rng(seed)
        self.logp_S = torch.from_numpy(rng.normal(0, spread, vocab_size**max_length)).log_softmax(0)
        self.oracle: TablePolicy = TablePolicy.from_text_probabilities(
            self.logp_S.exp(), vocab_size=vocab_size, max_length=max_length
        )
        self.oracle.requires_grad_(False)

    def config(self) -> dict[str, Any]:
        """Plain data from which `make_task` makes the same task."""
        return {"name": self.name, **self._config}

    @property
    def texts_ST(self) -> Tensor:
        """All S = V^T texts in lexical order, int64."""
        return torch.tensor(list(itertools.product(range(self.vocab_size), repeat=self.max_length)))

    def exact_q(self, policy: Policy, reward_S: Tensor, gamma: float = 1.0) -> list[Tensor]:
        """Q of every prefix and token, by listing all texts.

        Args:
            policy: Completes the prefixes.
            reward_S: float; R of every text, in the order of `texts_ST`.
            gamma: Discount for each token after this one.

        Returns:
            For p = 0 to T-1, float64 (V^p, V): Q(prefix, token) of the prefixes of p tokens in lexical order.
        """
        texts_ST = self.texts_ST
        with torch.no_grad():
            logp_ST = policy.log_prob(texts_ST, torch.ones_like(texts_ST, dtype=torch.bool)).double()
        values = []
        for p in range(self.max_length):
            # What is left to draw once p + 1 tokens stand.
            weight_S = logp_ST[:, p + 1 :].sum(1).exp() * gamma ** (self.max_length - 1 - p)
            values.append((weight_S * reward_S.double()).view(self.vocab_size**p, self.vocab_size, -1).sum(2))
        return values

    def _load(self, name: Split) -> TokenDataset:
        keys = Keys.counted(derived_seed(self._seed, "texts", name), self._size)
        tokens_BT, lengths_B = write(self.oracle, keys, self.max_length)
        return TokenDataset(name, tokens_BT, lengths_B, pad=self.vocab_size)


def fit_ngram(task: Task, order: int) -> NGramPolicy:
    """An n-gram model of a task's training texts, see `NGramPolicy.fit`."""
    train = task.split("train")
    return NGramPolicy.fit(
        train.tokens_BT,
        train.mask_BT,
        vocab_size=task.vocab_size,
        start_token=task.start_token,
        order=order,
        forbidden=task.forbidden,
    )


def load_causal_lm(folder: str | os.PathLike[str], task: Task) -> CausalLMPolicy:
    """A causal language model of Hugging Face's transformers as a policy for a task of its own subwords.

    Where tokens mean nothing (an oracle task), token i is the model's token i.

    Args:
        folder: Of the model, as ``save_pretrained`` writes it: safetensors only, nothing is fetched or executed.
        task: Its text must be in the subwords of the model's tokenizer: ``tokenizer=folder``.

    Returns:
        The policy, with float32 weights, in eval mode. Its texts begin and end with the model's own tokens for that.

    Raises:
        InputError: If there is no such model, it is no causal one, it has too few tokens or positions, or the task has
            words of its own.
        MissingDataError: If transformers is not installed.
    """
    model = read_causal_lm(folder)
    ends = model.config.eos_token_id
    end = ends[0] if isinstance(ends, list) else ends
    start = end if model.config.bos_token_id is None else model.config.bos_token_id
    if task.vocabulary is None:
        numbers = [*range(task.vocab_size)]
    else:
        subwords = isinstance(task, CorpusTask) and task.corpus.subwords is not None
        require(
            subwords, f"task '{task.name}' has words of its own: read its text with tokenizer='{os.fspath(folder)}'"
        )
        # EOS is the model's; UNK, which is never written, is read as it.
        numbers = [int(word) if word.isdecimal() else end for word in task.vocabulary.tokens]
    require(None not in (start, *numbers), f"the config of the model at '{os.fspath(folder)}' has no eos_token_id")
    return CausalLMPolicy(
        task.vocab_size,
        start_token=task.start_token,
        max_length=task.max_length,
        token_ids=[*numbers, start],
        model=model,
        forbidden=task.forbidden,
    )


def _corpus_task(**settings: Any) -> CorpusTask:
    return CorpusTask(load_corpus(**settings), settings=settings)


def _seqgan_oracle(*, weights: str | os.PathLike[str] | None = None, **settings: Any) -> OracleTask:
    given = [name for name in ("vocab_size", "embed_size", "hidden_size") if name in settings]
    require(not given, f"task 'seqgan-oracle' has its sizes from its weights, {', '.join(given)} cannot be set")
    return OracleTask(weights=find_file("oracle") if weights is None else weights, **settings)


def _oracle40(**settings: Any) -> OracleTask:
    return OracleTask(**{"max_length": 40, "embed_size": 64, "hidden_size": 64} | settings)


def _named(name: str) -> Callable[..., CorpusTask]:
    def make(**settings: Any) -> CorpusTask:
        return CorpusTask(named_corpus(name, **settings), name=name, settings=settings)

    return make


#: Name -> what makes the task, and the function whose arguments are its options.
TASKS: dict[str, tuple[Callable[..., Task], Callable[..., Any]]] = {
    "oracle": (OracleTask, OracleTask),
    "oracle40": (_oracle40, OracleTask),
    "seqgan-oracle": (_seqgan_oracle, OracleTask),
    "toy": (ToyTask, ToyTask),
    "corpus": (_corpus_task, load_corpus),
    **{name: (_named(name), named_corpus) for name in CORPORA},
}


def make_task(name: str, **options: Any) -> Task:
    """Make a task by name.

    Args:
        name: A key of `TASKS`.
        options: Of that task.

    Raises:
        InputError: If there is no such task, it has no such option, or a value is refused.
        MissingDataError: If a file or package it needs is not here.
    """
    if name not in TASKS:
        raise InputError(f"unknown task '{name}', expected one of: {', '.join(TASKS)}")
    make, described = TASKS[name]
    known = [option for option in inspect.signature(described).parameters if option != "name"]
    unknown = [option for option in options if option not in known]
    require(not unknown, f"task '{name}' has no option {', '.join(unknown)}; it has: {', '.join(known)}")
    for option, value in options.items():
        kind = inspect.signature(described).parameters[option].annotation
        require(fits(value, kind), f"option {option} of task '{name}' must be {told(kind)}, found {shown(value)}")
    return make(**options)


# Options of tasks that name a file to be read.
_FILE_OPTIONS = ("path", "valid_path", "test_path", "weights")
#: Options of tasks that say where their text lies, not which text it is.
PLACE_OPTIONS = (*_FILE_OPTIONS, "data_dir")
# Weights of an oracle that a file may ask for; users may ask for more.
_MOST_OF_A_FILE = 2**24


def saved_task(described: object, where: str, *, vocab_size: int | None = None) -> Task:
    """Make the task that somebody's file describes (`Task.config`): it may name texts on this machine, and no more.

    Nothing is fetched from the network, nothing is written into a folder that the file names, and what is read must be
    an ordinary file.

    Args:
        described: What stands in the file.
        where: What to begin a sentence with.
        vocab_size: V of the policy beside it; None: of no policy.

    Raises:
        InputError: If it is no description of a task, or not one with these tokens.
        MissingDataError: If its text is not here.
    """
    name = member(described, "name", str, where)
    options = {key: value for key, value in cast(dict[str, Any], described).items() if key not in ("name", "about")}
    asked = options.get("vocab_size", vocab_size)
    require(vocab_size in (None, asked), f"{where} has V={shown(asked)}, but the policy beside it V={vocab_size}")
    for option in _FILE_OPTIONS:
        if isinstance(file := options.get(option), str):
            missing = f"{where} was made from '{file}', which is not here"
            if not Path(file).exists():
                raise MissingDataError(missing)
            require(Path(file).is_file(), f"{where} was made from '{file}', which is no ordinary file")
    folder = options.get("data_dir")
    published = name in PUBLISHED and options.get("weights") is None
    named = (published or (name in CORPORA and folder is not None)) and isinstance(folder, str | None)
    if named and not is_here(name, data_dir=folder):
        raise MissingDataError(f"the text of task '{name}' is not here; to fetch it: textgan data fetch {name}")
    with most_weights(_MOST_OF_A_FILE):
        task = make_task(name, **options)
    require(  # words are compared one by one by whoever knows those of the policy
        vocab_size in (None, task.vocab_size) or task.vocabulary is not None,
        f"{where} has V={task.vocab_size} tokens, but the policy beside it V={vocab_size}",
    )
    return task


def shared_task(task: str | Task, **options: Any) -> Task:
    """A task by name, made once in the life of the process for the same options; a `Task` is taken as it is.

    Raises:
        InputError: As `make_task`, or if options come with a finished task.
    """
    if isinstance(task, Task):
        require(not options, f"options {sorted(options)} come too late for a task that is already made")
        return task
    # A list cannot be looked up in a cache.
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return _shared(task, tuple(sorted(plain.items())))


@lru_cache(maxsize=8)
def _shared(name: str, options: tuple[tuple[str, Any], ...]) -> Task:
    return make_task(name, **dict(options))
