"""The benchmark commands: they run on tiny sizes, and what they keep says how it was made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import textgan_env.envs.sb3  # noqa: F401  importing SB3 draws from the global generator, once
from agents.leakgan import LeakGAN, LeakGANConfig
from agents.mle import MLE, MLEConfig
from agents.seqgan import SeqGAN, SeqGANConfig
from benchmarks import adapter_cost, curves, leak_pictures, policies, results, time_to_quality
from conftest import assert_refused
from textgan_env.tasks import ToyTask
from textgan_env.training.launch import launch


def test_a_table_has_a_dash_where_a_row_has_no_value() -> None:
    rows: list[dict[str, Any]] = [{"policy": "a", "fit": 1.23456}, {"policy": "b", "fit": None, "cover": 2.0}]
    assert results.table(rows).splitlines() == [
        "| policy | fit | cover |", "| --- | --- | --- |", "| a | 1.235 | - |", "| b | - | 2.000 |",
    ]  # fmt: skip


def test_a_kept_result_names_command_commit_machine_and_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["x", "--name", "two words"])
    file = results.save("mine", [{"a": 1}], module="benchmarks.mine", notes="Nothing.")
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
    assert rows[-1]["nll_self"] < rows[-2]["nll_self"]


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
        {"policy": "a", "seed": "mean of 2", "temperature": 1.0, "fit": 2.5},
        {"policy": "a", "seed": "range of 2", "temperature": 1.0, "fit": 3.0},
    ]


def test_a_run_of_another_task_is_refused(tmp_path: Path) -> None:
    config = MLEConfig(task="toy", epochs=1, embed_size=4, hidden_size=4, threads=1, runs=tmp_path, show_samples=0)
    run = launch(config, MLE)
    assert_refused("task", policies.measure, policies.Options(task="oracle", runs=(run.path,)))
    for other in (ToyTask(seed=1), ToyTask(vocab_size=3)):
        assert_refused("task", policies.policy_of, run.path, other)
    assert policies.policy_of(run.path, ToyTask()).vocab_size == 4


def test_curves_take_policies_with_several_temperatures_and_leave_summaries_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, Any]] = [
        {"policy": "mle", "seed": 0, "temperature": 0.5, "cover": 2.0, "fit": 2.2},
        {"policy": "mle", "seed": 0, "temperature": 1.0, "cover": 1.5, "fit": 1.9},
        {"policy": "mle", "seed": "mean of 1", "temperature": 1.0, "cover": 9.0, "fit": 9.0},
        {"policy": "unigram", "seed": None, "temperature": 1.0, "cover": 2.0, "fit": 2.0},
    ]
    assert curves.curves(rows, "cover", "fit") == {"mle": {0: [(1.0, 1.5, 1.9), (0.5, 2.0, 2.2)]}}
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "IMAGES", tmp_path)
    results.save("mine", rows, module="benchmarks.mine", notes="Nothing.")
    assert curves.draw(curves.Options("mine")).read_bytes().startswith(b"\x89PNG")
    assert_refused("other", curves.draw, curves.Options("other"))
    assert_refused("bleu_2", curves.draw, curves.Options("mine", x="bleu_2"))


def test_pictures_of_the_leak_show_other_runs_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "IMAGES", tmp_path / "images")
    small = {"task": "toy", "embed_size": 4, "hidden_size": 4, "threads": 1, "runs": tmp_path, "show_samples": 0}
    mle = launch(MLEConfig(epochs=1, **small), MLE)  # type: ignore[arg-type]
    leakgan = launch(
        LeakGANConfig(pretrain_rounds=1, pretrain_epochs=1, rounds=0, goal_steps=2, goal_size=3, **small),  # type: ignore[arg-type]
        LeakGAN,
    )
    options = leak_pictures.Options(run=leakgan.path, others=(mle.path,), real=50, written=3)
    for path in leak_pictures.draw(options):
        assert path.read_bytes().startswith(b"\x89PNG")
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
    assert_refused("leakgan", leak_pictures.draw, leak_pictures.Options(run=mle.path))


def test_the_parts_of_an_iteration_are_apart_and_add_up() -> None:
    rows = adapter_cost.measure(adapter_cost.Options(envs=16, max_length=4, vocab_size=50, repeats=1))
    assert [row["part"] for row in rows] == ["adapter", "environment", "networks and learning", "whole iteration"]
    *parts, whole = (row["seconds"] for row in rows)
    assert sum(parts) == pytest.approx(whole)
    assert all(part > 0 for part in parts)


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
def test_time_to_quality_keeps_a_row_a_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    time_to_quality.main(["--task", "toy", "--target", "99", "--tries", "preset=smoke", "preset=smoke epochs=2"])
    rows = json.loads((tmp_path / "time_to_quality.json").read_text())["rows"]
    assert [(row["options"], row["rounds to target"], row["rounds"]) for row in rows] == [
        ("preset=smoke", 1, 1),
        ("preset=smoke epochs=2", 1, 2),
    ]
    assert all(row["seconds to target"] > 0 and row["nll_test"] > 0 for row in rows)
