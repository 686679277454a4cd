"""Metrics against hand-computed values, nltk, and plain counting."""

import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from conftest import assert_refused
from textgan_env.ops import metrics

Texts = list[list[int]]

# Few tokens, so that n-grams of every order meet; lengths from 0, so that some are too short for an order.
text = st.lists(st.integers(0, 3), max_size=9)
texts = st.lists(text, min_size=1, max_size=6)
max_order = st.integers(2, 6)


def words(*lines: str) -> list[list[str]]:
    return [line.split() for line in lines]


def numbered(texts: Texts) -> metrics.NumberedTexts:
    tokens = np.array([token for one in texts for token in one], dtype=np.int64)
    return metrics.NumberedTexts(tokens, np.array([len(one) for one in texts]))


def nltk_bleu(hypothesis: list[Any], references: list[list[Any]], max_n: int) -> list[float]:
    """Sentence BLEU-2..max_n by nltk, with uniform weights and method 1."""
    weights = [(1 / n,) * n for n in range(2, max_n + 1)]
    if max_n == 2:  # A list of one is unpacked by nltk into a number.
        return [sentence_bleu(references, hypothesis, weights[0], SmoothingFunction().method1)]
    scores: list[float] = sentence_bleu(references, hypothesis, weights, SmoothingFunction().method1)
    return scores


def mean_nltk_bleu(pairs: list[tuple[list[Any], list[list[Any]]]], max_n: int) -> dict[int, float]:
    """Mean of nltk's score over (hypothesis, references) pairs."""
    rows = [nltk_bleu(hypothesis, references, max_n) for hypothesis, references in pairs]
    return {n: math.fsum(row[n - 2] for row in rows) / len(rows) for n in range(2, max_n + 1)}


def others(all_texts: list[Any], index: int) -> list[Any]:
    return all_texts[:index] + all_texts[index + 1 :]


def same(scores: dict[int, float], expected: dict[int, float]) -> bool:
    return scores == pytest.approx(expected, abs=1e-12, rel=0)


# BLEU


@settings(max_examples=300)
@given(hypotheses=texts, references=texts, max_n=max_order)
def test_bleu_equals_nltk(hypotheses: Texts, references: Texts, max_n: int) -> None:
    expected = mean_nltk_bleu([(hypothesis, references) for hypothesis in hypotheses], max_n)
    assert same(metrics.bleu(hypotheses, references, max_n), expected)


@settings(max_examples=300)
@given(written=st.lists(text, min_size=2, max_size=6), max_n=max_order)
def test_self_bleu_equals_nltk_with_the_text_itself_left_out(written: Texts, max_n: int) -> None:
    expected = mean_nltk_bleu([(one, others(written, i)) for i, one in enumerate(written)], max_n)
    assert same(metrics.self_bleu(written, max_n), expected)


def test_both_equal_nltk_on_captions(shared_data: Path) -> None:
    captions = [
        [line.split() for line in (shared_data / name).read_text(encoding="utf-8").splitlines()[:200]]
        for name in ("coco_train.txt", "coco_test.txt")
    ]
    hypotheses, references = captions[0][:40], captions[1]
    pairs = [(hypothesis, references) for hypothesis in hypotheses]
    assert same(metrics.bleu(hypotheses, references), mean_nltk_bleu(pairs, 5))
    pairs = [(one, others(hypotheses, i)) for i, one in enumerate(hypotheses)]
    assert same(metrics.self_bleu(hypotheses), mean_nltk_bleu(pairs, 5))


