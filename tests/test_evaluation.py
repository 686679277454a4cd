"""evaluate(): values against enumeration, what does not apply, and that it changes nothing."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import assert_refused
from textgan_env.discriminators import score_features, score_logits
from textgan_env.evaluation import (
    PROTOCOLS,
    BleuDiscriminator,
    evaluate,
    nll,
    overlaps,
    score_texts,
    stream_texts,
    token_lists,
)  # fmt: skip
from textgan_env.ops import metrics
from textgan_env.policies import Decoding, LSTMPolicy, TablePolicy, UniformPolicy
from textgan_env.tasks import CorpusTask, OracleTask, ToyTask
from textgan_env.text.corpus import load_corpus
from textgan_env.utils.errors import InputError

TOY = ToyTask(vocab_size=3, max_length=3, size=4000)
SMALL: dict[str, Any] = {"samples": 4000, "bleu_samples": 50}


def corpus(**options: Any) -> CorpusTask:
    nouns, verbs = ("cat", "dog", "bird", "cow"), ("sits", "runs", "eats", "is")
    lines = [f"the {noun} {verb}" for noun in nouns for verb in verbs]
    return CorpusTask(load_corpus(texts=lines * 3, valid_share=0.2, test_share=0.2, **options))


def divergence(p_S: torch.Tensor, q_S: torch.Tensor) -> float:
    """KL(p||q) per token by listing all texts."""
    return float((p_S * (p_S.log() - q_S.log())).sum()) / TOY.max_length


def text_probabilities(policy: TablePolicy) -> torch.Tensor:
    texts_ST = TOY.texts_ST
    with torch.no_grad():
        return policy.log_prob(texts_ST, torch.ones_like(texts_ST, dtype=torch.bool)).double().sum(1).exp()


@pytest.fixture(scope="module")
def other() -> TablePolicy:
    """Some other distribution over the toy task's texts."""
    generator = torch.Generator().manual_seed(7)
    return TablePolicy.from_text_probabilities(
        torch.rand(27, generator=generator), vocab_size=3, max_length=3
    ).requires_grad_(False)


def test_likelihoods_and_divergences_are_the_enumerated_ones(other: TablePolicy) -> None:
    p_S, q_S = TOY.logp_S.exp(), text_probabilities(other)
    expected = {
        "cover": divergence(p_S, q_S),
        "fit": divergence(q_S, p_S),
        "nll_oracle": float(-(q_S * p_S.log()).sum()) / 3,
        "nll_test": float(-(p_S * q_S.log()).sum()) / 3,
        "nll_self": float(-(q_S * q_S.log()).sum()) / 3,
    }
    values = evaluate(other, TOY, **SMALL).values
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=0.05)


def test_the_oracle_itself_covers_and_fits_exactly() -> None:
    values = evaluate(TOY.oracle, TOY, **SMALL).values
    assert values["cover"] == pytest.approx(0, abs=1e-6)
    assert values["fit"] == pytest.approx(0, abs=1e-6)


def test_uniform_tokens_score_log_v() -> None:
    values = evaluate(UniformPolicy(3, start_token=0), TOY, **SMALL).values
    assert values["nll_test"] == pytest.approx(math.log(3), abs=1e-6)
    assert values["nll_self"] == pytest.approx(math.log(3), abs=1e-6)


def test_a_truncated_policy_has_no_nll_test_and_the_result_says_why(other: TablePolicy) -> None:
    result = evaluate(other.with_decoding(Decoding(deterministic=True)), TOY, **SMALL)
    assert "nll_test" not in result.values
    assert "cover" not in result.values
    assert "never writes" in result.missing["nll_test"]
    assert result.values["nll_self"] == 0
    assert result.values["unique"] == pytest.approx(1 / 4000)
    assert "nll_test" in result.table()


