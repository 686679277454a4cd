import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import assert_refused
from textgan_env.text.vocabulary import EOS, UNK, Vocabulary, tokenize
from textgan_env.utils.text_options import Mode

WORDS = ("the", "cat", "sat")


def build(texts: Sequence[Sequence[str]], **options: Any) -> Vocabulary:
    """The vocabulary of some tokenized texts."""
    return Vocabulary.from_counts(Counter(word for text in texts for word in text), **options)


def nltk_words() -> Callable[[str], list[str]]:
    tokenizer: Callable[[str], list[str]] = pytest.importorskip("nltk.tokenize").NLTKWordTokenizer().tokenize
    return tokenizer


# -- tokenize ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("line", "words"), [
    ("A dog, a cat: both.", "a dog , a cat : both ."),
    ("3,000 men at 12:30 paid $3.88.", "3,000 men at 12:30 paid $ 3.88 ."),
    ("the U.S.A. won (twice!).", "the u.s.a. won ( twice ! ) ."),
    ('she said "go." and (so) left', "she said `` go. '' and ( so ) left"),
    ("don't we'll dogs' John's I'm", "do n't we 'll dogs ' john 's i 'm"),
    ("'tis 'quoted' text", "' tis ' quoted ' text"),
    ("i cannot, gonna and wanna", "i can not , gon na and wan na"),
    ("well-known -- or so...", "well-known -- or so ..."),
    ("coffee,,and cake", "coffee , ,and cake"),
    ("50% of #1 & a@b;c*d", "50 % of # 1 & a @ b ; c * d"),
])  # fmt: skip
def test_words_are_those_of_the_treebank_rules(line: str, words: str) -> None:
    assert tokenize(line, lower=True) == words.split()
    assert tokenize(line, lower=True) == nltk_words()(line.lower())
    assert tokenize(line) == nltk_words()(line)


def test_straight_quotes_open_after_a_blank_or_bracket_and_close_elsewhere() -> None:
    assert tokenize('"so" ("he" said)') == ["``", "so", "''", "(", "``", "he", "''", "said", ")"]


@pytest.mark.parametrize("name", [
    "coco_test",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("coco_train", "emnlp_train10k", "emnlp_test")),
])  # fmt: skip
@pytest.mark.parametrize("lower", [True, False])
def test_words_equal_nltks_on_every_line_of_the_fields_corpora(shared_data: Path, name: str, lower: bool) -> None:
    reference = nltk_words()
    lines = (shared_data / f"{name}.txt").read_text("utf-8").splitlines()
    if not lower:  # the rules that look at case, on a sample
        lines = [line.title() for line in lines[::10]]
    different = [line for line in lines if tokenize(line, "word", lower) != reference(line.lower() if lower else line)]
    assert different == []


def test_coco_training_captions_have_4659_words_and_at_most_37_tokens(shared_data: Path) -> None:
    texts = [tokenize(line) for line in (shared_data / "coco_train.txt").read_text("utf-8").splitlines()]
    assert (len({word for text in texts for word in text}), max(map(len, texts))) == (4659, 37)


PLAIN = st.from_regex(r"[a-z]{1,5}|[0-9]{1,3}[.,:][0-9]{1,2}|[a-z]+('s|n't|'ll|-[a-z]+)", fullmatch=True)
SENTENCES = st.lists(st.tuples(PLAIN, st.sampled_from(["", ",", ";", ":", "!", "?", "...", " --", "%"])), min_size=1)


@given(SENTENCES, st.sampled_from(["", ".", " .", "?", ").", "..."]))
def test_words_equal_nltks_on_plain_sentences(parts: list[tuple[str, str]], end: str) -> None:
    line = " ".join(word + sign for word, sign in parts) + end
    assert tokenize(line) == nltk_words()(line)


@given(st.text(st.characters(exclude_characters='"', exclude_categories=["Cs"]), max_size=40))
def test_no_character_is_lost_and_no_token_is_empty_or_holds_a_blank(line: str) -> None:
    words = tokenize(line)
    assert "".join(words) == "".join("".join(tokenize(line, "char")).split())
    assert all(words)
    assert not any(re.search(r"\s", word) for word in words)


@pytest.mark.parametrize(("mode", "lower", "tokens"), [
    ("whitespace", True, ["it's", "a", "wheel."]),
    ("whitespace", False, ["It's", "a", "wheel."]),
    ("char", True, [*"  it's a\twheel. "]),
])  # fmt: skip
def test_other_modes_split_on_blanks_or_everywhere(mode: Mode, lower: bool, tokens: list[str]) -> None:
    assert tokenize("  It's a\twheel. \r\n", mode, lower) == tokens


