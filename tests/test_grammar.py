"""Grammars: every probability against plain enumeration of derivations, and texts against Python's own parsers."""

import ast
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from conftest import assert_refused
from textgan_env.evaluation import evaluate, score_texts
from textgan_env.evaluation.rules import fit_of_valid
from textgan_env.ops.metric_table import evaluated
from textgan_env.policies import LSTMPolicy
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import GrammarTask, make_task
from textgan_env.text.grammars import GRAMMARS, Grammar, Stack

#: Palindromes of brackets around c, and a word.
SMALL = Grammar("Text = 2 a Text b | 1 c | 1 ( Text ) | 1 End\nEnd = .25 no | .75 x More\nMore = .5 | .5 y More")
FEW: dict[str, Any] = {"train_size": 300, "valid_size": 50, "test_size": 200}


def derived(grammar: Grammar, most: int) -> Iterator[tuple[str, float]]:
    """Every text of at most so many characters and its probability, by deriving leftmost, without look-ahead."""
    waiting: list[tuple[str, float, Stack]] = [("", 1.0, (next(iter(grammar.alternatives)),))]
    while waiting:
        text, share, stack = waiting.pop()
        while stack and stack[0] not in grammar.alternatives:
            text, stack = text + stack[0], stack[1:]
        if len(text) > most or len(stack) > 3 * most:
            continue
        if not stack:
            yield text, share
            continue
        waiting += [
            (text, share * weight, (*symbols, *stack[1:])) for weight, symbols in grammar.alternatives[stack[0]]
        ]


@pytest.mark.parametrize("most", [1, 3, 6])
def test_an_automaton_has_the_mass_of_all_short_texts(most: int) -> None:
    texts = list(derived(SMALL, most))
    assert len({text for text, _ in texts}) == len(texts)  # one derivation each
    finishing = SMALL.automaton(most + 1).finishing(most + 1)
    assert finishing[-1, 0] == pytest.approx(sum(share for _, share in texts), abs=1e-12)


@pytest.mark.parametrize(("name", "length", "texts"), [("arithmetic-grammar", 4, 1206), ("json-grammar", 6, 10)])
def test_the_law_of_a_task_is_that_of_its_short_derivations_made_to_sum_to_1(
    name: str, length: int, texts: int
) -> None:
    task = GrammarTask(name, max_length=length, **FEW)
    shares = dict(derived(GRAMMARS[name][0], length - 1))
    total = sum(shares.values())
    expected = [math.log(share / total) for share in shares.values()]
    assert [task.text_log_prob(text) for text in shares] == pytest.approx(expected, abs=1e-9)
    # The policy says the same of the tokens, END among them, and so does its mass.
    rows = [[*task.encode(text), 0] for text in shares]
    tokens_BT = torch.tensor([row + [task.vocab_size] * (length - len(row)) for row in rows])
    logp_BT = task.oracle.log_prob(tokens_BT, tokens_BT != task.vocab_size)
    assert logp_BT.sum(1).numpy() == pytest.approx(np.array(expected), abs=1e-9)
    assert logp_BT.sum(1).exp().sum() == pytest.approx(1, abs=1e-12)
    assert len(shares) >= texts


@pytest.mark.parametrize("name", GRAMMARS)
def test_texts_that_are_drawn_parse_and_python_agrees(name: str) -> None:
    task = GrammarTask(name, **FEW)
    train = task.split("train")
    texts = [task.text(tokens) for tokens in train.tokens_BT.tolist()]
    assert all(map(task.parses, texts))
    assert max(map(len, texts)) < task.max_length
    for text in texts:
        if name == "json-grammar":
            json.loads(text)
        else:
            ast.parse(text, mode="eval")
    logp_BT = task.oracle.log_prob(train.tokens_BT, train.mask_BT)
    assert logp_BT.sum(1).tolist() == pytest.approx(list(map(task.text_log_prob, texts)), abs=1e-9)


@pytest.mark.parametrize(("name", "text"), [
    ("arithmetic-grammar", "1+"), ("arithmetic-grammar", "(1"), ("arithmetic-grammar", "01"),
    ("arithmetic-grammar", ""), ("arithmetic-grammar", "1x"), ("arithmetic-grammar", "1" * 24),
    ("json-grammar", "1"), ("json-grammar", '{"a":}'), ("json-grammar", "[1,]"), ("json-grammar", "[[[[1]]]]"),
    ("json-grammar", "[1]]"), ("json-grammar", "[1] "),
])  # fmt: skip
def test_what_is_no_text_of_the_grammar_has_probability_0(name: str, text: str) -> None:
    task = GrammarTask(name, **FEW)
    assert not task.parses(text)
    assert task.text_log_prob(text) == -math.inf