def test_evaluating_twice_gives_equal_numbers_and_changes_nothing() -> None:
    policy = LSTMPolicy(3, start_token=0, embed_size=4, hidden_size=4, dropout=0.5, seed=1).train()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    first, second = evaluate(policy, TOY, **SMALL), evaluate(policy, TOY, **SMALL)
    assert first.values == second.values
    assert policy.training
    assert policy.lstm.training
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_the_training_split_is_refused_as_reference() -> None:
    assert_refused("train", evaluate, TOY.oracle, TOY, split="train")


def test_a_policy_of_another_vocabulary_is_refused() -> None:
    assert_refused(r"V=5 .* V=3", evaluate, UniformPolicy(5, start_token=0), TOY)


def test_nll_weighs_every_token_alike_and_skips_masked_ones() -> None:
    policy = TablePolicy.from_text_probabilities(torch.tensor([0.1, 0.2, 0.3, 0.4]), vocab_size=2, max_length=2)
    tokens_BT = torch.tensor([[0, 1], [1, 1]])
    mask_BT = torch.tensor([[True, True], [True, False]])
    mean, each_B = nll(policy, tokens_BT, mask_BT)
    # P(0) = .3, P(1 | 0) = .2 / .3, P(1) = .7
    parts = [-math.log(0.3), -math.log(0.2 / 0.3), -math.log(0.7)]
    assert mean == pytest.approx(sum(parts) / 3)
    assert each_B.tolist() == pytest.approx([(parts[0] + parts[1]) / 2, parts[2]])


def test_nll_of_a_text_does_not_depend_on_how_long_the_others_are() -> None:
    task = corpus()
    policy = LSTMPolicy(task.vocab_size, start_token=task.start_token, init_scale=1.0, seed=3)
    tokens_BT = task.split("train").tokens_BT.repeat(40, 1)
    mask_BT = task.scored(tokens_BT)
    _, each_B = nll(policy, tokens_BT, mask_BT)
    with torch.no_grad():
        logp_BT = policy.eval().log_prob(tokens_BT, mask_BT).double()
    torch.testing.assert_close(each_B, -logp_BT.sum(1) / mask_BT.sum(1), atol=2e-6, rtol=0)


def test_text_without_a_known_law_has_no_oracle_numbers() -> None:
    task = corpus()
    policy = UniformPolicy(task.vocab_size, start_token=task.start_token, forbidden=task.forbidden)
    result = evaluate(policy, task, samples=20, bleu_samples=10)
    assert "not known" in result.missing["nll_oracle"]
    assert {"nll_test", "bleu_2", "self_bleu_2", "copied_2"} <= set(result.values)
    assert len(list(stream_texts(policy, task, 3, seed=0))) == 3


def test_scored_texts_get_the_overlaps_of_a_policy_that_wrote_them() -> None:
    task = corpus(mode="whitespace", eos=False)
    policy = UniformPolicy(task.vocab_size, start_token=task.start_token, forbidden=task.forbidden)
    written = evaluate(policy, task, samples=20, bleu_samples=10)
    found = score_texts([task.text(tokens) for tokens in written.tokens_BT.tolist()], task, bleu_samples=10)
    shares = {name: value for name, value in written.values.items() if not name.startswith("nll")}
    assert found.values == {"unknown_words": 0.0, **shares}
    assert torch.equal(found.tokens_BT, written.tokens_BT)
    assert found.settings == {k: v for k, v in written.settings.items() if k not in ("seed", "decoding")} | {
        "blank_lines": 0
    }
    assert "measured on a policy" in found.missing["nll_test"]


def test_words_that_the_task_does_not_have_match_each_other_but_nothing_real() -> None:
    found = score_texts(["zebra sings", "", "zebra sings", "the cat"], corpus())
    assert found.values["unknown_words"] == pytest.approx(4 / 6)
    assert found.settings["blank_lines"] == 1
    assert found.values["unique"] == pytest.approx(2 / 3)
    assert found.values["copied_2"] == pytest.approx(1 / 3)  # one of three pairs: "the cat"
    assert found.values["self_bleu_2"] == pytest.approx(2 / 3)  # 1, 1 and 0