def test_blanks_between_characters_are_kept_or_left_out_or_decided_line_by_line() -> None:
    assert tokenize("秦 川 雄 ， \n", "char", blanks="apart") == ["秦", "川", "雄", "，"]  # noqa: RUF001
    assert ["".join(tokenize(line, "char", blanks="line")) for line in ("x = 1\n", " x  = 10\n")] == ["x=1", "x = 10"]
    assert ["".join(tokenize(line, "char")) for line in ("x = 1\n", " x  = 10\n")] == ["x = 1", " x  = 10"]
    assert_refused("rule for blanks", tokenize, "a b", "char", blanks="auto")


def test_unknown_word_and_end_of_text_are_whole_words_in_word_rules() -> None:
    assert tokenize("a <unk>, <eos>.") == ["a", "<unk>", ",", "<eos>", "."]
    assert tokenize("<unk2> <b>") == ["<", "unk2", ">", "<", "b", ">"]


@pytest.mark.parametrize("mode", ["word", "char", "whitespace"])
def test_two_spellings_of_the_same_letters_are_the_same_tokens(mode: Mode) -> None:
    assert tokenize("caf\u00e9 E\u0301", mode) == tokenize("cafe\u0301 \u00c9", mode)


def test_a_line_without_words_has_no_tokens() -> None:
    assert [tokenize(" \t\r\n", mode) for mode in ("word", "char", "whitespace")] == [[], [" ", "\t"], []]


def test_a_letter_with_hundreds_of_accents_is_refused_as_ordering_them_would_take_for_ever() -> None:
    assert tokenize("a" + "\u0316\u0301" * 250) == ["\u00e1" + "\u0316" * 250 + "\u0301" * 249]
    assert_refused("accents", tokenize, "word a" + "\u0301\u0316" * 100_000)
    assert len(tokenize("\u0915\u094d " * 1000)) == 1000  # many marks, one on each letter


def test_unknown_mode_is_refused_by_name() -> None:
    assert_refused("'words'", tokenize, "a", "words")


# -- Vocabulary -------------------------------------------------------------------------------------------------------
def test_ids_follow_falling_counts_and_the_alphabet_behind_the_end_of_text() -> None:
    vocabulary = build([["b", "a", "c"], ["c", "d"]])
    assert vocabulary.tokens == (EOS, "c", "a", "b", "d")
    assert (vocabulary.eos, vocabulary.unk, vocabulary.size, vocabulary.pad) == (0, None, 5, 5)


@pytest.mark.parametrize(("options", "tokens"), [
    ({"min_count": 2}, (EOS, UNK, "a", "b")),
    ({"max_size": 4}, (EOS, UNK, "a", "b")),
    ({"max_size": 5}, (EOS, UNK, "a", "b", "c")),
    ({"max_size": 6}, (EOS, "a", "b", "c", "d", "e")),
    ({"max_size": 9}, (EOS, "a", "b", "c", "d", "e")),
    ({"max_size": 3, "eos": False}, (UNK, "a", "b")),
    ({"max_size": 3, "eos": False, "unk": False}, ("a", "b", "c")),
    ({"unk": True}, (EOS, UNK, "a", "b", "c", "d", "e")),
])  # fmt: skip
def test_limits_keep_the_most_frequent_words_and_unk_stands_for_the_rest(
    options: dict[str, Any], tokens: tuple[str, ...]
) -> None:
    vocabulary = build([["a"] * 3 + ["b"] * 2 + ["c", "d", "e"]], **options)
    assert vocabulary.tokens == tokens
    assert vocabulary.unk == (tokens.index(UNK) if UNK in tokens else None)


def test_the_word_unk_of_a_text_is_the_unknown_word_and_the_word_eos_is_refused() -> None:
    assert build([["a", "b", UNK, UNK]]).tokens == (EOS, UNK, "a", "b")
    assert_refused("<eos>", build, [["a", "b", EOS]])
    assert EOS in build([["a", "b", EOS]], eos=False).tokens


def test_a_vocabulary_splits_a_line_as_its_own_texts_were_split() -> None:
    assert Vocabulary(("A", "b"), mode="char", lower=False).tokenize("Ab\n") == ["A", "b"]


def test_unknown_words_become_unk_or_are_refused_by_name() -> None:
    assert build([WORDS], unk=True).encode(["cat", "dog"]) == [2, 1]
    assert_refused("dog", build([WORDS]).encode, ["cat", "dog"])
    assert_refused("found a string", build([WORDS]).encode, "cat")


