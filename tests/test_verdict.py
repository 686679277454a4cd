"""Verdicts: what counts as a gain, how sure a difference over texts is, and what a run says at its end."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import mle, seqgan
from conftest import assert_refused, interrupted
from textgan_env.evaluation import evaluate
from textgan_env.evaluation.verdict import as_text, compared, explained, from_nothing, real_values, verdict
from textgan_env.ops.confidence import intervals_over_texts
from textgan_env.policies import LSTMPolicy
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.measured import keep_per_text, kept_per_text
from textgan_env.tasks import CorpusTask, ToyTask
from textgan_env.text.corpus import load_corpus
from textgan_env.training.adversarial import SMOKE
from textgan_env.training.launch import launch
from textgan_env.training.schedule import Step
from textgan_env.utils.options import evaluation_sizes

BETTER, SAME, WORSE = (-0.2, -0.1), (-0.1, 0.1), (0.06, 0.2)


def rows_of(**ends: tuple[float, float]) -> Any:
    """Rows whose differences lie in the middle of these intervals."""
    now = {name: 1 + sum(pair) / 2 for name, pair in ends.items()}
    return compared(now, dict.fromkeys(ends, 1.0), {}, ends)


def said(**ends: tuple[float, float]) -> Any:
    """The verdict on measures with these intervals, of which above 0 is a higher number."""
    return verdict(rows_of(**ends))[0]


@pytest.mark.parametrize(
    ("cover", "fit", "expected"),
    [
        (BETTER, SAME, "gain"), (SAME, BETTER, "gain"), (BETTER, BETTER, "gain"), (SAME, SAME, "no gain"),
        (WORSE, BETTER, "no gain"), (WORSE, SAME, "worse"), (WORSE, WORSE, "worse"),
        ((0.001, 0.04), BETTER, "gain"),  # within the slack
        ((0.001, 0.04), SAME, "no gain"),
    ],
)  # fmt: skip
def test_with_an_oracle_cover_and_fit_decide(cover: Any, fit: Any, expected: str) -> None:
    assert said(cover=cover, fit=fit, bleu_4=(-0.5, -0.4)) == expected


@pytest.mark.parametrize(
    ("nll", "bleu", "own", "expected"),
    [
        (BETTER, SAME, SAME, "gain"), (BETTER, SAME, WORSE, "gain"), (SAME, WORSE, SAME, "gain"),
        (SAME, WORSE, WORSE, "no gain"),  # more like real text and less varied
        (SAME, SAME, WORSE, "worse"), (WORSE, SAME, SAME, "worse"), (SAME, BETTER, SAME, "worse"),
        (SAME, SAME, BETTER, "no gain"), (SAME, BETTER, BETTER, "no gain"), (SAME, SAME, SAME, "no gain"),
        ((0.01, 0.03), WORSE, SAME, "no gain"),  # a little less of real text is covered: safer writing does that
        ((0.01, 0.03), SAME, SAME, "no gain"),
    ],
)  # fmt: skip
def test_on_text_nll_test_decides_and_bleu_with_self_bleu(nll: Any, bleu: Any, own: Any, expected: str) -> None:
    # BLEU is better where it is higher: what is called WORSE above is a rise.
    assert said(nll_test=nll, bleu_4=bleu, self_bleu_4=own) == expected


LITTLE, AS_LITTLE_AS_COUNTS = (0.0004, 0.0006), (0.009, 0.011)


def turned(ends: tuple[float, float]) -> tuple[float, float]:
    return -ends[1], -ends[0]


@pytest.mark.parametrize("name", ["nll_test", "cover", "fit"])
def test_a_difference_below_a_hundredth_of_a_nat_is_no_gain_however_sure(name: str) -> None:
    others = {} if name == "nll_test" else {"cover": SAME, "fit": SAME}
    found, sentence = verdict(rows_of(**others | {name: turned(LITTLE)}))
    assert found == "no gain"
    assert "(better, but tiny)" in sentence
    assert said(**others | {name: turned(AS_LITTLE_AS_COUNTS)}) == "gain"


def test_a_difference_below_a_point_of_bleu_is_neither_gain_nor_loss_but_bars_a_gain() -> None:
    assert said(nll_test=SAME, bleu_4=LITTLE, self_bleu_4=SAME) == "no gain"
    assert said(nll_test=SAME, bleu_4=AS_LITTLE_AS_COUNTS, self_bleu_4=SAME) == "gain"
    assert said(nll_test=SAME, bleu_4=turned(LITTLE), self_bleu_4=SAME) == "no gain"
    assert said(nll_test=SAME, bleu_4=turned(AS_LITTLE_AS_COUNTS), self_bleu_4=SAME) == "worse"
    assert said(nll_test=LITTLE, bleu_4=AS_LITTLE_AS_COUNTS, self_bleu_4=SAME) == "no gain"
    assert said(nll_test=SAME, bleu_4=AS_LITTLE_AS_COUNTS, self_bleu_4=LITTLE) == "no gain"


def test_without_intervals_there_is_no_verdict() -> None:
    assert said(unique=SAME) is None


def test_the_sentence_names_the_measures_that_decided() -> None:
    rows = compared({"cover": 2.0, "fit": 1.5}, {"cover": 2.0, "fit": 1.6}, {}, {"cover": SAME, "fit": BETTER})
    assert verdict(rows)[1] == "Gain: fit began at 1.600 and is 1.500 (better)."
    assert verdict(rows, ("a", "b"))[1] == "Gain: fit of b is 1.500, of a 1.600 (better)."
    goal = [*rows, *compared({"objective": 0.2}, {"objective": 0.1}, {}, {})]
    told = "Gain: fit began at 1.600 and is 1.500 (better). The goal decides nothing here: "
    assert verdict(goal)[1] == told + "objective began at 0.100 and is 0.200."
    assert from_nothing(compared({"nll_test": 1.0}, None, {}, {}), 8)[0] == "gain"
    assert from_nothing(compared({"nll_test": math.log(8)}, None, {}, {}), 8)[0] == "no gain"


def test_a_policy_that_is_better_than_random_tokens_by_too_little_is_told_so() -> None:
    ends = {3.979: "have 4.025 (better, but by less than 0.05).", 4.1: "have 4.025."}
    for now, end in ends.items():
        found, sentence = from_nothing(compared({"nll_test": now}, None, {}, {}), 56)  # log 56 = 4.025
        assert (found, sentence.endswith(end)) == ("no gain", True)


def test_intervals_over_texts_are_those_of_the_mean_difference() -> None:
    rng = np.random.default_rng(0)
    before, difference = rng.normal(size=2000), rng.normal(0.3, 1.0, size=2000)
    ones = np.ones(2000)
    sides = [{"m": np.stack([values, ones])} for values in (before + difference, before)]
    low, high = intervals_over_texts(*sides)["m"] or (0, 0)
    reach = 1.96 * difference.std() / math.sqrt(2000)
    assert (low, high) == pytest.approx((difference.mean() - reach, difference.mean() + reach), abs=0.005)
    # Apart, the texts' own spread counts, too.
    apart = intervals_over_texts({"m": sides[0]["m"][:, :1999]}, sides[1])["m"] or (0, 0)
    assert apart[1] - apart[0] > 1.5 * (high - low)


def test_a_ratio_weighs_long_texts_more_and_few_texts_have_no_interval() -> None:
    long_texts = np.stack([np.tile([8.0, 1.0], 50), np.tile([4.0, 1.0], 50)])  # 2 nats a token, and 1
    low, high = intervals_over_texts({"m": long_texts}, {"m": long_texts * [[0.0], [1.0]]})["m"] or (0, 0)
    assert low < 9 / 5 < high
    few = {"m": long_texts[:, :29]}
    assert intervals_over_texts(few, few) == {"m": None}


def test_the_sums_of_texts_give_the_numbers_of_the_evaluation() -> None:
    task = ToyTask(vocab_size=3, max_length=3, size=80)
    policy = LSTMPolicy(3, start_token=task.start_token, embed_size=4, hidden_size=4)
    result = evaluate(policy, task, samples=60, bleu_samples=40, references=50)
    assert result.settings["references"] == 50
    again = {name: sums[0].sum() / sums[1].sum() for name, sums in result.per_text.items()}
    assert {"nll_test", "nll_self", "nll_oracle", "cover", "fit", "bleu_2", "self_bleu_5", "copied_texts"} <= set(again)
    assert again == pytest.approx({name: result.values[name] for name in again}, abs=1e-6)


def test_real_text_is_measured_from_as_many_texts_or_not_at_all() -> None:
    lines = [f"the {noun} {verb}" for noun in ("cat", "dog", "bird", "cow") for verb in ("sits", "runs", "eats", "is")]
    task = CorpusTask(load_corpus(texts=lines * 3, valid_share=0.2, test_share=0.2))
    few = real_values(task, "test", samples=5, bleu_samples=4)
    many = real_values(task, "test", samples=5000, bleu_samples=4)
    assert {"unique", "self_bleu_2", "bleu_2", "copied_2"} <= set(few)
    assert set(few) - set(many) == {"unique", "distinct_1", "distinct_2", "distinct_3"}
    assert "self_bleu_2" not in real_values(task, "test", samples=5000)
    assert "nll_test" not in few  # nobody knows the distribution
    toy = ToyTask(vocab_size=3, max_length=3, size=80)
    assert real_values(toy, "test", samples=50, bleu_samples=10)["cover"] == 0


def test_the_table_has_arrows_intervals_and_explains_each_name_once() -> None:
    rows = compared({"bleu_2": 0.5, "bleu_3": 0.4}, {"bleu_2": 0.4}, {"bleu_2": 0.6}, {"bleu_2": (0.05, 0.15)})
    lines = as_text(rows).splitlines()
    assert lines[0].split() == ["real", "text", "began", "now", "difference,", "95", "%", "interval"]
    assert lines[1].split() == ["bleu_2", "\u2191", "0.6000", "0.4000", "0.5000", "+0.1000", "[+0.0500,", "+0.1500]"]
    assert lines[2].split() == ["bleu_3", "\u2191", "-", "-", "0.4000", "-"]
    assert explained(["bleu_2", "bleu_3", "nll_test"]).count("bleu_") == 1
    assert "bleu_n: how much of their n-grams" in explained(["bleu_4"]).replace("\n", " ")


def test_smoke_measures_few_texts_and_a_number_can_be_asked_for() -> None:
    assert evaluation_sizes("smoke", None) == {"samples": 500, "references": 500}
    assert evaluation_sizes("fast", None) == {"samples": 10_000, "references": None}
    assert evaluation_sizes("fast", 70) == {"samples": 70, "references": None}
    config = mle.MLEConfig(task="toy", threads=1, eval_samples=1)
    assert_refused("eval_samples must be 2 to", launch, config, mle.MLE)


def config_of(tmp_path: Path, **options: Any) -> Any:
    """A tiny SeqGAN on the toy task."""
    small = {"rounds": 1, "threads": 1, "show_samples": 0, "eval_samples": 60, "runs": tmp_path}
    return seqgan.SeqGANConfig(task="toy", **(SMOKE | small | options))


def test_a_run_ends_with_its_start_its_end_and_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = launch(config_of(tmp_path), seqgan.SeqGAN)
    printed = capsys.readouterr().out
    end, start = run.evaluation, run.start
    assert end is not None
    assert start is not None
    assert end["start"] == start["values"]
    assert end["verdict"] in ("gain", "no gain", "worse")
    assert end["sentence"] in printed
    assert "real text" in printed
    assert end["real"]["cover"] == 0
    ends = end["ends"]["nll_test"]
    assert ends[0] <= end["values"]["nll_test"] - start["values"]["nll_test"] <= ends[1]
    assert {name: sums.shape for name, sums in (kept_per_text(run, "end") or {}).items()}["nll_self"] == (2, 60)
    # A run that begins with another's policy starts with its numbers; one that begins with nothing has no start.
    later = launch(config_of(tmp_path, pretrained=run.path), seqgan.SeqGAN)
    assert later.start is not None
    assert later.start["values"] == end["values"]
    first = launch(mle.MLEConfig(task="toy", epochs=1, threads=1, runs=tmp_path, show_samples=0), mle.MLE)
    assert first.start is None
    assert "tokens chosen at random have 1.386" in json.loads(first.evaluation_file.read_text())["sentence"]


@pytest.mark.slow
def test_a_run_that_was_stopped_after_its_start_ends_with_the_same_verdict(tmp_path: Path) -> None:
    whole = launch(config_of(tmp_path / "whole", rounds=2), seqgan.SeqGAN)

    def after_the_start(_: int, step: Step) -> bool:
        return step.round == 1

    config = config_of(tmp_path / "stopped", rounds=2, checkpoint_every=0.0)
    with interrupted(seqgan.SeqGAN, "g_step", at=after_the_start):
        launch(config, seqgan.SeqGAN)
    (folder,) = (tmp_path / "stopped").iterdir()
    again = launch(seqgan.SeqGANConfig(resume=folder), seqgan.SeqGAN)
    for name in ("start_file", "evaluation_file", "per_text_file"):
        assert getattr(again, name).read_bytes() == getattr(whole, name).read_bytes()


def test_numbers_of_texts_that_are_none_are_refused(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mle", config={})
    assert kept_per_text(run, "end") is None
    keep_per_text(run, "start", {"nll_test": np.ones((2, 3))})
    keep_per_text(run, "end", {"nll_test": np.zeros((2, 4))})
    assert (kept_per_text(run, "start") or {})["nll_test"].shape == (2, 3)
    run.per_text_file.write_bytes(run.per_text_file.read_bytes()[:-3])
    assert_refused("cannot be read", kept_per_text, run, "end")
    keep = RunFolder.create(tmp_path, "mle", config={})
    keep_per_text(keep, "end", {"nll_test": np.full((2, 4), math.nan)})
    assert_refused("finite float64", kept_per_text, keep, "end")