def test_texts_in_numbers_get_the_oracles_likelihood_if_they_are_as_long_as_its_own() -> None:
    found = score_texts(["0 1 2", "2 2 0"], TOY)
    expected = -(TOY.logp_S[0 * 9 + 1 * 3 + 2] + TOY.logp_S[2 * 9 + 2 * 3 + 0]) / 6
    assert found.values["nll_oracle"] == pytest.approx(float(expected), abs=1e-5)
    assert "exactly 3 tokens" in score_texts(["0 1", "2 2 0"], TOY).missing["nll_oracle"]


@pytest.mark.parametrize(("lines", "options", "field"), [
    (["0 1 2", " "], {}, "2 texts"),
    (["0 1 2", "0 1 3"], {}, "found '3'"),
    (["0 1 2"] * 2, {"split": "train"}, "train"),
    (["0 1 2"] * 2, {"bleu_samples": 1}, "2 texts"),
    (["0 " * 2**17] + ["0"] * 1024, {}, "too long"),
], ids=["one text", "no token", "training split", "one BLEU text", "too long"])  # fmt: skip
def test_what_cannot_be_scored_is_refused(lines: list[str], options: dict[str, Any], field: str) -> None:
    assert_refused(field, score_texts, lines, TOY, **options)


def test_token_lists_leave_out_end_token_and_pad() -> None:
    lines = ["a b c", "a b", "b c", "c a", "a c b", "b a"] * 2
    task = CorpusTask(load_corpus(texts=lines, valid_share=0.2, test_share=0.2))
    assert task.end_token is not None
    row = [task.encode("a")[0], task.end_token, task.vocab_size]
    assert token_lists(torch.tensor([row]), task) == [task.encode("a")]


def test_unknown_words_match_nothing_not_even_each_other() -> None:
    lines = [f"the {noun} {verb}" for noun in ("cat", "dog", "cow") for verb in ("sat", "ran", "ate", "slept")]
    task = CorpusTask(load_corpus(texts=[*lines, "the yak sang", "an emu wept"], min_count=2))
    known, unknown = task.encode("the")[0], task.forbidden[0]
    row = torch.tensor([[known, unknown, unknown, *[task.vocab_size] * (task.max_length - 3)]])
    ours, theirs = (token_lists(row, task)[0] for _ in range(2))
    assert (len(ours), len({*ours, *theirs})) == (3, 5)


def test_overlaps_are_the_scores_of_token_lists_unknown_words_ends_and_all() -> None:
    lines = [f"the {noun} {verb} here" for noun in ("cat", "dog", "cow") for verb in ("sat", "ran", "ate", "slept")]
    task = CorpusTask(load_corpus(texts=[*lines, "the yak sang", "an emu emu wept", "the dog"], min_count=2))
    written_BT = torch.cat([task.split("train").tokens_BT[-8:], task.split("test").tokens_BT])
    assert torch.isin(written_BT, torch.tensor(task.forbidden)).any()
    assert task.end_token is not None
    texts, references, training = (
        token_lists(tokens_BT, task)
        for tokens_BT in (written_BT, task.split("test").tokens_BT, task.split("train").tokens_BT)
    )
    expected = {f"bleu_{n}": value for n, value in metrics.bleu(texts[:5], references).items()}
    expected |= {f"self_bleu_{n}": value for n, value in metrics.self_bleu(texts[:5]).items()}
    expected |= {f"distinct_{n}": metrics.distinct_n(texts, n) for n in (1, 2, 3)}
    expected |= {"unique": metrics.unique_share(texts), "adjacent_repeats": metrics.adjacent_repeats(texts)}
    expected |= {f"copied_{n}": metrics.copied_share(texts, training, n) for n in (2, 3, 4, 5)}
    expected |= {"copied_texts": metrics.copied_texts(texts, training)}
    assert repr(overlaps(task, written_BT, "test", 5)) == repr(expected)  # NaN, where there is one, too