@pytest.mark.parametrize(
    ("written", "references", "expected"),
    [
        # Only "bed" is unknown: 5/6 tokens, 4/5 pairs, 3/4 triples. Equal lengths: no penalty.
        (
            ["the cat sat on the bed"],
            ["the cat sat on the mat"],
            {2: math.sqrt(5 / 6 * 4 / 5), 3: (5 / 6 * 4 / 5 * 3 / 4) ** (1 / 3)},
        ),
        # "a" is written 3 times; the references have 2 and 1: so 2 count. "a a": 2 written, 1 counts.
        (["a a a"], ["a a b", "b a b"], {2: math.sqrt(2 / 3 * 1 / 2)}),
        # Same words, no common pair: 4/4, then 0.1/3, 0.1/2, 0.1/1; order 5 does not exist in 4 tokens: 0.1/1.
        (
            ["a b c d"],
            ["d c b a"],
            {2: (0.1 / 3) ** (1 / 2), 3: (0.01 / 6) ** (1 / 3), 4: (0.001 / 6) ** (1 / 4), 5: (0.0001 / 6) ** (1 / 5)},
        ),
        (["x y z"], ["a b c"], dict.fromkeys(range(2, 6), 0.0)),
        ([""], ["a b c"], {2: 0.0, 3: 0.0}),
        (["a b c d e", "x y z"], ["a b c d e"], dict.fromkeys(range(2, 6), 0.5)),
    ],
    ids=["precision", "clipped counts", "an order without a match", "no known token", "empty", "mean over texts"],
)
def test_bleu_by_hand(written: list[str], references: list[str], expected: dict[int, float]) -> None:
    assert same(metrics.bleu(words(*written), words(*references), max_n=max(expected)), expected)


@pytest.mark.parametrize(("reference_lengths", "penalty"), [
    ((6, 7), 1.0), ((5, 100), 1.0), ((9, 7), math.exp(1 - 7 / 6)), ((1, 9), math.exp(1 - 9 / 6)), ((7, 5), 1.0),
], ids=["equal", "shorter", "longer", "longer_is_closer", "tie_goes_to_the_shorter"])  # fmt: skip
def test_closest_reference_length_sets_the_penalty(reference_lengths: tuple[int, ...], penalty: float) -> None:
    references = [["a"] * length for length in reference_lengths]
    assert same(metrics.bleu([["a"] * 6], references, max_n=3), {2: penalty, 3: penalty})


# Self-BLEU


def test_bleu_of_each_text_is_the_same_whatever_is_scored_beside_it_and_its_mean_is_bleu() -> None:
    written, references = words("a b c d e", "x y z", "a x", "e d c", "n a b n"), words("a b c", "c d e d", "x y", "e")
    scorer = metrics.BleuReferences(references, max_n=4)
    scores_BK = scorer.scores(written)
    assert scores_BK.shape == (5, 4)
    alone = np.concatenate([scorer.scores([text]) for text in reversed(written)])[::-1]
    np.testing.assert_array_equal(scores_BK, alone)
    for n, score in metrics.bleu(written, references, max_n=4).items():
        assert score == pytest.approx(scores_BK[:, n - 1].mean())
    assert scores_BK[2, 0] == 1  # "a x": both words are known, and a reference has two of them


def test_an_unknown_word_never_makes_a_match() -> None:
    """As many different words as tokens: a number for unknown words would collide with the next prefix."""
    scorer = metrics.BleuReferences(words("a b c"), max_n=3)
    assert scorer.scores(words("z b c"))[0, 1:].tolist() == pytest.approx(nltk_bleu(["z", "b", "c"], words("a b c"), 3))
    # "a z" as (a, -1) has the key of (the gram before a, the last word).
    assert scorer.scores(words("b z"))[0, 1] == pytest.approx(nltk_bleu(["b", "z"], words("a b c"), 2)[0])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["a man on a horse ."] * 4, dict.fromkeys(range(2, 6), 1.0)),
        (["a b", "a b"], {2: 1.0, 3: 0.1 ** (1 / 3)}),
        (["a b c d e", "f g h i j", "k l m n o"], dict.fromkeys(range(2, 6), 0.0)),
        # 1/5, then nothing: 0.1/4, 0.1/3, 0.1/2, 0.1/1.
        (
            ["a b c d .", "e f g h ."],
            {
                n: product ** (1 / n)
                for n, product in ((2, 0.2 * 0.1 / 4), (3, 0.2 * 0.01 / 12), (4, 0.2e-3 / 24), (5, 0.2e-4 / 24))
            },
        ),
        (["a b c d e", "v w x y z"], dict.fromkeys(range(2, 6), 0.0)),
        (["a b c d e", "v w x y z", "a b c d e"], dict.fromkeys(range(2, 6), 2 / 3)),
        # The short text's only reference is longer (penalty e^-1), the long one's is shorter (none).
        (["a b", "a b a b"], {2: (math.exp(1 - 4 / 2) + math.sqrt(2 / 4 * 1 / 3)) / 2}),
    ],
    ids=["the same", "the same and short", "disjoint", "one token shared", "never its own reference", "its double is",
         "its own length sets no penalty"],
)  # fmt: skip
def test_self_bleu_by_hand(written: list[str], expected: dict[int, float]) -> None:
    assert same(metrics.self_bleu(words(*written), max_n=max(expected)), expected)


