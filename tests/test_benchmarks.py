"""The benchmark commands: they run on tiny sizes, and what they keep says how it was made."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import textgan_env.envs.sb3  # noqa: F401  importing SB3 draws from the global generator, once
from agents.leakgan import LeakGAN, LeakGANConfig
from agents.mle import MLE, MLEConfig
from agents.seqgan import SeqGAN, SeqGANConfig
from benchmarks import (
    adapter_cost,
    leak_pictures,
    leakgan_lengths,
    long_text,
    measure,
    pictures,
    policies,
    results,
    time_to_quality,
)
from benchmarks.differences import bars, differences, kept_rows
from benchmarks.pictures import Leak
from conftest import PROJECT, assert_refused, mistake_of
from textgan_env.tasks import CorpusTask, ToyTask
from textgan_env.text.corpus import load_corpus
from textgan_env.training.launch import launch


def test_a_table_has_a_dash_where_a_row_has_no_value() -> None:
    rows: list[dict[str, Any]] = [{"policy": "a", "fit": 1.23456}, {"policy": "b", "fit": None, "cover": 2.0}]
    assert results.table(rows).splitlines() == [
        "| policy | fit | cover |", "| --- | --- | --- |", "| a | 1.235 | - |", "| b | - | 2.000 |",
    ]  # fmt: skip


def test_the_help_of_every_benchmark_loads_no_torch() -> None:
    files = (PROJECT / "benchmarks").glob("*.py")
    commands = sorted(file.stem for file in files if "\n@command\n" in file.read_text("utf-8"))
    assert {"suite", "report", "score", "pictures", "leakgan_lengths"} <= {*commands}
    code = f"""
import sys
from importlib import import_module
for name in {commands!r}:
    try:
        import_module(f"benchmarks.{{name}}").main(["--help"])
    except SystemExit as leaving:
        assert not leaving.code, name
    assert "torch" not in sys.modules, name
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [f"python -m benchmarks.{name}" in done.stdout for name in commands] == [True] * len(commands)


def test_a_kept_result_names_command_commit_machine_and_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["benchmarks/mine.py", "--name", "two words"])
    file = results.save("mine", [{"a": 1}], notes="Nothing.")
    document = json.loads(file.read_text())
    assert document["command"] == "python -m benchmarks.mine --name 'two words'"
    assert {"source", "machine", "versions", "rows"} <= set(document)
    assert "| a |" in file.with_suffix(".md").read_text()


def test_policies_has_a_row_a_run_and_temperature_beside_the_plain_ones(tmp_path: Path) -> None:
    config = MLEConfig(
        task="toy", epochs=1, dropout=0.2, embed_size=4, hidden_size=4, threads=1, runs=tmp_path, show_samples=0
    )
    run = launch(config, MLE)
    rows = policies.measure(policies.Options(task="toy", runs=(run.path,), temperatures=(1.0, 0.5), samples=50))
    assert [row["policy"] for row in rows] == [
        "real text (the oracle)", "uniform tokens", "unigram", "bigram", *["mle fast 4/4, epochs 1"] * 2,
    ]  # fmt: skip
    assert [row["temperature"] for row in rows[-2:]] == [1.0, 0.5]
    assert rows[0]["fit"] == pytest.approx(0, abs=1e-6)
    code = results.commit_of(run.about["source"])
    assert [row["trained by"] for row in rows] == [None, None, None, None, code, code]
    assert rows[-1]["nll_self"] < rows[-2]["nll_self"]


def test_lengths_are_measured_before_the_first_g_step_and_after_each_round() -> None:
    lines = leakgan_lengths.made_sentences(60)
    assert lines == leakgan_lengths.made_sentences(60)
    assert min(len(line.split()) for line in lines) < 6 < max(len(line.split()) for line in lines)
    task = CorpusTask(load_corpus(texts=lines, max_length=12))
    config = LeakGANConfig(
        preset="smoke", task="corpus", pretrain_rounds=0, rounds=2, g_steps=3, batch_size=8, rollouts=1, goal_size=2,
        embed_size=4, hidden_size=4, mle_interval=0, d_batch_size=256, device="cpu", end_reward="q",
    )  # fmt: skip
    rows = list(leakgan_lengths.arm(config, task, samples=30))
    assert [row["g_steps"] for row in rows] == [0, 3, 6]
    real_BT = task.split("test").tokens_BT
    assert all(row["length_real"] == float((real_BT != task.vocab_size).sum() / len(real_BT)) for row in rows)
    assert all(1 <= row["length"] <= 12 and 0 <= row["at_T"] <= 1 for row in rows)


