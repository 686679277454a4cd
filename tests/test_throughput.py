"""The plain reference computes what ours computes, and the command that times both."""

import json
import sys
from pathlib import Path

import nltk.translate.bleu_score  # noqa: F401  may load libraries that draw at import
import pytest
import torch

from benchmarks import pictures, results, throughput, versus
from benchmarks.reference import PlainDiscriminator, PlainGenerator, PlainLeakGAN, plain_leakgan_step, plain_q
from benchmarks.throughput import Options
from benchmarks.works import WORKS, Work
from conftest import PROJECT
from textgan_env.discriminators import ConvDiscriminator, make_discriminator
from textgan_env.policies import LeakedPolicy, LSTMPolicy
from textgan_env.rewards import Completions, Keys, RolloutCredit, Texts
from textgan_env.utils.errors import InputError

V, T, B, N = 11, 6, 8, 3
TINY = Options(rows=4, rollouts=2, leakgan_rollouts=2, max_length=6, vocab_size=11, hidden_size=3, samples=9, envs=4)


@pytest.fixture
def policy() -> LSTMPolicy:
    return LSTMPolicy(V, start_token=0, embed_size=5, hidden_size=4, init_scale=1.0, seed=1)


@pytest.fixture
def judge() -> ConvDiscriminator:
    made = make_discriminator("conv", vocab_size=V, max_length=T, widths=(1, 2, 6), filters=(4, 3, 2), seed=2).eval()
    assert isinstance(made, ConvDiscriminator)
    return made


@pytest.fixture
def leaked(judge: ConvDiscriminator) -> LeakedPolicy:
    return LeakedPolicy(
        V, start_token=0, discriminator=judge, embed_size=5, hidden_size=4, manager_size=4, goal_size=3, goal_steps=2,
        init_scale=1.0, seed=3,
    ).eval()  # fmt: skip


def texts(seed: int = 0) -> torch.Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def test_the_plain_generator_gives_every_token_the_same_probability(policy: LSTMPolicy) -> None:
    tokens_BT = texts()
    expected_BT = PlainGenerator(policy).log_prob(tokens_BT)
    found_BT = policy.log_prob(tokens_BT, torch.ones_like(tokens_BT, dtype=torch.bool))
    torch.testing.assert_close(found_BT, expected_BT, rtol=0, atol=1e-5)


def test_the_plain_judge_scores_the_same(judge: ConvDiscriminator) -> None:
    tokens_BT = texts()
    tokens_BT[:3, 4:] = V  # texts that end early
    torch.testing.assert_close(judge(tokens_BT), PlainDiscriminator(judge).eval()(tokens_BT), rtol=0, atol=1e-5)


def test_q_is_the_same_given_the_same_completions(
    policy: LSTMPolicy, judge: ConvDiscriminator, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens_BT = texts()
    # One table of completions for both: of the prefix of p tokens, the n-th is row (p, n) of the table.
    table_PNBT = torch.randint(V, (T, N, B, T), generator=torch.Generator().manual_seed(5))
    for length in range(1, T):
        table_PNBT[length, :, :, :length] = tokens_BT[:, :length]

    def completed(*_: object, **__: object) -> Completions:
        done_RT = table_PNBT[1:].transpose(1, 2).reshape(-1, T)
        prefix_R = torch.arange(1, T).repeat_interleave(B * N)
        row_R = torch.arange(B).repeat_interleave(N).repeat(T - 1)
        return Completions(done_RT, torch.full_like(row_R, T), row_R, prefix_R, torch.arange(N).repeat(B * (T - 1)))

    monkeypatch.setattr("textgan_env.rewards.credit.complete", completed)
    lengths_B = torch.full((B,), T)
    batch = Texts(tokens_BT, lengths_B, lengths_B > 0, Keys.counted(0, B), None)
    found_BT = RolloutCredit(policy, judge, rollouts=N).credit(batch, batch.mask_BT)
    asked = iter([(length, rollout) for rollout in range(N) for length in range(1, T)])

    def generate(prefix_Bt: torch.Tensor) -> torch.Tensor:
        length, rollout = next(asked)
        assert prefix_Bt.shape[1] == length
        return table_PNBT[length, rollout]

    expected_BT = plain_q(generate, PlainDiscriminator(judge).eval(), tokens_BT, N, list(range(T)))
    torch.testing.assert_close(found_BT, expected_BT, rtol=0, atol=1e-5)


def test_both_write_by_one_distribution(policy: LSTMPolicy) -> None:
    small = LSTMPolicy(3, start_token=0, embed_size=2, hidden_size=2, init_scale=2.0, seed=4)
    slow = PlainGenerator(small)
    rows = 20_000
    empty = torch.empty(rows, 0, dtype=torch.int64)
    from textgan_env.rewards import generate

    plain_BT = slow.write(empty, 2, torch.Generator().manual_seed(0))
    ours_BT, _ = generate(small, Keys.counted(0, rows), 2)
    place_2 = torch.tensor([3, 1])
    plain_9, ours_9 = ((tokens @ place_2).bincount(minlength=9).double() for tokens in (plain_BT, ours_BT))
    chi_square = ((plain_9 - ours_9) ** 2 / (plain_9 + ours_9).clamp(min=1)).sum()
    assert chi_square < 26.1  # 99.9 % point of 8 degrees of freedom


def test_the_plain_leakgan_has_the_same_features_and_logits(leaked: LeakedPolicy) -> None:
    slow, tokens_BT = PlainLeakGAN(leaked), texts()
    features_BSF = leaked.prefix_features(tokens_BT)
    for length in range(T + 1):
        torch.testing.assert_close(slow.leaked(tokens_BT, length), features_BSF[:, length], rtol=0, atol=1e-5)
    state, last_B = leaked.begin(B), torch.zeros(B, dtype=torch.int64)
    manager, worker = slow.manager.begin(B), slow.worker.begin(B)
    heard = [slow.worker.first().expand(B, -1)] * 2
    for position in range(T):
        expected_BV, state = leaked.raw_step(last_B, state)
        hidden_B1H, worker = slow.worker.read(last_B[:, None], worker)
        torch.testing.assert_close(slow.logits(hidden_B1H[:, 0], heard), expected_BV, rtol=0, atol=1e-5)
        goal_B1F, manager = slow.manager(features_BSF[:, position : position + 1], manager)
        heard.append(slow.worker.goal_embedding(goal_B1F[:, 0]))
        last_B = tokens_BT[:, position]


def test_the_plain_leakgan_step_moves_manager_and_worker_and_no_feature(leaked: LeakedPolicy) -> None:
    slow = PlainLeakGAN(leaked)
    before = {name: value.clone() for name, value in slow.state_dict().items()}
    optimizers = (torch.optim.SGD(slow.manager.parameters(), lr=1.0), torch.optim.SGD(slow.worker.parameters(), lr=1.0))
    plain_leakgan_step(slow, optimizers, rows=B, rollouts=2, draws=torch.Generator().manual_seed(0))
    moved = {name.split(".")[0] for name, value in slow.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"manager", "worker"}


@pytest.mark.parametrize("name", WORKS)
def test_every_piece_runs_both_ways(name: str) -> None:
    work = WORKS[name](TINY)
    work.ours(0)
    if name != "BLEU":  # nltk takes seconds a text
        work.plain(0)


def test_a_row_has_the_ratio_of_speeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 29.0, 30.0, 30.0, 32.0])  # two starts that do not count; then 1 s ours, 2 s plain
    monkeypatch.setattr("benchmarks.throughput.time.perf_counter", lambda: next(clock))
    work = Work(lambda _: None, lambda _: None, 8, "texts", "B=8", plain_count=2)
    row = throughput._row("piece", work, Options(repeats=1))
    assert (row["seconds"], row["plain seconds"], row["ratio"], row["a second"]) == (1.0, 8.0, 8.0, "8 texts")


