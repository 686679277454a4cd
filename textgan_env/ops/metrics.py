"""Scores of finished texts: pure functions on lists of token lists, in numpy.

A text is a list of tokens, strings or ids (anything hashable), without padding; whether it carries its EOS
is the caller's choice, the same for every list that is compared. Every score is a fraction between 0 and 1,
but for distances. A share of nothing (no n-gram at all, as all texts are too short) is NaN, never 0.

Axis letters: B texts that are scored, K n-gram orders 1..max_n, G n-grams read off the texts, one entry
each time one occurs, U different n-grams, F features of a text.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textgan_env.utils.errors import InputError, require

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
    score_BK = BleuReferences(references, max_n).scores(hypotheses, smoothing=smoothing)
    return _means(score_BK)


class BleuReferences:
    """References of BLEU, indexed once, for who scores texts against the same ones again and again.

    What a score is stands under `bleu`, which is the mean of these.

    Args:
        references: Real texts, token lists of any length.
        max_n: Highest order, 2 or more.

    Raises:
        InputError: If it is no list of token lists, or max_n is below 2.
    """

    def __init__(self, references: Texts, max_n: int = 5) -> None:
        _require_order("max_n", max_n, 2)
        lists = _token_lists("references", references)
        self._number = _numbers(lists)
        tokens, lengths = _laid_out(lists, self._number)
        self._size, self._lengths = len(tokens), np.sort(lengths)
        # Of each order: the n-grams that occur, and how often the reference that has one most often has it.
        self._orders: list[tuple[Ints, Ints]] = []
        for gram_G, text_G, key_U in _ngrams(tokens, lengths, max_n):
            gram, _, count = _counts_per_text(gram_G, text_G, len(lengths))
            self._orders.append((key_U, _most(gram, count, size=len(key_U))))

    def scores(self, texts: Texts, *, smoothing: bool = True) -> Floats:
        """BLEU of each text by itself.

        Args:
            texts: B token lists of any length; an empty one scores 0.
            smoothing: As for `bleu`.

        Returns:
            float64 (B, K): BLEU-1 to BLEU-max_n, each between 0 and 1.

        Raises:
            InputError: If there is no text, or it is no list of token lists.
        """
        lists = _token_lists("hypotheses", texts)
        tokens, lengths_B = _laid_out(lists, self._number)
        text, tokens_left = _places(lengths_B)
        matches_BK = np.zeros((len(lists), len(self._orders)), dtype=np.int64)
        start_G = np.flatnonzero(tokens >= 0)
        gram_G = tokens[start_G]
        for k, (key_U, most_U) in enumerate(self._orders):
            if k > 0:
                # An n-gram that no reference has is no part of a longer one that a reference has.
                fits = tokens_left[start_G] > k
                start_G, last_G = start_G[fits], tokens[start_G[fits] + k]
                gram_G, known = _looked_up(key_U, gram_G[fits] * self._size + last_G)
                known &= last_G >= 0
                start_G, gram_G = start_G[known], gram_G[known]
            gram, row, count = _counts_per_text(gram_G, text[start_G], len(lists))
            clipped = np.minimum(count, most_U[gram])
            matches_BK[:, k] = np.bincount(row, weights=clipped, minlength=len(lists))
        place_B = np.searchsorted(self._lengths, lengths_B)
        around = np.concatenate(([-np.inf], self._lengths, [np.inf]))
        closest_B = _closest(lengths_B, below=around[place_B], above=around[place_B + 1])
        return _scores_of(matches_BK, lengths_B, closest_B, SMOOTHING_EPSILON if smoothing else 0.0)


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
    for k, (gram_G, text_G, key_U) in enumerate(_ngrams(tokens, lengths_B, max_n)):
        gram, text, count = _counts_per_text(gram_G, text_G, len(lists))
        most = _most(gram, count, size=len(key_U))
        leads = count == most[gram]
        alone = leads & (np.bincount(gram[leads], minlength=len(key_U))[gram] == 1)
        second = _most(gram[~leads], count[~leads], size=len(key_U))
        # A text finds its whole count in another one, unless it alone holds the n-gram most often.
        clipped = np.where(alone, second[gram], count)
        matches_BK[:, k] = np.bincount(text, weights=clipped, minlength=len(lists))
    # In order of length, the closest other text is a neighbour.
    order = np.argsort(lengths_B)
    around = np.concatenate(([-np.inf], lengths_B[order], [np.inf]))
    closest_B = np.empty(len(lists))
    closest_B[order] = _closest(lengths_B[order], below=around[:-2], above=around[2:])
    return _means(_scores_of(matches_BK, lengths_B, closest_B, SMOOTHING_EPSILON))


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
    *_, (gram_G, _, _) = _ngrams(*_numbered(_token_lists("texts", texts)), n)
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
    *_, (gram_G, text_G, key_U) = _ngrams(tokens, lengths, n)
    ours = text_G < len(written)
    known = np.zeros(len(key_U), dtype=bool)
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


def frechet_distance(one_BF: ArrayLike, other_BF: ArrayLike) -> float:
    """Squared Frechet distance between two sets of texts, each taken for a Gaussian over frozen features.

    ``|m - n|^2 + tr(C + D - 2 (C D)^(1/2))`` with means m, n and covariances C, D (divided by B - 1); 0 if the two
    Gaussians are the same. It is biased upwards, the more so the fewer texts there are for F features: compare
    numbers from equally many texts only, and with that of real text against other real text.

    Source: Dowson & Landau (1982), "The Frechet distance between multivariate normal distributions"; on features of
    texts: Semeniuta et al. (2018), "On Accurate Evaluation of GANs for Language Generation".

    Args:
        one_BF: Features of the texts of one set, float (B, F), at least 2 texts.
        other_BF: Of the other set, of any number of texts, float (any, F).

    Returns:
        0 or more, in squared units of the features; the same whichever set comes first.

    Raises:
        InputError: If an array has another shape, fewer than 2 rows, or numbers that are not finite.
    """
    one, other = _features("one_BF", one_BF), _features("other_BF", other_BF)
    same = one.shape[1] == other.shape[1]
    require(same, f"both sets must have the same features, found {one.shape[1]} and {other.shape[1]}")
    root, other_root = _covariance_root(one), _covariance_root(other)
    # With C = R'R and D = S'S, the trace of (C D)^(1/2) is the sum of the singular values of R S'.
    shared = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    spread = np.square(root).sum() + np.square(other_root).sum() - 2 * shared
    return float(np.square(one.mean(0) - other.mean(0)).sum() + max(0.0, spread))


def _features(name: str, values: ArrayLike) -> Floats:
    features = np.asarray(values, dtype=np.float64)
    table = features.ndim == 2 and features.shape[0] >= 2 and features.shape[1] >= 1
    require(table, f"{name} must have the features of at least 2 texts, one text a row, found shape {features.shape}")
    require(bool(np.isfinite(features).all()), f"{name} must be finite numbers")
    return features


def _covariance_root(features_BF: Floats) -> Floats:
    """A matrix R with R'R the covariance."""
    centred_BF = features_BF - features_BF.mean(0)
    root: Floats = np.asarray(np.linalg.qr(centred_BF / math.sqrt(len(features_BF) - 1), mode="r"))
    return root


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
    """Number the distinct tokens 0, 1, ... and lay all texts end to end, see `_laid_out`."""
    return _laid_out(lists, _numbers(lists))