def test_rows_of_lengths_are_kept_for_their_settings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def arm(config: LeakGANConfig, task: CorpusTask, samples: int) -> list[dict[str, Any]]:
        return [{"words": task.vocab_size, "rounds": config.rounds}]

    monkeypatch.setattr(leakgan_lengths, "arm", arm)
    monkeypatch.setattr(leakgan_lengths, "pretrained", lambda options, seed: tmp_path)
    options = leakgan_lengths.Options(lines=60, seeds=(0,), end_rewards=("q",), rewards=("real",), runs=tmp_path)
    (first,) = leakgan_lengths.measure(options)
    (tmp_path / "mine.txt").write_text("a b c\nb a\nc a b\n" * 9)
    (other,) = leakgan_lengths.measure(replace(options, corpus=tmp_path / "mine.txt", rounds=9))
    assert other["words"] < first["words"]
    assert (other["rounds"], first["rounds"]) == (9, 4)
    monkeypatch.delattr(leakgan_lengths, "arm")  # nothing is trained again
    assert list(leakgan_lengths.measure(options)) == [first]


def test_a_row_says_what_differs_from_the_preset(tmp_path: Path) -> None:
    config = SeqGANConfig(
        preset="smoke", task="toy", mle_epochs=1, d_pretraining=1, rounds=1, g_steps=1, batch_size=8, rollouts=1,
        embed_size=4, hidden_size=4, d_batch_size=256, threads=1, runs=tmp_path, show_samples=0, control="shuffled",
    )  # fmt: skip
    run = launch(config, SeqGAN)
    policy = policies.policy_of(run.path, ToyTask())
    label = policies.label_of("seqgan", run.about["config"], policy)
    assert label == "seqgan smoke 4/4, rounds 1, batch_size 8, rollouts 1, shuffled reward"
    older = {name: value for name, value in run.about["config"].items() if name != "kl_coef"}
    assert policies.label_of("seqgan", older, policy) == label


def test_several_seeds_have_a_mean_and_a_range() -> None:
    rows = [
        {"policy": "a", "seed": 0, "temperature": 1.0, "fit": 1.0, "cover": None},
        {"policy": "a", "seed": 1, "temperature": 1.0, "fit": 4.0, "cover": 2.0},
        {"policy": "a", "seed": 0, "temperature": 0.5, "fit": 9.0, "cover": 2.0},
    ]
    assert policies.over_seeds(rows) == [
        {"policy": "a", "seed": "mean of seeds 0 1", "temperature": 1.0, "fit": 2.5},
        {"policy": "a", "seed": "range of seeds 0 1", "temperature": 1.0, "fit": 3.0},
    ]


def test_a_policy_that_a_reward_taught_needs_a_control_of_its_seed_beside_it() -> None:
    real, shuffled, other = (
        row("s, real reward", 0, 1.0, 1.0),
        row("s, shuffled reward", 0, 1.0, 1.0),
        row("t", 0, 1.0, 1.0),
    )
    assert policies.uncontrolled(real, [real, other, row("s, shuffled reward", 1, 1.0, 1.0)])
    assert not policies.uncontrolled(real, [real, shuffled])
    assert not any(
        policies.uncontrolled(one, [one]) for one in (shuffled, other, row("s, rounds 0, real reward", 0, 1.0, 1.0))
    )


def test_a_run_of_another_task_is_refused(tmp_path: Path) -> None:
    config = MLEConfig(task="toy", epochs=1, embed_size=4, hidden_size=4, threads=1, runs=tmp_path, show_samples=0)
    run = launch(config, MLE)
    assert_refused("task", policies.measure, policies.Options(task="oracle", runs=(run.path,)))
    for other in (ToyTask(seed=1), ToyTask(vocab_size=3)):
        assert_refused("task", policies.policy_of, run.path, other)
    assert policies.policy_of(run.path, ToyTask()).vocab_size == 4


def row(policy: str, seed: int | str | None, temperature: float, fit: float, **more: float) -> dict[str, Any]:
    return {"policy": policy, "seed": seed, "temperature": temperature, "cover": 1.0, "fit": fit, **more}