# Both


@settings(max_examples=50)
@given(hypotheses=st.lists(text, min_size=2, max_size=8), references=texts, seed=st.integers(0, 99))
def test_scores_do_not_depend_on_the_order_of_texts(hypotheses: Texts, references: Texts, seed: int) -> None:
    shuffle = random.Random(seed).shuffle
    mixed, mixed_references = hypotheses.copy(), references.copy()
    shuffle(mixed)
    shuffle(mixed_references)
    assert same(metrics.bleu(mixed, mixed_references), metrics.bleu(hypotheses, references))
    assert same(metrics.self_bleu(mixed), metrics.self_bleu(hypotheses))


def test_strings_ids_and_array_rows_score_alike() -> None:
    ids = np.random.default_rng(0).integers(0, 5, size=(6, 8))
    strings = [[f"w{token}" for token in row] for row in ids.tolist()]
    expected = metrics.bleu(ids.tolist()[:3], ids.tolist()[3:])
    rows: Any = ids
    assert (metrics.bleu(strings[:3], strings[3:]), metrics.bleu(rows[:3], rows[3:])) == (expected, expected)
    assert metrics.self_bleu(rows) == metrics.self_bleu(strings)


def test_inputs_are_left_as_they_were() -> None:
    hypotheses, references = [[1, 2, 3], [3, 2]], [[1, 2], [2, 3, 1]]
    metrics.bleu(hypotheses, references)
    metrics.self_bleu(hypotheses)
    assert (hypotheses, references) == ([[1, 2, 3], [3, 2]], [[1, 2], [2, 3, 1]])


# Shares


def test_distinct_n_by_hand() -> None:
    # 7 tokens, 4 distinct; 5 pairs, "a b" twice; none across the border of two texts.
    written = words("a b a b", "b c d")
    assert (metrics.distinct_n(written, 1), metrics.distinct_n(written, 2)) == (4 / 7, 4 / 5)
    assert metrics.distinct_n(written, 4) == 1.0
    assert math.isnan(metrics.distinct_n(written, 5))


def test_unique_share_by_hand() -> None:
    assert metrics.unique_share(words("a b", "b a", "a b", "a b")) == 2 / 4


def test_adjacent_repeats_by_hand() -> None:
    # "a a", "a a" of three pairs; one pair that differs; the border between the texts ("b", "b") is no pair.
    assert metrics.adjacent_repeats(words("a a a b", "b c", "d")) == 2 / 4
    assert math.isnan(metrics.adjacent_repeats(words("a", "a")))


def test_copied_share_counts_every_writing_of_an_ngram() -> None:
    # Pairs written: a b, b a, a b, b c; in training: a b and c d; so 2 of 4.
    written, training = words("a b a b c"), words("x a b", "c d")
    assert metrics.copied_share(written, training, 1) == 1.0
    assert metrics.copied_share(written, training, 2) == 2 / 4
    assert metrics.copied_share(written, training, 3) == 0.0
    assert math.isnan(metrics.copied_share(written, training, 6))


def test_copied_texts_are_whole_texts_only() -> None:
    assert metrics.copied_texts(words("a b", "a b", "a", "b a"), words("a b", "a b c")) == 2 / 4


@settings(max_examples=100)
@given(written=texts, training=texts, n=st.integers(1, 4))
def test_shares_equal_plain_counting(written: Texts, training: Texts, n: int) -> None:
    def grams(some: Texts) -> Counter[tuple[int, ...]]:
        return Counter(tuple(one[i : i + n]) for one in some for i in range(len(one) - n + 1))

    ours, theirs = grams(written), grams(training)
    if not ours:
        assert math.isnan(metrics.distinct_n(written, n))
        assert math.isnan(metrics.copied_share(written, training, n))
        return
    assert metrics.distinct_n(written, n) == len(ours) / ours.total()
    copied = sum(count for gram, count in ours.items() if gram in theirs)
    assert metrics.copied_share(written, training, n) == copied / ours.total()