def test_bleu_as_a_judge_is_bleu_4_against_the_training_texts_without_end_and_filling(tmp_path: Path) -> None:
    lines = [f"{one} cat sat on {two} mat" for one in ("a", "the", "my") for two in ("a", "the", "my", "our")]
    lines += ["the cat sat", "my mat"]  # texts of several lengths end with a token of their own
    (tmp_path / "mine.txt").write_text("\n".join(lines))
    task = CorpusTask(load_corpus(tmp_path / "mine.txt"))
    train_BT, written = task.split("train").tokens_BT, "the mat sat on a cat"
    tokens_BT = torch.full((3, task.max_length), task.vocab_size)
    ids = task.encode(written)
    tokens_BT[0, : len(ids)] = torch.tensor(ids)
    tokens_BT[1, : train_BT.shape[1]] = train_BT[0]
    assert task.end_token is not None
    tokens_BT[2, 0] = task.end_token
    judge = BleuDiscriminator(task)
    expected = metrics.bleu([written.split()], [task.words(text) for text in train_BT.tolist()], 4)[4]
    assert 0.1 < expected < 0.9
    assert judge.logits(tokens_BT).sigmoid().tolist() == pytest.approx([expected, 1, 0], abs=2e-6)
    assert torch.isfinite(judge.logits(tokens_BT)).all()
    assert torch.equal(score_logits(judge, tokens_BT, tile=2), judge.logits(tokens_BT))
    assert score_features(judge, tokens_BT).shape == (3, judge.feature_size)
    assert_refused("max_n must be", BleuDiscriminator, task, order=1)


def test_seeded_oracle_is_its_own_best_model() -> None:
    task = OracleTask(max_length=6, vocab_size=50, train_size=50, valid_size=50, test_size=500)
    values = evaluate(task.oracle, task, samples=500, bleu_samples=50).values
    assert values["nll_oracle"] == pytest.approx(values["nll_test"], abs=0.15)
    assert values["cover"] == pytest.approx(0, abs=1e-6)


def test_protocols_of_other_code_take_their_texts_references_and_smoothing() -> None:
    lines = ["0 1 2", "1 1 1", "2 0 1"] * 800
    by = {name: score_texts(lines, TOY, protocol=name) for name in PROTOCOLS}
    texts = [[int(token) for token in line.split()] for line in lines]
    references = TOY.split("test").tokens_BT.tolist()
    assert by["ours"].values["bleu_3"] == metrics.bleu(texts[:2000], references)[3]
    assert by["texygen"].values["bleu_3"] == metrics.bleu(texts, references[:500])[3]
    assert by["texygen"].values["self_bleu_3"] == metrics.self_bleu(texts[:500])[3]
    assert by["leakgan"].values["bleu_4"] == 0  # no text has four tokens, and nothing smooths that
    assert "self_bleu_2" not in by["leakgan"].values
    assert [by[name].settings["references"] for name in PROTOCOLS] == [len(references), 500, len(references)]
    assert [by[name].settings["bleu_samples"] for name in PROTOCOLS] == [2000, 2400, 2000]
    with pytest.raises(InputError, match="unknown protocol 'mine', expected one of: ours, texygen, leakgan"):
        score_texts(lines, TOY, protocol="mine")


def test_log_probabilities_that_are_nan_or_of_another_shape_are_refused() -> None:
    tokens_BT = TOY.split("test").tokens_BT[:4]

    def ask(value: torch.Tensor) -> None:
        policy = UniformPolicy(TOY.vocab_size, start_token=TOY.start_token)
        policy.log_prob = lambda tokens, mask: value  # type: ignore[assignment,method-assign]
        nll(policy, tokens_BT, TOY.scored(tokens_BT))

    assert_refused("hold NaN", ask, torch.full((4, 3), math.nan))
    assert_refused(r"shape \(B, T\)=\(4, 3\), found \(4,\)", ask, torch.zeros(4))
    ask(torch.full((4, 3), -math.inf))  # a text that the policy never generates