@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_policies_are_compared_with_the_one_they_began_from_seed_by_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "IMAGES", tmp_path)
    start = [row("mle", seed, at, 2.0 + seed) for seed in (0, 1, 2) for at in (0.5, 1.0)]
    ours = [row("seqgan", seed, at, 2.0 + seed + 0.1 * at * seed) for seed in (0, 1, 2) for at in (0.5, 1.0, 1.2)]
    summaries = [row("mle", "mean of seeds 0 1", 1.0, 9.0), row("unigram", None, 1.0, 9.0)]
    results.save("one", [*start, *ours, *summaries], notes="Nothing.")
    rows = kept_rows(["one"])
    found = differences(rows, "mle", ("fit",))
    assert list(found) == [("seqgan", "fit")]
    assert list(found["seqgan", "fit"]) == [1.0, 0.5]
    assert found["seqgan", "fit"][1.0] == pytest.approx((0.0, 0.1, 0.2))
    pictures.main(["differences", "--start", "mle", "--results", "one"])
    assert "| seqgan, seeds 0 1 2 | fit | 0.100 [-0.148, 0.348] | 0.050 [-0.074, 0.174] |" in capsys.readouterr().out
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    # At one temperature, under another name; of two seeds the bars are the range.
    results.save("single", [one for one in (*start, *ours) if one["temperature"] == 1.0], notes="Nothing.")
    asked = ["differences", "--start", "mle", "--results", "single", "--measures", "fit"]
    pictures.main([*asked, "--policies", "seqgan", "--names", "SeqGAN"])
    assert "| SeqGAN, seeds 0 1 2 | fit | 0.100 [-0.148, 0.348] |" in capsys.readouterr().out
    assert (tmp_path / "single.png").read_bytes().startswith(b"\x89PNG")
    means, sides = bars([(1.0, 2.0), (0.0, 0.1, 0.2)])
    np.testing.assert_allclose(means, [1.5, 0.1])
    np.testing.assert_allclose(sides, [[0.5, 0.248], [0.5, 0.248]], atol=1e-3)
    assert_refused("unknown policy 'leakgan'", differences, rows, "mle", ("fit",), ("leakgan",))
    # Rows of other seeds, or of other code, stand in no table with these.
    assert_refused("no policy 'leakgan': expected one of mle, seqgan", differences, rows, "leakgan", ("fit",))
    results.save("two", [*start[:2], row("longer", 3, 1.0, 1.0)], notes="Nothing.")
    other = kept_rows(["one", "two"])
    assert_refused(r"'longer' has the seeds \[3\], the start \[0, 1, 2\]", differences, other, "mle", ("fit",))
    results.save("three", [row("mle", 0, 1.0, 2.0001)], notes="Nothing.")
    assert_refused("'three' has other numbers of .*'mle', 0, 1.0", kept_rows, ["one", "three"])
    assert_refused("no kept result 'four'", kept_rows, ["four"])


def test_pictures_of_the_leak_show_other_runs_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "IMAGES", tmp_path / "images")
    small = {"task": "toy", "embed_size": 4, "hidden_size": 4, "threads": 1, "runs": tmp_path, "show_samples": 0}
    mle = launch(MLEConfig(epochs=1, **small), MLE)  # type: ignore[arg-type]
    leakgan = launch(
        LeakGANConfig(pretrain_rounds=1, pretrain_epochs=1, rounds=0, goal_steps=2, goal_size=3, **small),  # type: ignore[arg-type]
        LeakGAN,
    )
    options = Leak(run=leakgan.path, others=(mle.path,), names=("MLE", "LeakGAN"), real=50, written=3, followed=4)
    options.draw()
    for part in ("paths", "goals"):
        assert (tmp_path / "images" / f"leak_{part}.png").read_bytes().startswith(b"\x89PNG")
    policy, task = leak_pictures.load_leaked(leakgan.path)
    tokens_BT = task.split("valid").tokens_BT[:50]
    real_B2, paths = leak_pictures.plane(policy, tokens_BT, {"same": tokens_BT})
    np.testing.assert_allclose(paths["same"][:, -1], real_B2, atol=1e-4)  # a whole text's prefix is the text
    assert real_B2[:, 0].var() >= real_B2[:, 1].var()
    heard_tk, cosine_t = leak_pictures.goal_trace(policy, tokens_BT[:1])
    assert heard_tk.shape == (4, 3)
    features_1SF = policy.prefix_features(tokens_BT[:1])
    goal_F = policy.goals(features_1SF)[0, 1].detach()
    moved_F = features_1SF[0, 3] - features_1SF[0, 1]
    assert cosine_t[1] == pytest.approx(float(torch.cosine_similarity(moved_F, goal_F, dim=0)), abs=1e-5)
    assert np.isnan(cosine_t).tolist() == [False, False, False, True]
    texts = measure.written(policy, task, 3, seed=0)
    each = [leak_pictures.goal_trace(policy, tokens_T[None])[1] for tokens_T in texts.tokens_BT]
    mean_t = leak_pictures.mean_cosine(policy, texts, 4)
    np.testing.assert_allclose(mean_t[:3], (each[0] + each[1] + each[2])[:3] / 3)
    assert np.isnan(mean_t[3])
    assert_refused("leakgan", Leak(run=mle.path).draw)
    assert_refused("a name a run", Leak(run=leakgan.path, names=("one", "two")).draw)