@settings(max_examples=100)
@given(written=texts, training=texts)
def test_numbered_texts_score_as_their_token_lists(written: Texts, training: Texts) -> None:
    """Numbers leave gaps, and on either side some stand for tokens that the other does not have."""
    known, read = (
        [[3 * token for token in one] for one in written],
        [[4 * token + 2 for token in one] for one in training],
    )
    ours, theirs = numbered(known), numbered(read)
    scores: list[tuple[Callable[..., Any], int]] = [
        (metrics.bleu, 2), (metrics.copied_shares, 2), (metrics.copied_texts, 2), (metrics.self_bleu, 1),
        (metrics.distinct_shares, 1), (metrics.unique_share, 1), (metrics.adjacent_repeats, 1),
    ]  # fmt: skip
    for score, sides in scores:
        if score is metrics.self_bleu and len(known) < 2:
            continue
        order = (3,) if "shares" in score.__name__ else ()
        expected, found = score(*(known, read)[:sides], *order), score(*(ours, theirs)[:sides], *order)
        assert repr(found) == repr(expected)
    assert repr(metrics.bleu(ours.first(1), theirs.first(1))) == repr(metrics.bleu(known[:1], read[:1]))


# AUC


def test_auc_by_hand_with_ties() -> None:
    # Pairs: 3 beats 1, 2, ties 3 (2.5 of 3); 2 beats 1, ties 2, loses to 3 (1.5); so 4 of 6.
    assert metrics.roc_auc([3, 2], [1, 2, 3]) == 4 / 6


@pytest.mark.parametrize(("real", "fake", "auc"), [
    ([2, 3], [0, 1], 1.0), ([0, 1], [2, 3], 0.0), ([1, 1], [1, 1, 1], 0.5), ([math.inf], [-math.inf], 1.0),
], ids=["perfect", "reversed", "constant", "infinite"])  # fmt: skip
def test_auc_at_its_ends(real: list[float], fake: list[float], auc: float) -> None:
    assert metrics.roc_auc(real, fake) == auc


@settings(max_examples=100)
@given(
    real=st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    fake=st.lists(st.integers(-3, 3), min_size=1, max_size=12),
)
def test_auc_equals_comparing_all_pairs(real: list[int], fake: list[int]) -> None:
    wins = sum((r > f) + (r == f) / 2 for r in real for f in fake)
    assert metrics.roc_auc(real, fake) == wins / (len(real) * len(fake))


# Bad input


@pytest.mark.parametrize(("score", "arguments", "field"), [
    (metrics.bleu, ([], [[1]]), "hypotheses"), (metrics.bleu, ([[1]], []), "references"),
    (metrics.bleu, ([[1]], [[1]], 1), "max_n"), (metrics.bleu, (["a text"], [["a"]]), r"hypotheses\[0\]"),
    (metrics.bleu, ("a text", [["a"]]), "hypotheses"), (metrics.bleu, ([[1]], [3]), r"references\[0\]"),
    (metrics.bleu, ([[1]], [[[1, 2]]]), "a token of references"),
    (metrics.BleuReferences, ([],), "references"), (metrics.BleuReferences, ([[1]], 1), "max_n"),
    (metrics.frechet_distance, ([1.0, 2.0], [[1.0], [2.0]]), "one_BF"),
    (metrics.frechet_distance, ([[1.0], [2.0]], [[1.0]]), "other_BF"),
    (metrics.frechet_distance, ([[1.0], [2.0]], [[1.0, 2.0]] * 2), "features, found 1 and 2"),
    (metrics.frechet_distance, ([[1.0], [np.nan]], [[1.0], [2.0]]), "one_BF must be finite"),
    (metrics.self_bleu, ([[1, 2]],), "2 texts"), (metrics.self_bleu, ([],), "texts"),
    (metrics.self_bleu, ([[1], [2]], 0), "max_n"), (metrics.distinct_n, ([[1]], 0), "n must"),
    (metrics.distinct_n, ([], 1), "texts"), (metrics.unique_share, ([],), "texts"),
    (metrics.unique_share, ([[[1]]],), "a token of texts"), (metrics.adjacent_repeats, ([],), "texts"),
    (metrics.copied_share, ([[1]], [], 2), "training"), (metrics.copied_share, ([[1]], [[1]], 1.5), "n must"),
    (metrics.copied_texts, ([], [[1]]), "texts"), (metrics.unique_share, (numbered([]),), "texts must hold"),
    (metrics.bleu, ([[1]], numbered([[1]])), "neither"), (metrics.bleu, (numbered([[1]]), [[1]]), "neither"),
    (metrics.copied_share, ([[1]], numbered([[1]]), 2), "none of them"), (metrics.roc_auc, ([], [1.0]), "score_real"),
    (metrics.roc_auc, ([1.0], [[1.0]]), "score_fake"), (metrics.roc_auc, ([1.0, math.nan], [1.0]), "1 NaN"),
    (metrics.roc_auc, (["high"], [1.0]), "score_real"),
])  # fmt: skip
def test_bad_input_is_named_in_one_sentence(
    score: Callable[..., object], arguments: tuple[object, ...], field: str
) -> None:
    assert "\n" not in assert_refused(field, score, *arguments)


