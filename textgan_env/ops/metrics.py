"""Scores of finished texts: pure functions on lists of token lists, in numpy.

A text is a list of tokens, strings or ids (anything hashable), without padding; whether it carries its EOS
is the caller's choice, the same for every list that is compared. Every score is a fraction between 0 and 1,
but for distances. A share of nothing (no n-gram at all, as all texts are too short) is NaN, never 0.

Axis letters: B texts that are scored, K n-gram orders 1..max_n, G n-grams read off the texts, one entry
each time one occurs, U different n-grams, F features of a text.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from textgan_env.ops.bleu import BleuReferences, bleu, self_bleu
from textgan_env.ops.ngrams import Floats, Texts, ngrams, numbered, require_order, token_lists
from textgan_env.utils.errors import InputError, require

__all__ = [
    "BleuReferences",
    "Floats",
    "Texts",
    "adjacent_repeats",
    "bleu",
    "copied_share",
    "copied_texts",
    "distinct_n",
    "frechet_distance",
    "roc_auc",
    "self_bleu",
    "unique_share",
]


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
    require_order("n", n, 1)
    *_, (gram_G, _, _) = ngrams(*numbered(token_lists("texts", texts)), n)
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
    lists = token_lists("texts", texts)
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
    tokens, lengths = numbered(token_lists("texts", texts))
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
    require_order("n", n, 1)
    written = token_lists("texts", texts)
    tokens, lengths = numbered(written + token_lists("training", training))
    *_, (gram_G, text_G, key_U) = ngrams(tokens, lengths, n)
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
    written = token_lists("texts", texts)
    known = set(token_lists("training", training))
    return _share(sum(text in known for text in written), len(written))


def roc_auc(score_real: ArrayLike, score_fake: ArrayLike) -> float:
    """Probability that a discriminator scores a random real text above a random fake one, a tie counting one half.

    0.5: the discriminator cannot tell; 1: every real text scores above every fake one. Only the order of scores
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
    """Features as float64 (B, F), checked."""
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
    """Scores as float64 (B,), checked."""
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a list of numbers: {error}") from None
    listed = scores.ndim == 1 and len(scores) > 0
    require(listed, f"{name} must be a list of at least one score, found shape {scores.shape}")
    require(not np.isnan(scores).any(), f"{name} must be numbers, found {int(np.isnan(scores).sum())} NaN")
    return scores


def _share(part: int, whole: int) -> float:
    """The share; NaN of nothing."""
    return part / whole if whole else math.nan
