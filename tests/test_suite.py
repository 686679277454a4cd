"""The suite: which jobs there are, that none runs twice or is lost, and what it says of bad input."""

import csv
import itertools
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents import module_of
from benchmarks import arms, code, engines, jobs, measure, report, suite, text_scores
from conftest import PROJECT, assert_refused, mistake_of
from textgan_env.tasks import Task, ToyTask, make_task
from textgan_env.utils.errors import InputError
from textgan_env.utils.files import locked
from textgan_env.utils.options import parse

OPTIONS = suite.Options(agents=("seqgan-n0",), tasks=("toy",), seeds=2, preset="smoke", parallel=2)


# -- Which jobs -------------------------------------------------------------------------------------------------------
def test_jobs_stand_after_what_they_need_and_the_baseline_joins_by_itself() -> None:
    labels = [job.label for job in suite.planned(replace(OPTIONS, agents=("mle-ensemble",)))]
    assert labels == [
        "mle.toy.s0", "mle.toy.s1", "mle.1.toy.s0", "mle.2.toy.s0", "mle-ensemble.toy.s0",
        "mle.1.toy.s1", "mle.2.toy.s1", "mle-ensemble.toy.s1",
    ]  # fmt: skip


def test_trainings_on_the_same_texts_differ_in_their_seed_and_seeds_differ_in_their_texts() -> None:
    planned = {job.label: job for job in suite.planned(replace(OPTIONS, agents=("mle-ensemble",)))}
    words = {label: jobs.command_of(planned[label].config) for label in ("mle.toy.s1", "mle.2.toy.s1")}
    assert "--seed 1 --text-seed 1" in words["mle.toy.s1"]
    assert "--seed 2001 --text-seed 1" in words["mle.2.toy.s1"]


def test_an_id_changes_with_every_setting_and_with_the_code() -> None:
    job, other = suite.planned(OPTIONS)[:2]
    assert job.id != other.id
    assert replace(job, code="other").id != job.id
    assert replace(job, config={**job.config, "preset": "fast"}).id != job.id
    assert suite.planned(OPTIONS)[0].id == job.id


def test_code_that_a_result_depends_on_is_found_through_imports() -> None:
    seen = code.sources("seqgan")
    assert {"agents.seqgan", "benchmarks.measure", "textgan_env.evaluation", "textgan_env.ops.metrics"} <= set(seen)
    assert {"textgan_env.policies.lstm", "textgan_env.rewards", "textgan_env.training.loop"} <= set(seen)
    assert not {"agents.mle", "textgan_env.show.report", "benchmarks.arms"} & set(seen)
    assert "agents.seqgan" not in code.sources("")


def test_comments_and_docstrings_are_no_code() -> None:
    plain = "class A:\n    x: int = 1\n\ndef f():\n    return 2\n"
    told = (
        'class A:\n    """Says."""\n    x: int = 1\n    """It."""\n\ndef f():\n    """More."""\n    return 2  # two\n'
    )
    assert code.bare(told) == code.bare(plain)
    assert code.bare(plain.replace("2", "3")) != code.bare(plain)


@pytest.mark.moves_global_rng  # the library that reads command lines does
@pytest.mark.parametrize("preset", ["smoke", "fast", "paper"])
@pytest.mark.parametrize("arm", [arm for arm in arms.ARMS.values() if arm.agent], ids=lambda arm: arm.name)
def test_the_options_of_every_arm_are_options_of_its_agent(arm: arms.Arm, preset: arms.Preset) -> None:
    words = arm.words(preset)
    if words is None:
        pytest.skip("has no such preset")
    config = {"words": words, "agent": arm.agent, "seed": 0, "member": 0, "task": "toy", "task_options": {}}
    runs = {need.arm: "some/run" for need in arm.needs(preset)}
    parsed = parse(module_of(arm.agent).PRESETS, "", jobs.agent_words(config, runs))
    assert "{" not in str(getattr(parsed, "pretrained", ""))
    # What others begin with has seen no reward: it is the baseline, its student, or of the same agent.
    for begun in (arms.ARMS[name] for name in runs):
        assert begun.name in arms.BASELINES or (begun.agent == arm.agent and "--rounds 0" in begun.fast)


def test_leakgan_goes_on_from_a_pre_training_by_its_own_rules() -> None:
    for arm in arms.chosen(["hierarchical", "hierarchical-controls"]):
        assert ("--variant reference" in arm.fast) == arm.name.startswith("leakgan-reference")
        expected = "leakgan-reference-mle" if "reference" in arm.name else "leakgan-mle"
        assert [need.arm for need in arm.needs("fast")] == [expected] * (not arm.name.endswith("-mle"))


