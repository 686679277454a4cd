"""Scores of finished texts: pure functions on lists of token lists, in numpy.

A text is a list of tokens, strings or ids (anything hashable), without padding; whether it carries its EOS
is the caller's choice, the same for every list that is compared. Every score is a fraction between 0 and 1.
A share of nothing (no n-gram at all, as all texts are too short) is NaN, never 0.

Axis letters: B texts that are scored, K n-gram orders 1..max_n, G n-grams read off the texts, one entry
each time one occurs.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textgan_env.errors import InputError, require

#: Texts as lists of tokens, whatever tokens are.
Texts = Sequence[Sequence[Hashable]]
#: Arrays of int64.
Ints = NDArray[np.int64]
#: Arrays of float64.
Floats = NDArray[np.float64]

#: What an order without a match counts instead of 0: method 1 of Chen & Cherry (2014), with nltk's epsilon.
SMOOTHING_EPSILON = 0.1


def bleu(hypotheses: Texts, references: Texts, max_n: int = 5, *, smoothing: bool = True) -> dict[int, float]:
    """Mean sentence BLEU of texts against references: how much of their n-grams real text has too.

    Each hypothesis is compared with all references: an n-gram counts at most as often as in the one
    reference that has it most often, and the reference whose length is closest (of two equally close the
    shorter) sets the brevity penalty. BLEU-n weighs the orders 1..n by 1/n each; an order without a match
    counts 0.1 matches; a text without any matching token scores 0. Equals the mean of nltk's
    ``sentence_bleu`` with ``SmoothingFunction().method1``.

    BLEU is precision only and rises with the number of references: compare numbers only at equal tokenizer
    and number of references.

    Source: Papineni et al. (2002), "BLEU"; smoothing method 1 of Chen & Cherry (2014), "A Systematic
    Comparison of Smoothing Techniques for Sentence-Level BLEU". Papineni et al. pool the counts of the
    whole corpus; we average over sentences, as the papers on this task do.

    Args:
        hypotheses: Texts to score, B token lists of any length; an empty one scores 0.
        references: Real texts, token lists of any length.
        max_n: Highest order, 2 or more.
        smoothing: False: a text without a match of some order up to n has BLEU-n 0 (nltk's default, its method 0).

    Returns:
        ``{2: BLEU-2, ..., max_n: BLEU-max_n}``, each a mean over hypotheses between 0 and 1.

    Raises:
        InputError: If a list is empty or not a list of token lists, or max_n is below 2.
    """
    _require_order("max_n", max_n, 2)
    scored = _token_lists("hypotheses", hypotheses)
    tokens, lengths = _numbered(scored + _token_lists("references", references))
    rows = len(scored)
    matches_BK = np.zeros((rows, max_n), dtype=np.int64)
    for k, (gram_G, text_G) in enumerate(_ngrams(tokens, lengths, max_n)):
        gram, text, count = _counts_per_text(gram_G, text_G, len(lengths))
        ours, theirs = text < rows, text >= rows
        most = _most(gram[theirs], count[theirs], size=len(tokens))
        clipped = np.minimum(count[ours], most[gram[ours]])
        matches_BK[:, k] = np.bincount(text[ours], weights=clipped, minlength=rows)
    lengths_B, lengths_ref = lengths[:rows], np.sort(lengths[rows:])
    place_B = np.searchsorted(lengths_ref, lengths_B)
    around = np.concatenate(([-np.inf], lengths_ref, [np.inf]))
    closest_B = _closest(lengths_B, below=around[place_B], above=around[place_B + 1])
    return _mean_scores(matches_BK, lengths_B, closest_B, SMOOTHING_EPSILON if smoothing else 0.0)


def self_bleu(texts: Texts, max_n: int = 5) -> dict[int, float]:
    """Mean BLEU of each text against all the others: how alike the texts are (1: all the same).

    A text is never its own reference: it is left out by its place in the list, so a second, equal text
    counts. Self-BLEU rises with the number of texts, and real text is far from 0: report it beside that of
    as many real texts.

    Source: Zhu et al. (2018), "Texygen". Texygen's code keeps the text itself among its references, which
    gives 1 to any text; we leave it out. Orders, smoothing and brevity penalty are those of `bleu`.

    Args:
        texts: B token lists of any length, B at least 2; an empty one scores 0.
        max_n: Highest order, 2 or more.

    Returns:
        ``{2: Self-BLEU-2, ..., max_n: Self-BLEU-max_n}``, each a mean over texts between 0 and 1. A text
        shorter than n tokens scores below 1 even against its copy: a missing order is smoothed like an
        unmatched one.

    Raises:
        InputError: If there are fewer than two texts, they are not token lists, or max_n is below 2.
    """
    _require_order("max_n", max_n, 2)
    lists = _token_lists("texts", texts)
    require(len(lists) >= 2, f"Self-BLEU needs at least 2 texts to compare, found {len(lists)}")
    tokens, lengths_B = _numbered(lists)
    matches_BK = np.zeros((len(lists), max_n), dtype=np.int64)
    for k, (gram_G, text_G) in enumerate(_ngrams(tokens, lengths_B, max_n)):
        gram, text, count = _counts_per_text(gram_G, text_G, len(lists))
        most = _most(gram, count, size=len(tokens))
        leads = count == most[gram]
        alone = leads & (np.bincount(gram[leads], minlength=len(tokens))[gram] == 1)
        second = _most(gram[~leads], count[~leads], size=len(tokens))
        # A text finds its whole count in another one, unless it alone holds the n-gram most often.
        clipped = np.where(alone, second[gram], count)
        matches_BK[:, k] = np.bincount(text, weights=clipped, minlength=len(lists))
    # In order of length, the closest other text is a neighbour.
    order = np.argsort(lengths_B)
    around = np.concatenate(([-np.inf], lengths_B[order], [np.inf]))
    closest_B = np.empty(len(lists))
    closest_B[order] = _closest(lengths_B[order], below=around[:-2], above=around[2:])
    return _mean_scores(matches_BK, lengths_B, closest_B, SMOOTHING_EPSILON)


def distinct_n(texts: Texts, n: int) -> float:
    """Share of distinct n-grams among all n-grams of all texts together.

    It falls as the number of texts grows: compare equal numbers of texts.

    Source: Li et al. (2016), "A Diversity-Promoting Objective Function for Neural Conversation Models", who
    divide by the number of tokens; we divide by the number of n-grams, so that 1 can be reached for every n.

    Args:
        texts: Token lists.
        n: Order, 1 or more.

    Returns:
        A share between 0 and 1; NaN if no text has n tokens.

    Raises:
        InputError: If texts is empty or not a list of token lists, or n is below 1.
    """
    _require_order("n", n, 1)
    *_, (gram_G, _text_G) = _ngrams(*_numbered(_token_lists("texts", texts)), n)
    return _share(len(np.unique(gram_G)), len(gram_G))


def unique_share(texts: Texts) -> float:
    """Share of distinct whole texts: 1 if no text occurs twice, 1/B if all B are the same.

    Args:
        texts: B token lists.

    Returns:
        A share above 0, at most 1.

    Raises:
        InputError: If texts is empty or not a list of token lists.
    """
    lists = _token_lists("texts", texts)
    return _share(len(set(lists)), len(lists))


def adjacent_repeats(texts: Texts) -> float:
    """Share of adjacent token pairs whose two tokens are equal ("the the"): the mark of a text that loops.

    Args:
        texts: Token lists.

    Returns:
        A share between 0 and 1; NaN if no text has two tokens.

    Raises:
        InputError: If texts is empty or not a list of token lists.
    """
    tokens, lengths = _numbered(_token_lists("texts", texts))
    text = np.repeat(np.arange(len(lengths)), lengths)
    inside = text[1:] == text[:-1]
    return _share(int(np.sum(inside & (tokens[1:] == tokens[:-1]))), int(np.sum(inside)))


def copied_share(texts: Texts, training: Texts, n: int) -> float:
    """Share of the texts' n-grams that occur in training, each n-gram counted as often as it is written.

    Fresh real text shares n-grams with the training text too: its value is the one to compare with.

    Args:
        texts: Generated texts, token lists.
        training: Training texts, token lists.
        n: Order, 1 or more.

    Returns:
        A share between 0 and 1; NaN if no text of ``texts`` has n tokens.

    Raises:
        InputError: If a list is empty or not a list of token lists, or n is below 1.
    """
    _require_order("n", n, 1)
    written = _token_lists("texts", texts)
    tokens, lengths = _numbered(written + _token_lists("training", training))
    *_, (gram_G, text_G) = _ngrams(tokens, lengths, n)
    ours = text_G < len(written)
    known = np.zeros(len(tokens), dtype=bool)
    known[gram_G[~ours]] = True
    return _share(int(np.sum(known[gram_G[ours]])), int(np.sum(ours)))


def copied_texts(texts: Texts, training: Texts) -> float:
    """Share of texts that stand, whole and token by token, among the training texts.

    Args:
        texts: Generated texts, token lists.
        training: Training texts, token lists.

    Returns:
        A share between 0 and 1.

    Raises:
        InputError: If a list is empty or not a list of token lists.
    """
    written = _token_lists("texts", texts)
    known = set(_token_lists("training", training))
    return _share(sum(text in known for text in written), len(written))


def roc_auc(score_real: ArrayLike, score_fake: ArrayLike) -> float:
    """Probability that a judge scores a random real text above a random fake one, a tie counting one half.

    0.5: the judge cannot tell; 1: every real text scores above every fake one. Only the order of scores
    matters, so logits and probabilities give the same number unless rounding makes ties. Exact, by counting
    pairs.

    Source: the Mann-Whitney statistic, equal to the area under the ROC curve (Hanley & McNeil, 1982).

    Args:
        score_real: Scores of real texts, shape [real], high for real.
        score_fake: Scores of fake texts, shape [fake].

    Returns:
        A probability between 0 and 1.

    Raises:
        InputError: If an array is empty, not one-dimensional, or holds NaN.
    """
    real, fake = _scores("score_real", score_real), np.sort(_scores("score_fake", score_fake))
    # Fakes strictly below each real score plus those below or equal: a win counts twice, a tie once.
    below = np.searchsorted(fake, real, side="left")
    up_to = np.searchsorted(fake, real, side="right")
    return (int(below.sum()) + int(up_to.sum())) / (2 * len(real) * len(fake))


def _scores(name: str, values: ArrayLike) -> Floats:
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a list of numbers: {error}") from None
    listed = scores.ndim == 1 and len(scores) > 0
    require(listed, f"{name} must be a list of at least one score, found shape {scores.shape}")
    require(not np.isnan(scores).any(), f"{name} must be numbers, found {int(np.isnan(scores).sum())} NaN")
    return scores


def _require_order(name: str, value: int, least: int) -> None:
    enough = isinstance(value, (int, np.integer)) and value >= least
    require(enough, f"{name} must be a whole number of at least {least}, found {value!r}")


def _token_lists(name: str, texts: Texts) -> list[tuple[Hashable, ...]]:
    """Check that texts are token lists and copy them, so that rows of arrays and tensors become plain ids."""
    if not _is_list(texts):
        raise InputError(f"{name} must be a list of token lists, found {texts!r:.40}")
    lists: list[tuple[Hashable, ...]] = []
    for text in texts:
        if not _is_list(text):
            raise InputError(f"{name}[{len(lists)}] must be a list of tokens, found {text!r:.40}")
        # A tensor's elements hash by identity: as tokens they would all differ.
        plain: Any = text.tolist() if hasattr(text, "tolist") else text
        lists.append(tuple(plain))
    require(len(lists) > 0, f"{name} must hold at least one text, found none")
    try:
        hash(tuple(lists))
    except TypeError as error:
        raise InputError(f"a token of {name} must be a string, an id or the like, found {error}") from None
    return lists


def _is_list(value: object) -> bool:
    # A string could be iterated too, but by character: never what was meant by a list of tokens.
    return hasattr(value, "__iter__") and not isinstance(value, (str, bytes))


def _numbered(lists: list[tuple[Hashable, ...]]) -> tuple[Ints, Ints]:
    """Number the distinct tokens 0, 1, ... and lay all texts end to end.

    Returns:
        Token numbers of all texts, shape [tokens], and the texts' lengths, shape [texts].
    """
    number = {token: i for i, token in enumerate(dict.fromkeys(chain.from_iterable(lists)))}
    tokens = np.fromiter(map(number.__getitem__, chain.from_iterable(lists)), dtype=np.int64)
    return tokens, np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))


def _ngrams(tokens: Ints, lengths: Ints, max_n: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield for n = 1..max_n the n-grams of all texts, numbered so that equal ones have equal numbers.

    Args:
        tokens: Token numbers of all texts end to end, each below ``len(tokens)``.
        lengths: Length of each text.
        max_n: Highest order.

    Yields:
        gram_G: The number of each n-gram, below ``len(tokens)``; text_G: the index of the text it stands in.
    """
    text = np.repeat(np.arange(len(lengths)), lengths)
    start_G, gram_G = np.arange(len(tokens)), tokens
    tokens_left = np.repeat(np.cumsum(lengths), lengths) - start_G  # from here to the end of this text
    for n in range(1, max_n + 1):
        if n > 1:
            fits = tokens_left[start_G] >= n
            start_G = start_G[fits]
            # The pair (number of the first n - 1 tokens, last token) as one integer. Both are below the
            # number of tokens, so it fits into 63 bits up to 3e9 tokens; renumbering keeps that so.
            pair_G = gram_G[fits] * len(tokens) + tokens[start_G + n - 1]
            gram_G = np.unique(pair_G, return_inverse=True)[1]
        yield gram_G, text[start_G]


def _counts_per_text(gram_G: Ints, text_G: Ints, n_texts: int) -> tuple[Ints, Ints, Ints]:
    """Count each n-gram in each text that has it: arrays gram, text, count, one entry for each such pair."""
    pair, count = np.unique(gram_G * n_texts + text_G, return_counts=True)
    return pair // n_texts, pair % n_texts, count


def _most(gram: Ints, count: Ints, size: int) -> Ints:
    """Highest count of each n-gram, shape [size]; 0 for one that does not occur."""
    most = np.zeros(size, dtype=np.int64)
    np.maximum.at(most, gram, count)
    return most


def _closest(length: Ints, below: Floats, above: Floats) -> Floats:
    """Of two lengths around a length the closer one, at a tie the shorter."""
    return np.where(length - below <= above - length, below, above)


def _mean_scores(matches_BK: Ints, lengths_B: Ints, closest_B: Floats, unmatched: float) -> dict[int, float]:
    """Mean BLEU-2..K from clipped matches by order, hypothesis lengths and closest reference lengths.

    An order without a match counts ``unmatched`` matches.
    """
    orders_K = np.arange(1, matches_BK.shape[1] + 1)
    # A text too short for an order counts one n-gram of it, unmatched.
    total_BK = np.maximum(1, lengths_B[:, None] - orders_K + 1)
    with np.errstate(divide="ignore"):
        log_precision_BK = np.log(np.where(matches_BK == 0, unmatched, matches_BK) / total_BK)
    log_mean_BK = np.cumsum(log_precision_BK, axis=1) / orders_K
    log_penalty_B = np.minimum(0.0, 1.0 - closest_B / np.maximum(1, lengths_B))
    score_BK = np.exp(log_mean_BK + log_penalty_B[:, None]) * (matches_BK[:, :1] > 0)
    # fsum: the mean does not depend on the order of the texts, to the last bit.
    return {n: math.fsum(score_BK[:, n - 1]) / len(score_BK) for n in orders_K[1:].tolist()}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
