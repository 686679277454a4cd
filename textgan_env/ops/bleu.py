"""BLEU against references, and of texts among each other.

Axis letters: B texts that are scored, K n-gram orders 1..max_n, G n-grams read off the texts, one entry each time one
occurs, U different n-grams.
"""

import math
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from textgan_env.ops import ngrams
from textgan_env.ops.ngrams import AnyTexts, Floats, Ints, NumberedTexts
from textgan_env.utils.errors import require

#: What an order without a match counts instead of 0: method 1 of Chen & Cherry (2014), with nltk's epsilon.
SMOOTHING_EPSILON = 0.1


def bleu(hypotheses: AnyTexts, references: AnyTexts, max_n: int = 5, *, smoothing: bool = True) -> dict[int, float]:
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
        references: Real texts, token lists of any length; numbered where the hypotheses are, and alike.
        max_n: Highest order, 2 or more.
        smoothing: False: a text without a match of some order up to n has BLEU-n 0 (nltk's default, its method 0).

    Returns:
        ``{2: BLEU-2, ..., max_n: BLEU-max_n}``, each a mean over hypotheses between 0 and 1.

    Raises:
        InputError: If a list is empty or not a list of token lists, or max_n is below 2.
    """
    return means(BleuReferences(references, max_n).scores(hypotheses, smoothing=smoothing))


class BleuReferences:
    """References of BLEU, indexed once, for who scores texts against the same ones again and again.

    What a score is stands under `bleu`, which is the mean of these.

    Args:
        references: Real texts, token lists of any length; where they are numbered, so must be what is scored, alike.
        max_n: Highest order, 2 or more.

    Raises:
        InputError: If it is no list of token lists, or max_n is below 2.
    """

    def __init__(self, references: AnyTexts, max_n: int = 5) -> None:
        ngrams.require_order("max_n", max_n, 2)
        self._number: dict[Hashable, int] | None = None
        if isinstance(references, NumberedTexts):
            (found,) = ngrams.numbered(references=references)
            self._rank = ngrams.ranks(found)
            found = NumberedTexts(self._rank[found.tokens], found.lengths)
        else:
            lists = ngrams.token_lists("references", references)
            self._number = ngrams.numbers(lists)
            found = ngrams.laid_out(lists, self._number)
        self._base, self._lengths = ngrams.key_base(found), np.sort(found.lengths)
        # Of each order: the n-grams that occur, and how often the reference that has one most often has it.
        self._orders: list[tuple[Ints, Ints]] = []
        for gram_G, text_G, key_U in ngrams.ngrams(found, max_n):
            gram, _, count = ngrams.counts_per_text(gram_G, text_G, len(found))
            self._orders.append((key_U, _most(gram, count, size=len(key_U))))

    def scores(self, texts: AnyTexts, *, smoothing: bool = True) -> Floats:
        """BLEU of each text by itself.

        Args:
            texts: B token lists of any length; an empty one scores 0.
            smoothing: As for `bleu`.

        Returns:
            float64 (B, K): BLEU-1 to BLEU-max_n, each between 0 and 1.

        Raises:
            InputError: If there is no text, it is no list of token lists, or only one side is numbered.
        """
        tokens, lengths_B = self._tokens_of(texts)
        text, tokens_left = ngrams.places(lengths_B)
        matches_BK = np.zeros((len(lengths_B), len(self._orders)), dtype=np.int64)
        start_G = np.flatnonzero(tokens >= 0)
        gram_G = tokens[start_G]
        for k, (key_U, most_U) in enumerate(self._orders):
            if k > 0:
                # An n-gram that no reference has is no part of a longer one that a reference has.
                fits = tokens_left[start_G] > k
                start_G, last_G = start_G[fits], tokens[start_G[fits] + k]
                gram_G, known = _looked_up(key_U, gram_G[fits] * self._base + last_G)
                known &= last_G >= 0
                start_G, gram_G = start_G[known], gram_G[known]
            gram, row, count = ngrams.counts_per_text(gram_G, text[start_G], len(lengths_B))
            clipped = np.minimum(count, most_U[gram])
            matches_BK[:, k] = np.bincount(row, weights=clipped, minlength=len(lengths_B))
        place_B = np.searchsorted(self._lengths, lengths_B)
        around = np.concatenate(([-np.inf], self._lengths, [np.inf]))
        closest_B = _closest(lengths_B, below=around[place_B], above=around[place_B + 1])
        return _scores_of(matches_BK, lengths_B, closest_B, SMOOTHING_EPSILON if smoothing else 0.0)

    def _tokens_of(self, texts: AnyTexts) -> tuple[Ints, Ints]:
        """Tokens of texts end to end, -1 where no reference has them, and the texts' lengths."""
        alike = isinstance(texts, NumberedTexts) == (self._number is None)
        require(alike, "hypotheses and references must both be numbered, or neither")
        if isinstance(texts, NumberedTexts):
            (found,) = ngrams.numbered(hypotheses=texts)
            return self._rank[np.minimum(found.tokens, len(self._rank) - 1)], found.lengths
        found = ngrams.laid_out(ngrams.token_lists("hypotheses", texts), self._number or {})
        return found.tokens, found.lengths


def self_bleu(texts: AnyTexts, max_n: int = 5) -> dict[int, float]:
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
    return means(self_scores(texts, max_n))


def self_scores(texts: AnyTexts, max_n: int = 5) -> Floats:
    """Self-BLEU of each text by itself: float64 (B, K), BLEU-1 to BLEU-max_n; arguments and errors of `self_bleu`."""
    ngrams.require_order("max_n", max_n, 2)
    (found,) = ngrams.numbered(texts=texts)
    require(len(found) >= 2, f"Self-BLEU needs at least 2 texts to compare, found {len(found)}")
    lengths_B = found.lengths
    matches_BK = np.zeros((len(found), max_n), dtype=np.int64)
    for k, (gram_G, text_G, key_U) in enumerate(ngrams.ngrams(found, max_n)):
        gram, text, count = ngrams.counts_per_text(gram_G, text_G, len(found))
        most = _most(gram, count, size=len(key_U))
        leads = count == most[gram]
        alone = leads & (np.bincount(gram[leads], minlength=len(key_U))[gram] == 1)
        second = _most(gram[~leads], count[~leads], size=len(key_U))
        # A text finds its whole count in another one, unless it alone holds the n-gram most often.
        clipped = np.where(alone, second[gram], count)
        matches_BK[:, k] = np.bincount(text, weights=clipped, minlength=len(found))
    # In order of length, the closest other text is a neighbour.
    order = np.argsort(lengths_B)
    around = np.concatenate(([-np.inf], lengths_B[order], [np.inf]))
    closest_B = np.empty(len(found))
    closest_B[order] = _closest(lengths_B[order], below=around[:-2], above=around[2:])
    return _scores_of(matches_BK, lengths_B, closest_B, SMOOTHING_EPSILON)


def _looked_up(key_U: Ints, pair_G: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Where each pair stands among sorted keys, and whether it does."""
    place_G = np.searchsorted(key_U, pair_G)
    known = place_G < len(key_U)
    known[known] = key_U[place_G[known]] == pair_G[known]
    return place_G, known


def _most(gram: Ints, count: Ints, size: int) -> Ints:
    """Highest count of each n-gram, shape [size]; 0 for one that does not occur."""
    most = np.zeros(size, dtype=np.int64)
    np.maximum.at(most, gram, count)
    return most


def _closest(length: Ints, below: Floats, above: Floats) -> Floats:
    """Of two lengths around a length the closer one, at a tie the shorter."""
    return np.where(length - below <= above - length, below, above)


def _scores_of(matches_BK: Ints, lengths_B: Ints, closest_B: Floats, unmatched: float) -> Floats:
    """BLEU-1..K of each text from clipped matches by order, text lengths and closest reference lengths.

    An order without a match counts ``unmatched`` matches.
    """
    orders_K = np.arange(1, matches_BK.shape[1] + 1)
    # A text too short for an order counts one n-gram of it, unmatched.
    total_BK = np.maximum(1, lengths_B[:, None] - orders_K + 1)
    with np.errstate(divide="ignore"):
        log_precision_BK = np.log(np.where(matches_BK == 0, unmatched, matches_BK) / total_BK)
    log_mean_BK = np.cumsum(log_precision_BK, axis=1) / orders_K
    log_penalty_B = np.minimum(0.0, 1.0 - closest_B / np.maximum(1, lengths_B))
    score_BK: Floats = np.exp(log_mean_BK + log_penalty_B[:, None]) * (matches_BK[:, :1] > 0)
    return score_BK


def means(score_BK: Floats) -> dict[int, float]:
    """Mean BLEU-2..K over texts."""
    # fsum: the mean does not depend on the order of the texts, to the last bit.
    return {k + 1: math.fsum(score_BK[:, k]) / len(score_BK) for k in range(1, score_BK.shape[1])}
