"""Scores of finished texts: pure functions on lists of token lists, or on `NumberedTexts`, in numpy.

A text is a list of tokens, strings or ids (anything hashable), without padding; whether it carries its EOS
is the caller's choice, the same for every list that is compared. Every score is a fraction between 0 and 1,
but for distances. A share of nothing (no n-gram at all, as all texts are too short) is NaN, never 0.

Axis letters: B texts that are scored, K n-gram orders 1..max_n, G n-grams read off the texts, one entry
each time one occurs, U different n-grams, F features of a text.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from textgan_env.ops.bleu import BleuReferences as BleuReferences
from textgan_env.ops.bleu import bleu as bleu
from textgan_env.ops.bleu import means as means
from textgan_env.ops.bleu import self_bleu as self_bleu
from textgan_env.ops.bleu import self_scores as self_scores
from textgan_env.ops.ngrams import AnyTexts, ngrams, numbered, require_order
from textgan_env.ops.ngrams import Floats as Floats
from textgan_env.ops.ngrams import NumberedTexts as NumberedTexts
from textgan_env.utils.errors import InputError, require


def distinct_n(texts: AnyTexts, n: int) -> float:
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
    return distinct_shares(texts, n)[n]


def distinct_shares(texts: AnyTexts, n: int) -> dict[int, float]:
    """`distinct_n` of every order from 1 to n, in one pass: ``{1: ..., n: ...}``."""
    require_order("n", n, 1)
    grams = enumerate(ngrams(numbered(texts=texts)[0], n), 1)
    return {order: _share(len(key_U), len(gram_G)) for order, (gram_G, _, key_U) in grams}


def unique_share(texts: AnyTexts) -> float:
    """Share of distinct whole texts: 1 if no text occurs twice, 1/B if all B are the same.

    Args:
        texts: B token lists.

    Returns:
        A share above 0, at most 1.

    Raises:
        InputError: If texts is empty or not a list of token lists.
    """
    whole = numbered(texts=texts)[0].whole()
    return _share(len(set(whole)), len(whole))


def adjacent_repeats(texts: AnyTexts) -> float:
    """Share of adjacent token pairs whose two tokens are equal ("the the"): the mark of a text that loops.

    Args:
        texts: Token lists.

    Returns:
        A share between 0 and 1; NaN if no text has two tokens.

    Raises:
        InputError: If texts is empty or not a list of token lists.
    """
    (found,) = numbered(texts=texts)
    tokens, text = found.tokens, np.repeat(np.arange(len(found)), found.lengths)
    inside = text[1:] == text[:-1]
    return _share(int(np.sum(inside & (tokens[1:] == tokens[:-1]))), int(np.sum(inside)))


def copied_share(texts: AnyTexts, training: AnyTexts, n: int) -> float:
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
    return copied_shares(texts, training, n)[n]


def copied_shares(texts: AnyTexts, training: AnyTexts, n: int) -> dict[int, float]:
    """`copied_share` of every order from 1 to n, in one pass: ``{1: ..., n: ...}``."""
    require_order("n", n, 1)
    written, read = numbered(texts=texts, training=training)
    shares = {}
    for order, (gram_G, text_G, key_U) in enumerate(ngrams(written.followed_by(read), n), 1):
        first = np.searchsorted(text_G, len(written))  # n-gram of the training texts
        known_U = np.zeros(len(key_U), dtype=bool)
        known_U[gram_G[first:]] = True
        shares[order] = _share(int(np.sum(known_U[gram_G[:first]])), int(first))
    return shares


def copied_texts(texts: AnyTexts, training: AnyTexts) -> float:
    """Share of texts that stand, whole and token by token, among the training texts.

    Args:
        texts: Generated texts, token lists.
        training: Training texts, token lists.

    Returns:
        A share between 0 and 1.

    Raises:
        InputError: If a list is empty or not a list of token lists.
    """
    return float(are_copied(texts, training).mean())


def are_copied(texts: AnyTexts, training: AnyTexts) -> Floats:
    """Which texts stand, whole, among the training texts: float64 (B,), 1 or 0; the arguments of `copied_texts`."""
    written, read = (found.whole() for found in numbered(texts=texts, training=training))
    known = set(read)
    return np.array([text in known for text in written], dtype=np.float64)


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
    return frechet_between(moments(one), moments(other))


def moments(features_BF: ArrayLike) -> tuple[Floats, Floats]:
    """What `frechet_between` takes of a set of texts: the mean (F,), and R with R'R the covariance (at most F, F).

    Raises:
        InputError: As `frechet_distance`.
    """
    features = _features("features_BF", features_BF)
    return features.mean(0), _covariance_root(features)


def frechet_between(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> float:
    """`frechet_distance` of two sets by their `moments`."""
    (mean, root), (other_mean, other_root) = one, other
    # With C = R'R and D = S'S, the trace of (C D)^(1/2) is the sum of the singular values of R S'.
    shared = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    spread = np.square(root).sum() + np.square(other_root).sum() - 2 * shared
    return float(np.square(mean - other_mean).sum() + max(0.0, spread))


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