def test_the_parts_of_an_iteration_are_apart_and_add_up() -> None:
    rows = adapter_cost.measure(adapter_cost.Options(envs=16, max_length=4, vocab_size=50, repeats=1))
    assert [row["part"] for row in rows] == ["adapter", "environment", "networks and learning", "whole iteration"]
    *parts, whole = (row["seconds"] for row in rows)
    assert sum(parts) == pytest.approx(whole)
    assert all(part > 0 for part in parts)


def test_the_squared_norm_of_the_expected_gradient_by_hand() -> None:
    """Products of two of three batches: 2, 4 and 4; without one of them 4, 4 and 2 are left."""
    found, error = long_text.squared_norm(torch.tensor([[1.0, 1.0], [1.0, 1.0], [3.0, 1.0]]))
    assert (found, error) == pytest.approx((10 / 3, (2 / 3 * (2 * (2 / 3) ** 2 + (4 / 3) ** 2)) ** 0.5))


@pytest.mark.slow
def test_every_setting_of_long_text_is_measured_on_the_same_texts_and_its_variance_is_that_of_the_gradient() -> None:
    sizes: dict[str, Any] = {"vocab_size": 20, "rows": 8, "batches": 3, "signal_batches": 3, "epochs": 1}
    options = long_text.Options(lengths=(6,), intervals=(1, 6), rollouts=(1, 2), most=2, **sizes)
    rows = long_text.measure(options, 6)
    assert [(row["k"], row["N"], row["baseline"]) for row in rows] == [
        (k, n, kind) for k in (1, 6) for n in (2, 1) for kind in long_text.BASELINES
    ]
    assert rows[0]["per second"] == pytest.approx(1)
    assert all(row["seconds"] > 0 and row["variance"] > 0 for row in rows)
    # With one Q, that of the finished text, N does not matter, and no prefix was completed before.
    assert len({row["variance"] for row in rows[4:]}) == 1


def test_the_seconds_to_a_target_are_those_of_the_first_evaluation_that_reaches_it() -> None:
    evaluations = [
        time_to_quality.Evaluated(step, value, 10.0 * step, 4.0 * step)
        for step, value in ((1, 9.0), (2, 7.4), (3, 7.6))
    ]
    found = time_to_quality.summary(evaluations, target=7.4)
    assert (found["rounds to target"], found["seconds to target"], found["processor seconds to target"]) == (
        2,
        20.0,
        8.0,
    )
    assert (found["rounds"], found["processor seconds"], found["lowest nll_valid"]) == (3, 12.0, 7.4)
    assert time_to_quality.summary(evaluations, target=7.0)["seconds to target"] is None


@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_time_to_quality_refuses_what_is_no_agent_or_no_option_before_it_trains(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_to_quality, "attempt", lambda *_: pytest.fail("it trained"))
    for words, sentence in ((["--agent", "cli"], "'cli'"), (["epochs"], "'epochs' of --tries")):
        assert sentence in mistake_of(time_to_quality.main, ["--tries", "preset=smoke", *words], capsys)


@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_time_to_quality_keeps_a_row_a_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    time_to_quality.main(["--task", "toy", "--target", "99", "--tries", "preset=smoke", "preset=smoke epochs=2"])
    rows = json.loads((tmp_path / "time_to_quality.json").read_text())["rows"]
    assert [(row["options"], row["rounds to target"], row["rounds"]) for row in rows] == [
        ("preset=smoke", 1, 1),
        ("preset=smoke epochs=2", 1, 2),
    ]
    assert all(row["seconds to target"] > 0 and row["nll_test"] > 0 for row in rows)
