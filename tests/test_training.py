"""The schedule, the loop that runs it, and going on after a stop; agents/mle.py as the agent."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import textgan_env
from agents.mle import MLE, PRESETS, MLEConfig, main
from conftest import assert_refused, assert_same_training, interrupted, mistake_of, step_of
from textgan_env.evaluation import evaluate, nll
from textgan_env.ops.sampling import seeded
from textgan_env.policies import LSTMPolicy, UniformPolicy
from textgan_env.runs.checkpointing import RunState
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.loading import load_policy
from textgan_env.runs.logs import read_metrics
from textgan_env.runs.numbers import Numbers, RoundNumbers
from textgan_env.tasks import ToyTask
from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.training import loop, mle
from textgan_env.training.launch import launch
from textgan_env.training.mle import mle_batch
from textgan_env.training.schedule import Memory, Phase, Round, Schedule, Step, Steps
from textgan_env.utils.options import parse

TINY = MLEConfig(task="toy", epochs=3, embed_size=4, hidden_size=4, batch_size=100, threads=1, show_samples=1)


def run_with(tmp_path: Path, **changes: object) -> RunFolder:
    return launch(replace(TINY, runs=tmp_path, **changes), MLE)  # type: ignore[arg-type]


def test_schedule_counts_rounds_through_all_phases_and_goes_on_in_the_middle() -> None:
    schedule = Schedule((Phase("a", 2, ()), Phase("empty", 0, ()), Phase("b", 3, ())))
    seen = [(item.phase.name, item.index, item.number) for item in schedule.after(0)]
    assert seen == [("a", 0, 1), ("a", 1, 2), ("b", 0, 3), ("b", 1, 4), ("b", 2, 5)]
    assert [(item.phase.name, item.index) for item in schedule.after(3)] == [("b", 1), ("b", 2)]


def names(phase: Phase, index: int, done: int = 0) -> list[str]:
    """What a round does: the names of its steps, with the repeat and the batch of each."""
    steps = Round(phase, index, index + 1).steps(0, done)
    return [f"{steps.name} {step.repeat}.{step.batch}" for steps, step in steps]


def nothing(_: Step) -> Numbers:
    return {}


def test_a_round_has_its_steps_batch_by_batch_some_only_every_few_rounds_and_the_last_has_more() -> None:
    work, rare = Steps(nothing, times=2, batches=2, key="work"), Steps(nothing, every=2, key="rare")
    phase = Phase("a", 3, (work, rare), at_end=(Steps(nothing, key="finish"),))
    batches = ["work 0.0", "work 0.1", "work 1.0", "work 1.1"]
    assert [names(phase, index) for index in range(3)] == [batches, [*batches, "rare 0.0"], [*batches, "finish 0.0"]]
    assert names(phase, 1, done=3) == ["work 1.1", "rare 0.0"]


def test_a_phase_is_over_when_it_says_so_and_ends_as_it_would_have_ended() -> None:
    over: list[int] = []
    work: Any = over.append
    finish = Steps(nothing, key="finish")
    phase = Phase("a", 5, (Steps(work, key="work"),), (finish,), until=lambda: len(over) > 1)
    schedule = Schedule((phase, Phase("b", 1, ())))
    done = []
    for current in schedule.after(0):
        for steps, step in current.steps(0):
            steps.run(step)
            done.append((current.phase.name, current.number, steps.name))
        done.append((current.phase.name, current.number, "."))
    assert done == [
        ("a", 1, "work"), ("a", 1, "."), ("a", 2, "work"), ("a", 2, "finish"), ("a", 2, "."), ("b", 6, "."),
    ]  # fmt: skip
    assert [current.number for current in schedule.after(2)] == [6]


def test_batches_of_a_step_share_one_iterator_and_the_state_of_dropout_also_after_a_resume() -> None:
    def items(generator: torch.Generator) -> Iterator[tuple[int | None, int]]:
        for number in range(4):
            yield (7 if number == 0 else None), int(torch.randint(1000, (), generator=generator))

    def batch(step: Step) -> tuple[int, float]:
        seed, number = step.item(items)
        with step.dropout(seed):
            return number, float(torch.rand(()))

    def steps() -> list[Step]:
        memory = Memory()
        return [Step(3, batch=number, batches=4, memory=memory) for number in range(4)]

    whole = [batch(step) for step in steps()]
    with seeded(7):
        assert [drawn for _, drawn in whole] == torch.rand(4).tolist()
    assert [number for number, _ in whole] == [number for _, number in items(torch.Generator().manual_seed(3))]
    first, second, *_ = steps()
    batch(first), batch(second)
    rest = [Step(3, batch=number, batches=4, memory=Memory(random=second.memory.random)) for number in (2, 3)]
    memory = rest[0].memory
    assert [batch(replace(step, memory=memory)) for step in rest] == whole[2:]


def test_numbers_of_a_round_are_collected_by_name_and_a_loss_must_be_finite() -> None:
    numbers = RoundNumbers({"credit": [1.0]})
    numbers.add({"d_loss": torch.tensor(3.0), "explained": math.nan})
    numbers.add({"credit": 2.0})
    assert str(numbers.lists()) == "{'credit': [1.0, 2.0], 'd_loss': [3.0], 'explained': [nan]}"
    assert numbers.means()["credit"] == 1.5
    assert_refused("d_loss is nan", numbers.add, {"d_loss": torch.tensor(math.nan)})


def test_the_exact_mean_of_a_round_does_not_depend_on_the_order_of_its_numbers() -> None:
    values = [0.1] * 10 + [1e16, -1e16]
    means = []
    for order in (values, values[::-1]):
        numbers = RoundNumbers()
        for value in order:
            numbers.add({"x": value})
        means.append(numbers.means()["x"])
    assert means[0] == means[1] == pytest.approx(1 / 12)


@pytest.mark.parametrize("rounds", [0, -1])
def test_schedule_without_work_or_with_negative_rounds_is_refused(rounds: int) -> None:
    assert_refused("0 rounds", Schedule, (Phase("a", rounds, ()),))


def test_a_finished_policy_is_measured_on_as_many_texts_as_its_run_says_also_when_it_is_loaded(tmp_path: Path) -> None:
    run = run_with(tmp_path, eval_samples=40)
    assert json.loads(run.evaluation_file.read_text())["settings"]["samples"] == 40
    loaded = textgan_env.load(run.path)
    assert loaded.evaluate().settings["samples"] == loaded.sizes["samples"] == 40
    forged = (run.path / "config.json").read_text().replace('"eval_samples": 40', '"eval_samples": 100000000000')
    (run.path / "config.json").write_text(forged)
    assert_refused("must be 2 to 1,000,000, found 100000000000", lambda: textgan_env.load(run.path).evaluate())


@pytest.mark.parametrize("samples", [1, 10**7])
def test_a_number_of_texts_that_cannot_be_measured_leaves_no_folder(tmp_path: Path, samples: int) -> None:
    assert_refused("eval_samples must be 2 to 1,000,000", run_with, tmp_path, eval_samples=samples)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("long_ends_of_runs")
def test_a_run_leaves_everything_a_person_looks_for(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    rows = read_metrics(run.path)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {"loss", "nll_valid", "nll_oracle"} <= set(rows[-1])
    assert (run.path / "metrics.csv").read_text().startswith("step,phase,")
    assert run.curve_file.read_bytes().startswith(b"\x89PNG")
    assert len((run.path / "final_samples.txt").read_text().splitlines()) == 20
    measured = json.loads((run.path / "evaluation.json").read_text())
    assert (measured["values"]["nll_test"] > 0, measured["settings"]["samples"]) == (True, 10_000)
    assert (run.about["config"]["epochs"], run.about["seed"]) == (3, 0)
    assert [step for step, _ in run.samples()] == [1, 2, 3]


def test_same_seed_gives_the_same_run_bit_for_bit_and_another_seed_another(tmp_path: Path) -> None:
    one, two, other = (run_with(tmp_path, seed=seed) for seed in (3, 3, 4))
    tensors = [load_checkpoint(run.last_checkpoint).all_tensors for run in (one, two, other)]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert not all(torch.equal(tensors[0][name], tensors[2][name]) for name in tensors[0])
    assert (one.path / "final_samples.txt").read_text() == (two.path / "final_samples.txt").read_text()


def test_a_run_that_was_stopped_goes_on_to_the_same_weights_and_rows(tmp_path: Path) -> None:
    whole = run_with(tmp_path / "whole")
    with interrupted(MLE, "mle_batch", lambda _, step: step.round == 2):
        run_with(tmp_path / "cut", checkpoint_every=0.0)
    cut = launch(replace(TINY, resume=tmp_path / "cut" / "mle-toy-1"), MLE)
    assert_same_training(whole, cut)
    assert (whole.path / "final_samples.txt").read_text() == (cut.path / "final_samples.txt").read_text()


def test_the_loss_of_a_batch_is_that_of_the_policy_with_dropout() -> None:
    task = ToyTask(vocab_size=3, max_length=4, size=60)
    losses = []
    for dropout in (0.0, 0.5):
        policy = LSTMPolicy(
            3, start_token=task.start_token, embed_size=4, hidden_size=16, dropout=dropout, init_scale=1.0
        )
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
        real_BT = task.split("train").tokens_BT
        size = len(real_BT)
        first, second = (
            float(mle_batch(step_of(0, name), policy.eval(), optimizer, task, batch_size=size, max_grad_norm=1.0))
            for name in ("one", "two")
        )
        losses.append((first, second, nll(policy, real_BT, task.scored(real_BT))[0]))
    (plain, again, exact), (dropped, other, _) = losses
    assert (plain, again) == pytest.approx((exact, exact))
    assert abs(dropped - exact) > 1e-3
    assert abs(dropped - other) > 1e-3


def test_scheduled_sampling_reads_a_growing_share_of_own_tokens_also_after_a_stop(tmp_path: Path) -> None:
    whole = run_with(tmp_path / "whole", scheduled_sampling=0.25)
    assert [row.get("own_share", 0.0) for row in read_metrics(whole.path)] == [0.0, 0.25, 0.5]
    plain = run_with(tmp_path / "plain")
    losses = [[row["loss"] for row in read_metrics(run.path)] for run in (plain, whole)]
    assert [one == other for one, other in zip(*losses, strict=True)] == [True, False, False]


def test_mixed_inputs_are_drawn_given_the_mixed_tokens_before_and_never_at_an_end() -> None:
    # After the start (3) comes 1, after 1 comes 2, after 2 comes 0, after 0 comes 1: always.
    after = torch.tensor([[-9.0, 9, -9], [-9, -9, 9], [9, -9, -9], [-9, 9, -9]]) * 10

    class Chain(UniformPolicy):
        def raw_step(self, tokens_B: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
            return after[tokens_B], state

    real_BT = torch.tensor([[0, 0, 0, 0], [0, 0, 3, 3]])
    policy = Chain(3, start_token=3)
    drawn_BT = mle.mixed_inputs(policy, real_BT, 1.0, torch.Generator().manual_seed(0))
    assert drawn_BT.tolist() == [[1, 2, 0, 0], [1, 0, 3, 3]]  # the last token is never read, so it is not drawn
    assert mle.mixed_inputs(policy, real_BT, 0.0, torch.Generator().manual_seed(0)).equal(real_BT)
    many_BT = torch.zeros(2000, 3, dtype=torch.int64)
    half_BT = mle.mixed_inputs(policy, many_BT, 0.5, torch.Generator().manual_seed(0))
    assert float((half_BT[:, 0] == 1).double().mean()) == pytest.approx(0.5, abs=0.05)
    # Where the second token is drawn it follows the first as it was read: 2 after a drawn 1, else 1 after a real 0.
    assert set(half_BT[half_BT[:, 0] == 1, 1].tolist()) == {0, 2}
    assert set(half_BT[half_BT[:, 0] == 0, 1].tolist()) == {0, 1}


def test_a_loaded_policy_scores_and_writes_as_the_run_said(tmp_path: Path) -> None:
    run = run_with(tmp_path, temperature=0.7)
    policy, task = load_policy(run.path)
    assert policy.decoding.temperature == 0.7
    measured = json.loads((run.path / "evaluation.json").read_text())
    assert evaluate(policy, task, samples=500).values == measured["values"]


def test_best_keeps_the_weights_of_the_lowest_validation_nll(tmp_path: Path) -> None:
    run = run_with(tmp_path, learning_rate=0.5, ema_decay=0.0, epochs=4, select="best")
    policy, task = load_policy(run.path)
    valid_BT = task.split("valid").tokens_BT
    seen = [row["nll_valid"] for row in read_metrics(run.path)]
    best = min(float(value) for value in seen)
    assert nll(policy, valid_BT, task.scored(valid_BT))[0] == pytest.approx(best, abs=1e-6)


def test_a_run_without_progress_is_stopped_measured_and_stays_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nlls = iter([3.0, 2.0, 2.1, 1.9, 1.9, 2.5, 2.5])
    look = loop._evaluate
    monkeypatch.setattr(loop, "_evaluate", lambda agent, texts: look(agent, texts) | {"nll_valid": next(nlls)})
    run = run_with(tmp_path, epochs=9, eval_every=1, patience=2)
    assert [row["nll_valid"] for row in read_metrics(run.path)] == [3.0, 2.0, 2.1, 1.9, 1.9, 2.5]
    assert "stopped after round 6 of 9" in capsys.readouterr().out
    assert (run.path / "evaluation.json").exists()
    launch(replace(TINY, resume=run.path), MLE)
    assert len(read_metrics(run.path)) == 6


def test_a_lower_auc_of_the_discriminator_is_progress_too() -> None:
    state, patient = RunState(), replace(TINY, patience=2)
    for nll_valid, d_auc in ((2.0, 0.9), (2.1, 0.8), (2.2, 0.7), (2.3, 0.7), (2.4, 0.75)):
        state = loop._updated(state, {"nll_valid": nll_valid, "d_auc": d_auc}, {}, patient, last_phase=True)
    assert (state.without_progress, state.stopped) == (2, "2 evaluations without progress")
    assert state.lows == {"nll_valid": 2.0, "d_auc": 0.7}
    state = replace(state, stopped="")
    better, worse = {"nll_valid": 1.9, "d_auc": 0.9}, {"nll_valid": 2.4, "d_auc": 0.9}
    assert not loop._updated(state, better, {}, patient, last_phase=True).stopped
    assert not loop._updated(state, worse, {}, replace(TINY, patience=0), last_phase=True).stopped
    assert not loop._updated(state, worse, {}, patient, last_phase=False).stopped


def test_collapse_loops_and_a_vanishing_gradient_are_told() -> None:
    task = ToyTask(vocab_size=30, max_length=4, size=300)
    healthy = {"unique": 0.9, "adjacent_repeats": 0.1, "credit_spread": 0.1, "nll_self": 1.9, "nll_valid": 2.0}
    assert loop._warnings(task, healthy) == {}
    sick = healthy | {"unique": 0.05, "adjacent_repeats": 0.6, "credit_spread": 0.0001}
    collapse, loops, vanishes = loop._warnings(task, sick).values()
    assert collapse.startswith("the policy collapses: 5% of its texts are different, of real ones")
    assert loops.startswith("the policy loops: 60% of its tokens repeat the one before, of real ones")
    assert vanishes.startswith("the gradient vanishes: credits differ by 0.0001 between texts")
    assert loop._warnings(task, healthy | {"nll_self": 0.9}) == {
        "collapse": "the policy collapses: its entropy is 0.90 nats a token, where real text costs it 2.00"
    }


def test_evaluations_of_a_run_generate_no_more_texts_than_its_end_does() -> None:
    task = ToyTask(vocab_size=4, max_length=4, size=200)
    for eval_samples, expected in ((None, 1_000), (20, 20), (5_000, 1_000)):
        assert loop._evaluated(replace(TINY, eval_samples=eval_samples)) == expected
    unique = loop._evaluate(MLE(replace(TINY, device="cpu"), task), 20)["unique"]
    assert unique * 20 == pytest.approx(round(unique * 20))  # a share of 20 texts


def test_an_evaluation_measures_cover_fit_and_diversity_without_the_test_split() -> None:
    class Watched(ToyTask):
        def split(self, name: Split) -> TokenDataset:
            assert name != "test"
            return super().split(name)

    values = loop._evaluate(MLE(replace(TINY, device="cpu"), Watched(vocab_size=4, max_length=4, size=200)))
    assert set(values) == {
        "nll_valid", "nll_self", "nll_oracle", "nll_oracle_median", "cover", "fit", "unique", "adjacent_repeats",
    }  # fmt: skip


def test_a_run_of_another_version_is_not_gone_on_with(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    about = run.about
    del about["config"]["max_grad_norm"]
    run.config_file.write_text(json.dumps(about))
    assert_refused("max_grad_norm", launch, replace(TINY, resume=run.path), MLE)


@pytest.mark.slow
def test_maximum_likelihood_reaches_the_enumerated_entropy_of_the_toy_task(tmp_path: Path) -> None:
    """A uniform policy scores ln 4 = 1.386 nats; the entropy of the toy task is the least any policy can reach."""
    task = ToyTask()
    entropy = float(-(task.logp_S.exp() * task.logp_S).sum()) / task.max_length
    run = run_with(tmp_path, epochs=150, hidden_size=32, embed_size=16, dropout=0.0, weight_decay=0.0, batch_size=50)
    reached = json.loads((run.path / "evaluation.json").read_text())["values"]["nll_test"]
    assert entropy < 1.25 < math.log(4)
    assert reached == pytest.approx(entropy, abs=0.06)


@pytest.mark.moves_global_rng
def test_a_text_file_is_found_again_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(PRESETS, "", ["--corpus", "my.txt"]).corpus == str(tmp_path / "my.txt")


@pytest.mark.moves_global_rng
def test_what_may_be_overridden_to_a_run_is_told_from_what_may_not(tmp_path: Path) -> None:
    words = ["--resume", str(tmp_path), "--learning-rate=0.001", "--threads", "1"]
    config = parse(PRESETS, "", words)
    assert (config.learning_rate, config.overrides) == (0.001, ("learning_rate", "threads"))
    assert_refused("leave out --epochs, --seed", parse, PRESETS, "", [*words, "--seed", "1", "--epochs", "2"])


def test_a_size_that_is_left_open_is_refused_where_the_agent_has_none_of_its_own() -> None:
    assert_refused("embed_size must be a whole number, found none", MLE, MLEConfig(embed_size=None), ToyTask())


def test_phases_need_different_names() -> None:
    assert_refused("different names", Schedule, (Phase("a", 1, ()), Phase("a", 1, ())))


@pytest.mark.moves_global_rng
def test_an_unwritable_place_for_runs_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    words = ["--task", "toy", "--preset", "smoke", "--runs", str(tmp_path / "file" / "runs")]
    assert "run" in mistake_of(main, words, capsys)


def test_a_falling_rate_is_half_a_cosine_over_all_batches_and_is_resumed(tmp_path: Path) -> None:
    config = replace(TINY, lr_schedule="cosine", learning_rate=0.08, batch_size=500, epochs=2)
    agent = MLE(config, ToyTask())
    (phase,) = agent.schedule().phases
    rates = []
    for current in agent.schedule().after(0):
        for steps, step in current.steps(0):
            steps.run(step)
            rates.append(agent.mle_optimizer.param_groups[0]["lr"])
    assert phase.rounds == 2
    assert rates == pytest.approx([0.08, 0.04 + 0.04 * 0.5**0.5, 0.04, 0.04 - 0.04 * 0.5**0.5])
    whole = launch(replace(config, runs=tmp_path / "whole"), MLE)
    with interrupted(MLE, "mle_batch", lambda _, step: (step.round, step.batch) == (1, 1)):
        launch(replace(config, runs=tmp_path / "cut", checkpoint_every=0.0), MLE)
    assert_same_training(whole, launch(replace(config, resume=tmp_path / "cut" / "mle-toy-1"), MLE))


def test_a_constant_rate_is_the_one_asked_for_to_the_end() -> None:
    agent = MLE(replace(TINY, learning_rate=0.08), ToyTask())
    agent.mle_batch(Step(0, round=2, batches=10))
    assert agent.mle_optimizer.param_groups[0]["lr"] == 0.08