def test_what_is_built_without_training_has_a_function() -> None:
    assert {arm.build for arm in arms.ARMS.values() if not arm.agent} == {*measure.BUILDS, "real"}


def test_an_arm_without_a_setting_or_for_other_tasks_is_left_out_and_said_so() -> None:
    _, left_out = jobs.plan(arms.chosen(["ppo"]), ["toy"], [0], "paper")
    assert left_out == ["ppo has no setting for --preset paper"]
    _, left_out = jobs.plan(arms.chosen(["mle-large"]), ["wordnet"], [0], "fast")
    assert left_out == ["mle-large is not for task wordnet"]


def test_without_curves_no_arm_is_measured_at_several_temperatures() -> None:
    chosen = arms.chosen(["mle", "uniform"])
    told, short = (jobs.plan(chosen, ["toy"], [0], "smoke", curves=curves)[0] for curves in (True, False))
    assert [job.config["sweep"] for job in told] == [True, False]
    assert [job.config["sweep"] for job in short] == [False, False]
    assert told[0].id != short[0].id


# -- Bad input --------------------------------------------------------------------------------------------------------
@pytest.mark.moves_global_rng  # the library that reads command lines does
@pytest.mark.parametrize(("words", "sentence"), [
    ("--agents nobody", "nobody"), ("--tasks nothing", "nothing"), ("--seeds 0", "--seeds"),
    ("--parallel 0", "--parallel"), ("--preset huge", "invalid"), ("--tasks corpus", "--corpus"),
    ("--tasks toy --corpus mine.txt", "toy"),
])  # fmt: skip
def test_bad_input_is_one_sentence(words: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:  # type: ignore[type-arg]
    assert sentence in mistake_of(suite.main, [*shlex.split(words), "--out", str(tmp_path / "suite")], capsys)
    assert not (tmp_path / "suite").exists()


def finish(folder: Path, **changes: Any) -> None:
    """What the process of a job leaves."""
    document = json.loads((folder / "job.json").read_text())
    label = folder.name.rpartition(".")[0]
    values = {"cover": 1.0, "fit": 2.0, "nll_valid": 7.0, "nll_oracle": 9.0}
    result = {
        **document, "label": label, "how": "", "tries": 1, "command": "", "source": None, "machine": {},
        "versions": {}, "seconds": {"training": None, "all": 1.0}, "attempts": 1, "peak_memory_mb": None,
        "rows": [{"variant": "", "values": values, "missing": {}, "samples": ["a"]}], "run": None,
        "curve": [{"temperature": 1.0, "cover": 1.0, "fit": 2.0}], "learning_curve": [],
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result | changes))


class FakeEngine:
    """Ends each job at once; ``ends`` says how: label -> exit codes, one an attempt (0 where nothing is said)."""

    def __init__(self, **ends: list[int]) -> None:
        self.ends = {label.replace("__", "-").replace("_", "."): codes for label, codes in ends.items()}
        self.started: list[str] = []
        self.at_once = 0
        self.most = 0

    def start(self, folder: Path) -> int:
        label = folder.name.rpartition(".")[0]
        self.started.append(label)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        (folder / "log.txt").write_text("so it was\n")
        code = self.ends[label].pop(0) if self.ends.get(label) else 0
        if code == 0:
            finish(folder)
        return code

    def ended(self, job: int) -> int:
        self.at_once -= 1
        return job

    def close(self) -> None:
        pass