@pytest.mark.moves_global_rng  # reading the words does
def test_the_command_keeps_rows_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "IMAGES", tmp_path)
    monkeypatch.setattr(sys, "argv", ["throughput.py"])
    sizes = {"rows": 2, "rollouts": 2, "max-length": 4, "vocab-size": 9, "hidden-size": 3, "repeats": 1}
    words = ["--works", "rollouts", *(word for name, value in sizes.items() for word in (f"--{name}", str(value)))]
    throughput.main([*words, "--name", "mine"])
    throughput.main([*words, "--name", "growth", "--grow"])
    assert [row["work"] for row in json.loads((tmp_path / "mine.json").read_text())["rows"]] == ["rollouts"]
    grown = json.loads((tmp_path / "growth.json").read_text())["rows"]
    assert [(row["changed"], row["value"]) for row in grown[:5]] == [
        ("B", 16), ("B", 32), ("B", 64), ("B", 128), ("N", 2)
    ]  # fmt: skip
    assert (tmp_path / "mine.png").stat().st_size > 1000
    assert (tmp_path / "growth.png").stat().st_size > 1000
    for name in ("mine", "growth"):
        drawn = (tmp_path / f"{name}.png").read_bytes()
        (tmp_path / f"{name}.png").unlink()
        pictures.main(["again", "--result", name])
        assert (tmp_path / f"{name}.png").read_bytes() == drawn


@pytest.mark.moves_global_rng  # reading the words does
def test_an_unknown_piece_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        throughput.main(["--works", "everything"])
    assert "everything" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        throughput.main(["--repeats", "0"])
    assert "repeats" in capsys.readouterr().err


@pytest.mark.slow
def test_two_checkouts_take_turns(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from types import SimpleNamespace
Options = SimpleNamespace
def run(turn):
    with open("../log", "a") as file:
        print(Path.cwd().name, turn, file=file)
WORKS = {"MLE step": lambda options: SimpleNamespace(ours=run)}
"""
    for name in ("old", "new"):
        (tmp_path / name / "textgan_env").mkdir(parents=True)
        (tmp_path / name / "benchmarks").mkdir()
        (tmp_path / name / "benchmarks" / "throughput.py").write_text(code)
    row = versus._row("MLE step", versus.Options(tmp_path / "old", tmp_path / "new", repeats=1))
    assert row["ratio"] == row["before"] / row["after"]
    assert (tmp_path / "log").read_text().splitlines() == ["old 0", "new 0", "old 1", "new 1"]


@pytest.mark.slow
def test_versus_says_in_one_sentence_what_a_checkout_misses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path))
    with pytest.raises(InputError, match="coco"):
        versus._row("D step on captions", versus.Options(PROJECT, PROJECT))
    assert capfd.readouterr().err == ""


def test_versus_refuses_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no checkout"), versus._side(tmp_path, "MLE step"):
        pass