def _numbers(lists: list[tuple[Hashable, ...]]) -> dict[Hashable, int]:
    """Numbers 0, 1, ... of the distinct tokens."""
    return {token: i for i, token in enumerate(dict.fromkeys(chain.from_iterable(lists)))}


def _laid_out(lists: list[tuple[Hashable, ...]], number: Mapping[Hashable, int]) -> tuple[Ints, Ints]:
    """Token numbers of all texts end to end, shape [tokens], -1 where a token has none; lengths, shape [texts]."""
    tokens = np.fromiter((number.get(token, -1) for token in chain.from_iterable(lists)), dtype=np.int64)
    return tokens, np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))


def _places(lengths: Ints) -> tuple[Ints, Ints]:
    """Of each token of texts laid end to end: the index of its text, and the tokens from it to the text's end."""
    text = np.repeat(np.arange(len(lengths)), lengths)
    return text, np.repeat(np.cumsum(lengths), lengths) - np.arange(len(text))


def _ngrams(tokens: Ints, lengths: Ints, max_n: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield for n = 1..max_n the n-grams of all texts, numbered so that equal ones have equal numbers.

    Args:
        tokens: Token numbers of all texts end to end, each below ``len(tokens)``, every number up to the highest.
        lengths: Length of each text.
        max_n: Highest order.

    Yields:
        gram_G: The number of each n-gram; text_G: the index of the text it stands in; key_U: for each of the U
        different n-grams, sorted, (the number of its first n - 1 tokens) * len(tokens) + its last token.
    """
    text, tokens_left = _places(lengths)
    start_G, gram_G = np.arange(len(tokens)), tokens
    key_U = np.unique(tokens)
    for n in range(1, max_n + 1):
        if n > 1:
            fits = tokens_left[start_G] >= n
            start_G = start_G[fits]
            # The pair (number of the first n - 1 tokens, last token) as one integer. Both are below the
            # number of tokens, so it fits into 63 bits up to 3e9 tokens; renumbering keeps that so.
            pair_G = gram_G[fits] * len(tokens) + tokens[start_G + n - 1]
            key_U, gram_G = np.unique(pair_G, return_inverse=True)
        yield gram_G, text[start_G], key_U


def _looked_up(key_U: Ints, pair_G: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Where each pair stands among sorted keys, and whether it does."""
    place_G = np.searchsorted(key_U, pair_G)
    known = place_G < len(key_U)
    known[known] = key_U[place_G[known]] == pair_G[known]
    return place_G, known


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


def _means(score_BK: Floats) -> dict[int, float]:
    """Mean BLEU-2..K over texts."""
    # fsum: the mean does not depend on the order of the texts, to the last bit.
    return {k + 1: math.fsum(score_BK[:, k]) / len(score_BK) for k in range(1, score_BK.shape[1])}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