Run = Callable[..., tuple[FakeEngine, dict[str, str]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a suite on a fake engine."""

    def start(engine: FakeEngine, **changes: Any) -> tuple[FakeEngine, dict[str, str]]:
        monkeypatch.setattr(suite, "_engine", lambda _: engine)
        monkeypatch.setattr("benchmarks.suite.time.sleep", lambda _: None)
        return engine, dict(suite.run_suite(replace(OPTIONS, out=tmp_path / "suite", **changes)))

    return start


def test_finished_jobs_never_run_twice(run: Run) -> None:
    first, failed = run(FakeEngine())
    assert sorted(first.started) == ["mle.toy.s0", "mle.toy.s1", "seqgan-n0.toy.s0", "seqgan-n0.toy.s1"]
    assert failed == {}
    again, _ = run(FakeEngine())
    assert again.started == []
    more, _ = run(FakeEngine(), seeds=3)
    assert more.started == ["mle.toy.s2", "seqgan-n0.toy.s2"]


def test_no_more_jobs_run_at_once_than_were_asked_for(run: Run) -> None:
    engine, _ = run(FakeEngine(), seeds=5, parallel=3)
    assert engine.most == 3


def test_a_killed_job_is_resumed_and_one_that_is_killed_again_is_reported(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, failed = run(FakeEngine(mle_toy_s0=[-9], mle_toy_s1=[-9, -15]))
    assert engine.started.count("mle.toy.s0") == engine.started.count("mle.toy.s1") == 2
    assert failed["mle.toy.s1"].startswith("killed by signal 15 (log: ")
    assert failed["seqgan-n0.toy.s1"] == "not started: it needs mle.toy.s1, which failed"
    assert "seqgan-n0.toy.s0" not in failed
    said = capsys.readouterr()
    assert "killed by signal 9: mle.toy.s0" in said.out
    assert "failed: mle.toy.s1" in said.err


def test_a_suite_that_is_stopped_keeps_what_was_finished_for_the_report(run: Run, tmp_path: Path) -> None:
    class Stopped(FakeEngine):
        def start(self, folder: Path) -> int:
            if "seqgan" in folder.name:
                raise KeyboardInterrupt
            return super().start(folder)

    with pytest.raises(KeyboardInterrupt):
        run(Stopped())
    document = report.load(tmp_path / "suite")
    assert [result["label"] for result in document["results"]] == ["mle.toy.s0", "mle.toy.s1"]
    assert document["failed"]["seqgan-n0.toy.s0"] == "not finished"


def test_a_failed_job_is_reported_with_its_last_words_and_tried_again_by_the_next_suite(run: Run) -> None:
    engine, failed = run(FakeEngine(seqgan__n0_toy_s1=[2]))
    assert engine.started.count("seqgan-n0.toy.s1") == 1
    assert failed["seqgan-n0.toy.s1"].startswith("exit code 2: so it was (log: ")
    again, failed = run(FakeEngine())
    assert (again.started, failed) == (["seqgan-n0.toy.s1"], {})


def test_results_of_other_code_are_refused_kept_and_marked_or_made_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(FakeEngine())
    monkeypatch.setattr(jobs, "code_version", lambda _: "newer")
    assert_refused(r"4 results .* mle\.toy\.s0", run, FakeEngine())
    kept, _ = run(FakeEngine(), other_code="keep")
    assert kept.started == []
    assert report.tables(report.load(tmp_path / "suite")).count("results of another version of the code") == 2
    redone, _ = run(FakeEngine(), other_code="redo")
    assert len(redone.started) == 4
    assert "another version" not in report.tables(report.load(tmp_path / "suite"))


def test_a_result_that_is_cut_off_is_named(run: Run, tmp_path: Path) -> None:
    run(FakeEngine())
    file = next((tmp_path / "suite" / "jobs").glob("mle.toy.s0.*/result.json"))
    file.write_text(file.read_text()[:100])
    assert_refused(r"result\.json", run, FakeEngine())
    whole = tmp_path / "suite" / "results.json"
    whole.write_text(whole.read_text()[:100])
    assert_refused(r"results\.json", report.load, tmp_path / "suite")


@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_further_members_of_an_ensemble_are_trained_and_nothing_is_measured_of_them(tmp_path: Path) -> None:
    planned = suite.planned(replace(OPTIONS, agents=("mle-ensemble",), seeds=1))
    found = {}
    for job in planned:
        needs = {f"{need.arm.name}.{need.config['member']}": need.folder(tmp_path) for need in job.needs}
        folder = jobs.write_job(job, tmp_path, needs, "cpu")
        jobs.run(folder)
        found[job.label] = jobs.result_of(folder)
    rows = {label: len(result["rows"]) for label, result in found.items() if result}
    assert rows == {"mle.toy.s0": 1, "mle.1.toy.s0": 0, "mle.2.toy.s0": 0, "mle-ensemble.toy.s0": 1}
    member = next(job for job in planned if job.label == "mle.toy.s0").folder(tmp_path) / "result.json"
    member.write_text(json.dumps(found["mle.toy.s0"] | {"rows": []}))  # type: ignore[operator]
    assert_refused("rows must hold at least one row", jobs.result_of, member.parent)


def test_two_suites_in_one_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "suite").mkdir()
    with locked(tmp_path / "suite" / ".lock", lambda: ""), pytest.raises(InputError, match="another suite is running"):
        suite.run_suite(replace(OPTIONS, out=tmp_path / "suite"))


def test_how_far_a_job_is_stands_in_its_log(tmp_path: Path) -> None:
    assert jobs.progress_of(tmp_path) == ""
    (tmp_path / "log.txt").write_text("x\nmle-toy-1:  40 % (48/120), 01:12 left\n    12 4 5\n")
    assert jobs.progress_of(tmp_path) == "40 %, 01:12 left"
    (tmp_path / "log.txt").write_text("mle-toy-1: 100 % (3/3), took 00:02\nmeasuring the policy ...\n")
    assert jobs.progress_of(tmp_path) == "measuring the policy ..."


def test_time_left_is_that_of_like_jobs_less_what_has_passed() -> None:
    state = suite._State(suite.planned(OPTIONS))
    assert state.seconds_left(2) == float("inf")
    state.seconds = {"mle": [10.0, 30.0]}  # nothing is known of the others: as long
    assert state.seconds_left(2) == 4 * 20 / 2
    state.seconds["seqgan-n0"] = [100.0]
    state.finished = {state.jobs[0].id: Path()}
    assert state.seconds_left(1) == 20 + 100 + 100


# -- What is measured -------------------------------------------------------------------------------------------------
def test_a_sweep_brings_neighbours_within_the_gap_and_holds_temperature_one() -> None:
    def measured(temperature: float) -> dict[str, float]:
        return {"cover": 1 / temperature, "fit": temperature}

    points = measure.sweep(measured, 0.2)
    temperatures = [at["temperature"] for at in points]
    assert temperatures == sorted(temperatures, reverse=True)
    assert {measure.HOTTEST, 1.0, measure.COLDEST} <= set(temperatures)
    assert max(measure._distance(*pair) for pair in itertools.pairwise(points)) <= 0.2
    assert len(points) < 16


def test_a_sweep_without_divergences_takes_fixed_temperatures() -> None:
    points = measure.sweep(lambda temperature: {"bleu_4": temperature}, 0.2)
    assert [at["temperature"] for at in points] == list(measure.TEXT_TEMPERATURES)


def corpus(folder: Path) -> Task:
    (folder / "mine.txt").write_text("".join(f"{a} {b} {c}\n" for a in "abcde" for b in "fghi" for c in "jklmn"))
    return make_task("corpus", path=str(folder / "mine.txt"))


def test_rows_of_policies_without_training_have_what_applies() -> None:
    task, sizes = ToyTask(), measure.SIZES["smoke"]
    memoriser = measure.row(measure.BUILDS["memoriser"](task, [])[""], task, sizes, 0)
    assert "nll_self" in memoriser["values"]
    assert memoriser["values"]["copied_texts"] == 1
    real = measure.real_row(task, sizes, 0)
    assert real["values"]["fit"] == pytest.approx(0, abs=1e-6)
    assert len(real["samples"]) == 20


@pytest.mark.usefixtures("without_embeddings")
def test_real_text_is_measured_on_other_texts_for_each_seed_and_says_how(tmp_path: Path) -> None:
    task = corpus(tmp_path)
    sizes = replace(measure.SIZES["smoke"], bleu=20, read=10)
    first, second = (measure.real_row(task, sizes, seed) for seed in (0, 1))
    assert set(first["samples"]).isdisjoint(second["samples"])
    assert {"lstm_forward", "lstm_reverse", "frechet_lstm", "bleu_4"} <= set(first["values"])
    assert "copied_texts" not in first["values"]
    assert "embed" in first["missing"]["frechet_minilm"]
    assert "frechet" in first["settings"]


@pytest.mark.usefixtures("without_embeddings")
def test_points_on_text_have_the_scores_by_lstms(tmp_path: Path) -> None:
    task = corpus(tmp_path)
    sizes = replace(measure.SIZES["smoke"], curve=20, read=10)
    point = measure.point(measure.BUILDS["ngram"](task, [])[""], task, sizes, 0)
    assert set(point) >= {"nll_test", "lstm_forward", "lstm_reverse", "bleu_4", "self_bleu_4", "unique"}
    text_BT = task.split("train").tokens_BT[:1]
    assert_refused("texts", text_scores.reader, task, text_BT)


# -- The whole, in its own processes ----------------------------------------------------------------------------------
def command(out: Path, *more: str) -> list[str]:
    words = "--agents control-random --tasks toy --seeds 2 --preset smoke --parallel 2"
    return [sys.executable, "-m", "benchmarks.suite", *words.split(), "--out", str(out), *more]


def comparable(out: Path) -> list[Any]:
    """Results without what differs between two runs of the same thing: time, memory, attempts, paths."""
    document = json.loads((out / "results.json").read_text())
    costs = ("seconds", "attempts", "peak_memory_mb", "run", "needs", "machine", "source")
    found = []
    for result in document["results"]:
        for row in result["rows"]:
            del row["values"]["tokens_per_second"]
        found.append({key: value for key, value in result.items() if key not in costs})
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)


def running(folder: Path) -> list[int]:
    """Processes whose command line names a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if "benchmarks.jobs" in line and str(folder) in line:
            found.append(int(process.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
def test_a_suite_killed_in_the_middle_and_started_again_ends_with_the_same_table(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command(whole), cwd=PROJECT, check=True, capture_output=True)
    first = subprocess.Popen(command(cut), cwd=PROJECT, stdout=subprocess.DEVNULL)
    # Two are finished, others are in the middle of their training.
    wait_for(lambda: any(cut.glob("jobs/control-random*/run/*/metrics.jsonl")))
    first.send_signal(signal.SIGKILL)
    first.wait()
    wait_for(lambda: not running(cut), 30)
    finished = {file: file.stat().st_mtime_ns for file in cut.glob("jobs/*/result.json")}
    assert 2 <= len(finished) < 4
    again = subprocess.run(command(cut), cwd=PROJECT, check=True, capture_output=True, text=True)
    assert f"4 jobs, {len(finished)} finished already" in again.stdout
    assert comparable(cut) == comparable(whole)
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert "2" in [file.read_text().strip() for file in cut.glob("jobs/*/attempts")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
def test_a_killed_job_is_resumed_on_a_local_ray_with_two_workers(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    assert ray
    out = tmp_path / "ray"
    process = subprocess.Popen(
        command(out, "--engine", "ray"), cwd=PROJECT, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    wait_for(lambda: bool(running(out)))
    victim = running(out)[0]
    # The worker is the parent of the job's process: both go when it is killed.
    worker = int((Path("/proc") / str(victim) / "stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    said, _ = process.communicate(timeout=800)
    assert process.returncode == 0, said
    assert "killed by signal 9" in said
    assert len(json.loads((out / "results.json").read_text())["results"]) == 4


def test_a_missing_ray_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert_refused("ray", engines.RayEngine, None, 1, 0)


def test_an_unfinished_suite_has_tables_of_what_is_finished_as_markdown_csv_and_latex(run: Run, tmp_path: Path) -> None:
    seen = []

    class Watched(FakeEngine):
        def start(self, folder: Path) -> int:
            if "seqgan" in folder.name:
                seen.append(report.write_tables(tmp_path / "suite"))
            return super().start(folder)

    run(Watched())
    assert "Not finished yet, " in seen[0]
    assert "seqgan-n0.toy.s0" in seen[0].split("Not finished yet")[1]
    rows = list(csv.DictReader((tmp_path / "suite" / "tables.csv").read_text().splitlines()))
    assert {(row["task"], row["policy"]) for row in rows} == {("toy", "mle"), ("toy", "seqgan-n0")}
    text = (tmp_path / "suite" / "tables.tex").read_text()
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1
    assert len(lines) == 3
    assert "Not finished" not in (tmp_path / "suite" / "tables.md").read_text()


def test_the_time_left_is_estimated_from_jobs_that_run_before_one_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = suite.planned(OPTIONS)
    state = suite._State(planned)
    assert state.seconds_left(1) == math.inf
    monkeypatch.setattr("benchmarks.suite.time.monotonic", lambda: 100.0)
    state.running[planned[0].id] = (0, 80.0)  # for 20 seconds
    # A quarter is done, so a job takes 80 seconds: 60 are left of it, and 80 of each of the others.
    expected = 60 + 80 * (len(planned) - 1)
    assert state.seconds_left(1, {planned[0].id: 0.25}) == expected
    assert state.seconds_left(2, {planned[0].id: 0.25}) == expected / 2


def test_no_group_has_the_name_of_an_arm() -> None:
    assert not set(arms.GROUPS) & set(arms.ARMS)
    labels = [job.label for job in suite.planned(replace(OPTIONS, agents=("mle", "uniform")))]
    assert labels == ["mle.toy.s0", "mle.toy.s1", "uniform.toy.s0", "uniform.toy.s1"]