def test_decoding_stops_at_the_end_or_pad_and_refuses_other_ids() -> None:
    vocabulary = build([WORDS])
    cat, sat = vocabulary.encode(["cat", "sat"])
    assert vocabulary.decode([cat, sat, 0, cat]) == vocabulary.decode([cat, sat, vocabulary.pad, 99]) == ["cat", "sat"]
    for wrong in (-1, vocabulary.pad + 1):
        assert_refused(f"{wrong}", vocabulary.decode, [cat, wrong])


@given(st.lists(st.lists(st.text(min_size=1).filter(lambda word: word not in (EOS, UNK)), min_size=1), min_size=1))
def test_words_survive_encoding_and_a_vocabulary_survives_json(texts: list[list[str]]) -> None:
    if len({word for text in texts for word in text}) < 2:
        return
    vocabulary = build(texts)
    again = Vocabulary.from_json(vocabulary.to_json())
    assert again == vocabulary
    assert again.fingerprint() == vocabulary.fingerprint()
    assert [again.decode([*vocabulary.encode(text), 0]) for text in texts] == texts


def test_fingerprints_tell_vocabularies_apart() -> None:
    prints = {
        Vocabulary(("a", "b")).fingerprint(),
        Vocabulary(("b", "a")).fingerprint(),
        Vocabulary(("a", "b"), lower=True).fingerprint(),
        Vocabulary(("a", "b"), mode="char").fingerprint(),
        Vocabulary(("a", "b"), mode="char", blanks="line").fingerprint(),
    }
    assert len(prints) == 5
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in prints)


@pytest.mark.parametrize(("line", "text"), [
    ("The man's dog (a poodle) can't swim, can it?", "the man's dog (a poodle) can't swim, can it?"),
    ('he said "hello there." twice...', 'he said "hello there." twice...'),
    ("it cost $5: 20% more", "it cost $5: 20% more"),
])  # fmt: skip
def test_words_are_joined_as_a_person_writes_them(line: str, text: str) -> None:
    assert Vocabulary(WORDS).join(tokenize(line, lower=True)) == text


def test_characters_are_joined_without_blanks_and_other_tokens_with_one() -> None:
    assert Vocabulary(("a", "b"), mode="char").join(["a", " ", "b"]) == "a b"
    assert Vocabulary(("a", "b"), mode="whitespace").join(["a", ".", "b"]) == "a . b"


@pytest.mark.parametrize(("fields", "sentence"), [
    ({"tokens": ("a",)}, "two different words"),
    ({"tokens": (EOS, "a"), "eos": 0}, "two different words"),
    ({"tokens": ("a", "b", "a")}, "'a'"),
    ({"tokens": ("a", "", "b")}, "empty"),
    ({"tokens": ("a", "b"), "eos": 0}, "eos"),
    ({"tokens": ("a", "b"), "unk": 7}, "unk"),
    ({"tokens": ("a", "b"), "mode": "bytes"}, "bytes"),
])  # fmt: skip
def test_what_is_no_vocabulary_is_refused(fields: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, Vocabulary, **fields)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"min_count": 0}, "min_count"), ({"max_size": 0}, "max_size"), ({"max_size": 2}, "two different words"),
    ({"min_count": 5}, "two different words"),
])  # fmt: skip
def test_limits_that_leave_no_vocabulary_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, build, [WORDS], **options)


@pytest.mark.parametrize(("change", "sentence"), [
    ({"extra": 1}, "extra"), ({"tokens": "ab"}, "tokens"), ({"tokens": ["a", 1]}, "tokens"),
    ({"lower": 1}, "lower"), ({"eos": True}, "eos"), ({"mode": ["word"]}, "mode"),
])  # fmt: skip
def test_json_that_is_no_vocabulary_is_refused(change: dict[str, Any], sentence: str) -> None:
    fields = json.loads(Vocabulary(WORDS).to_json()) | change
    assert_refused(sentence, Vocabulary.from_json, json.dumps(fields))


@pytest.mark.parametrize(("text", "sentence"), [("{", "is not JSON"), ("[1]", "found a list")])
def test_text_that_is_no_json_object_is_refused(text: str, sentence: str) -> None:
    assert_refused(sentence, Vocabulary.from_json, text)


def test_words_are_the_tokens_without_end_and_unknown_by_falling_count() -> None:
    vocabulary = build([["b", "a", "b", "c", "<unk>"]])
    assert (vocabulary.tokens, vocabulary.words) == (("<eos>", "<unk>", "b", "a", "c"), ("b", "a", "c"))
