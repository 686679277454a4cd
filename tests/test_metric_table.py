"""The table of metrics: what an evaluation measures stands in it, and what cannot be measured is no fault."""

import json
from pathlib import Path

import pytest

from agents import seqgan
from textgan_env.evaluation import evaluate, score_texts
from textgan_env.ops.metric_table import METRICS, charts, columns, evaluated, units_of, why_missing
from textgan_env.policies import LSTMPolicy, UniformPolicy
from textgan_env.tasks import CorpusTask, ToyTask
from textgan_env.text.corpus import load_corpus

TOY = ToyTask(vocab_size=3, max_length=3, size=50)
LINES = [f"the {noun} {verb}" for noun in ("cat", "dog", "bird", "cow") for verb in ("sits", "runs", "eats", "is")]


def corpus() -> CorpusTask:
    return CorpusTask(load_corpus(texts=LINES * 3, valid_share=0.2, test_share=0.2))


@pytest.mark.parametrize("task", [TOY, corpus()], ids=["oracle", "text"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_an_evaluation_measures_every_metric_of_the_table_or_says_why_not(task: CorpusTask, split: str) -> None:
    policy = UniformPolicy(task.vocab_size, start_token=task.start_token, forbidden=task.forbidden)
    result = evaluate(policy, task, split=split, samples=20, bleu_samples=10)  # type: ignore[arg-type]
    assert {*result.values, *result.missing} == set(evaluated(split))  # type: ignore[arg-type]
    assert not {*result.values} & {*result.missing}
    texts = score_texts([task.text(tokens) for tokens in result.tokens_BT.tolist()], task, bleu_samples=10)
    assert {*texts.values, *texts.missing} == {*evaluated("test"), "unknown_words"}


def test_what_a_random_start_or_an_unknown_oracle_takes_away() -> None:
    policy = LSTMPolicy(3, start_token=0, embed_size=4, hidden_size=4, initial_state="random")
    result = evaluate(policy, TOY, samples=20, bleu_samples=10)
    assert {name for name, why in result.missing.items() if "initial state" in why} == {"nll_self", "fit"}
    assert {"nll_test", "nll_oracle", "cover"} <= set(result.values)
    assert [name for name in METRICS if why_missing(name, {"policy", "fixed start"})] == [
        "nll_oracle", "nll_oracle_median", "cover", "fit",
    ]  # fmt: skip
    assert [name for name in METRICS if why_missing(name, {"oracle"})] == [
        "nll_test", "nll_valid", "nll_self", "cover", "fit", "fit_valid",
    ]  # fmt: skip


@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_an_agent_with_a_random_start_is_evaluated_without_the_metrics_that_need_a_fixed_one(tmp_path: Path) -> None:
    words = ["--task", "toy", "--preset", "smoke", "--initial-state", "random", "--threads", "1"]
    seqgan.main([*words, "--runs", str(tmp_path)])
    (file,) = tmp_path.glob("*/evaluation.json")
    found = json.loads(file.read_text())
    assert set(found["missing"]) >= {"nll_self", "fit"}
    assert found["values"]["cover"] > -0.1


def test_charts_have_titles_with_units_and_lines_with_labels() -> None:
    assert charts(["nll_valid", "credit", "nll_oracle"]) == {
        "NLL (nats per token)": {"nll_valid": "NLL-valid", "nll_oracle": "NLL-oracle"},
        "credit": {"credit": "mean"},
    }


def test_units_are_those_of_the_numbers_at_hand() -> None:
    nats = "in nats per token, the rest"
    assert units_of(["nll_test", "bleu_4", "cover", "fit"]) == f"NLLs, cover and fit {nats} are shares"
    assert units_of(["nll_test", "bleu_4"]) == f"NLLs {nats} are shares"
    assert units_of(["nll_test", "valid", "fcd", "logp"]) == f"NLLs {nats} but fcd, logp are shares"
    assert units_of(["bleu_4", "unique"]) == "all numbers are shares"  # texts from elsewhere
    fresh = score_texts(LINES, corpus(), bleu_samples=10)
    assert fresh.units == "all numbers are shares"


def test_the_first_table_of_a_task_has_what_can_be_measured_there() -> None:
    assert columns("oracle") == ("nll_oracle", "nll_oracle_median", "nll_test", "nll_self", "cover", "fit")
    text = columns("text")
    assert text[:5] == ("nll_test", "bleu_2", "bleu_3", "bleu_4", "bleu_5")
    assert not any("oracle" in METRICS[name].needs for name in text)