@pytest.mark.filterwarnings("ignore:\\nThe hypothesis contains 0 counts:UserWarning")  # what is compared here
def test_without_smoothing_an_order_without_a_match_makes_the_score_zero_as_in_nltk() -> None:
    references = words("a b c d e", "a b x")
    hypotheses = words("a b c d e", "a b c z", "b a", "z")
    rows = [
        [sentence_bleu(references, text, [1 / n] * n) for n in range(2, 6)] for text in hypotheses
    ]  # its method 0, which writes 1e-308 for 0
    expected = {n: sum(row[n - 2] for row in rows) / len(rows) for n in range(2, 6)}
    found = metrics.bleu(hypotheses, references, smoothing=False)
    assert found == pytest.approx(expected, abs=1e-9)
    assert found[5] == pytest.approx(1 / 4)


# -- The Frechet distance ---------------------------------------------------------------------------------------------
def test_frechet_distance_in_one_dimension_is_the_closed_form() -> None:
    """Means 1 and 4, standard deviations 1 and 3 (divided by B - 1): 3^2 + (3 - 1)^2."""
    assert metrics.frechet_distance([[0.0], [1.0], [2.0]], [[1.0], [4.0], [7.0]]) == pytest.approx(13)


def test_frechet_distance_of_equal_sets_is_zero_and_of_moved_ones_the_squared_way() -> None:
    features_BF = np.random.default_rng(0).normal(size=(50, 6))
    assert metrics.frechet_distance(features_BF, features_BF) == pytest.approx(0, abs=1e-12)
    moved = metrics.frechet_distance(features_BF, features_BF + np.array([3.0, 0, 0, 4.0, 0, 0]))
    assert moved == pytest.approx(25)


def test_frechet_distance_of_axes_apart_adds_up_and_of_others_equals_the_formula_with_eigenvalues() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 3)), rng.normal(size=(60, 3)) * [1, 2, 5] + 1
    covariances = np.cov(one.T), np.cov(other.T)
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1])
    way = np.square(one.mean(0) - other.mean(0)).sum()
    expected = way + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.sqrt(eigenvalues).sum()
    assert metrics.frechet_distance(one, other) == pytest.approx(float(expected.real))
    # Uncorrelated features: the sum of the closed forms.
    cross = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    stretched = cross * [2, 7] + [0, 1]
    sd = np.sqrt(2 / 3)
    assert metrics.frechet_distance(cross, stretched) == pytest.approx((2 - 1) ** 2 * sd**2 + 36 * sd**2 + 1)


def test_frechet_distance_is_symmetric_and_knows_no_order_even_with_fewer_texts_than_features() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(5, 20)), rng.normal(1, 2, size=(7, 20))
    distance = metrics.frechet_distance(one, other)
    assert distance > 0
    assert metrics.frechet_distance(other, one) == pytest.approx(distance)
    assert metrics.frechet_distance(one[::-1], other[[3, 0, 6, 1, 2, 5, 4]]) == pytest.approx(distance)