def test_the_policy_stays_a_policy_after_a_token_that_cannot_stand() -> None:
    task = GrammarTask(max_length=5, **FEW)
    tokens_1T = torch.tensor([[*task.encode("+1"), 0]])
    logp_1T = task.oracle.log_prob(tokens_1T, torch.ones_like(tokens_1T, dtype=torch.bool))
    assert logp_1T[0, 0] == -math.inf
    assert logp_1T[0, 1:].isfinite().all()


def test_other_seeds_draw_other_texts_of_the_same_law() -> None:
    one, same, other = (make_task("json-grammar", text_seed=seed, **FEW) for seed in (1, 1, 2))
    assert torch.equal(one.split("train").tokens_BT, same.split("train").tokens_BT)
    assert not torch.equal(one.split("train").tokens_BT, other.split("train").tokens_BT)
    assert torch.equal(one.oracle.logits_TSV, other.oracle.logits_TSV)  # type: ignore[union-attr]
    config = one.config()
    assert make_task(config.pop("name"), **config).config() == one.config()


# -- Measures ---------------------------------------------------------------------------------------------------------
def test_the_oracle_is_valid_and_has_no_divergence_from_itself() -> None:
    task = GrammarTask(**FEW)
    result = evaluate(task.oracle, task, samples=200, bleu_samples=20)
    assert {*result.values, *result.missing} == set(evaluated("test", "grammar"))
    assert result.values["valid"] == 1
    assert [result.values[name] for name in ("cover", "fit", "fit_valid")] == pytest.approx([0, 0, 0], abs=1e-6)


def test_cover_is_finite_and_fit_is_infinite_where_a_policy_breaks_rules() -> None:
    task = GrammarTask(**FEW)
    policy = LSTMPolicy(task.vocab_size, start_token=task.start_token, embed_size=4, hidden_size=4)
    result = evaluate(policy, task, samples=400, bleu_samples=20)
    texts = [task.text(tokens) for tokens in result.tokens_BT.tolist()]
    assert result.values["valid"] == np.mean([task.parses(text) for text in texts])
    assert 0 < result.values["valid"] < 0.5
    assert result.values["cover"] > 0.1
    assert result.values["fit_valid"] > 0
    assert result.missing["fit"] == "infinite: the oracle never writes some of these texts"


def test_the_fit_of_valid_texts_by_hand() -> None:
    # Half are valid: log q - log p of the first is .2 nats, and q given valid is twice q.
    nats_B, length_B = torch.tensor([0.2, math.inf], dtype=torch.float64), torch.tensor([2, 3])
    assert fit_of_valid(nats_B, length_B) == pytest.approx((0.2 + math.log(2)) / 2)
    assert math.isnan(fit_of_valid(nats_B[1:], length_B[1:]))


def test_texts_of_any_origin_are_scored_by_law_and_rules() -> None:
    task = GrammarTask(**FEW)
    values = score_texts(["1", "2+3", "(4)"], task).values
    expected = -sum(map(task.text_log_prob, ["1", "2+3", "(4)"])) / (2 + 4 + 4)
    assert values["valid"] == 1
    assert values["nll_oracle"] == pytest.approx(expected, abs=1e-9)
    result = score_texts(["1", "2+", "one"], task)
    assert result.values["valid"] == pytest.approx(1 / 3)
    assert "its grammar only" in result.missing["nll_oracle"]


def test_texts_are_drawn_with_their_probabilities() -> None:
    task = GrammarTask(max_length=3, **FEW)
    tokens_BT, _ = generate(task.oracle, Keys.counted(5, 4000), 3, end_token=0)
    texts = [task.text(tokens) for tokens in tokens_BT.tolist()]
    for text in ("1", "12", "9"):
        assert texts.count(text) / 4000 == pytest.approx(math.exp(task.text_log_prob(text)), abs=0.03)


# -- Bad grammars -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("rules", "sentence"), [
    ("", "a grammar needs a rule"),
    ("Text = a", "expected a weight first, found 'a'"),
    ("Text = 0 a", "expected a weight above 0, found 0"),
    ("Text = 1 a\nText = 1 b", "each rule once"),
    ("Text = 1 a | 1 a b", "not LL\\(1\\): 'a' can begin two alternatives of Text"),
    ("Text = 1 Text a | 1 b", "begins with itself"),
])  # fmt: skip
def test_a_grammar_that_is_none_is_refused(rules: str, sentence: str) -> None:
    assert_refused(sentence, lambda: Grammar(rules).automaton(5))


def test_settings_that_make_no_sense_are_refused() -> None:
    assert_refused("unknown grammar 'c'", GrammarTask, "c")
    assert_refused("max_length must be at least 1, found 0", GrammarTask, max_length=0)
    assert_refused("at most 100, found 101", GrammarTask, max_length=101)
    assert_refused("no text as short as max_length 1", GrammarTask, max_length=1)
    assert_refused("train_size must be at least 1", GrammarTask, train_size=0)
