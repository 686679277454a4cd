"""`textgan demo`: what is trained, what is not trained again, how it is gone on with, and what its table says."""

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agents import cli
from textgan_env.runs.folder import RunFolder
from textgan_env.show import demo
from textgan_env.show.compare import compare_runs
from textgan_env.show.demo import PLANS, Plan, conclusion, run_demo

TINY = Plan(("--preset", "smoke"), ("--epochs", "2"), ("--rounds", "1"), 1)


class Trainer:
    """Makes run folders as training does, and trains nothing; stops in the run whose number it is told."""

    def __init__(self, stop_in: int = 0) -> None:
        self.words: list[list[str]] = []
        self.stop_in = stop_in

    def __call__(self, words: list[str]) -> None:
        self.words.append(words)
        if "--resume" in words:
            run = RunFolder(Path(words[-1]))
        else:
            command = [f"textgan train {words[0]}", *words[1:]]
            name = words[words.index("--name") + 1]
            run = RunFolder.create(words[-1], name, config={}, seed=0, command=command)
            run.last_checkpoint.touch()
        if len(self.words) == self.stop_in:
            raise SystemExit(128 + signal.SIGINT)
        run.evaluation_file.write_text('{"values": {"nll_test": 1}, "missing": {}, "settings": {}}')


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders without weights have no page and no table."""
    monkeypatch.setattr(demo, "_page", lambda folders, file, texts: file)
    monkeypatch.setattr(demo, "_compare", lambda *runs: None)


@pytest.mark.usefixtures("no_page")
def test_mle_comes_first_then_seqgan_from_it_and_the_same_under_a_shuffled_reward(tmp_path: Path) -> None:
    trainer = Trainer()
    assert run_demo(trainer, TINY, tmp_path) == tmp_path / "report.html"
    mle, seqgan, control = trainer.words
    runs = ["--runs", str(tmp_path)]
    assert mle == ["mle", "--preset", "smoke", "--epochs", "2", "--name", "mle", *runs]
    began = ["seqgan", "--preset", "smoke", "--pretrained", str(tmp_path / "mle-1"), "--rounds", "1"]
    assert seqgan == [*began, "--name", "seqgan", *runs]
    assert control == [*began, "--control", "shuffled", "--name", "seqgan-shuffled", *runs]


@pytest.mark.usefixtures("no_page")
def test_a_demo_that_was_stopped_says_how_it_goes_on_and_resumes_the_part_it_was_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAKELEVEL", "1")
    with pytest.raises(SystemExit):
        run_demo(Trainer(stop_in=2), TINY, tmp_path)
    assert capsys.readouterr().err == "all of it goes on from there with: make demo\n"
    again = Trainer()
    run_demo(again, TINY, tmp_path)
    assert [words[0] for words in again.words] == ["seqgan", "seqgan"]
    assert again.words[0] == ["seqgan", "--resume", str(tmp_path / "seqgan-1")]
    assert f"already there: {tmp_path}" in capsys.readouterr().out
    nothing_left = Trainer()
    run_demo(nothing_left, TINY, tmp_path)
    assert nothing_left.words == []


@pytest.mark.usefixtures("no_page")
def test_a_run_of_other_options_or_without_a_checkpoint_is_not_gone_on_with(tmp_path: Path) -> None:
    run_demo(Trainer(), TINY, tmp_path)
    longer = Trainer()
    run_demo(longer, Plan(TINY.text, ("--epochs", "3"), TINY.seqgan, 1), tmp_path)
    assert [words[0] for words in longer.words] == ["mle", "seqgan", "seqgan"]  # these begin from another run, too
    (tmp_path / "mle-3").mkdir()  # as a crash leaves it
    with pytest.raises(SystemExit):
        run_demo(Trainer(stop_in=1), Plan(TINY.text, ("--epochs", "4"), (), 1), tmp_path)
    RunFolder(tmp_path / "mle-4").last_checkpoint.unlink()
    again = Trainer()
    run_demo(again, Plan(TINY.text, ("--epochs", "4"), (), 1), tmp_path)
    assert "--resume" not in again.words[0]


def test_a_mistake_is_no_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def train(_: list[str]) -> None:
        raise SystemExit(2)

    with pytest.raises(SystemExit):
        run_demo(train, TINY, tmp_path)
    assert "goes on" not in capsys.readouterr().err


@pytest.mark.parametrize(("seqgan", "control", "said"), [
    ("no gain", "worse", "brought no gain"),
    ("worse", "gain", "brought no gain"),
    ("gain", "gain", "gained, too: the score need not be the reason"),
    ("gain", "no gain", "may be due to the discriminator's score; one seed is no proof"),
    (None, "gain", "nothing can be said"),
    ("gain", None, "nothing can be said"),
])  # fmt: skip
def test_the_discriminator_is_named_only_where_its_control_has_not_gained(
    seqgan: str | None, control: str | None, said: str
) -> None:
    assert said in conclusion(seqgan, control)


@pytest.mark.moves_global_rng  # the library that reads command lines does
@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("preset", PLANS)
def test_the_words_of_every_part_are_options_of_its_agent(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer()
    run_demo(trainer, PLANS[preset], tmp_path)
    configs: list[object] = []
    monkeypatch.setattr("textgan_env.training.launch.launch", lambda config, _: configs.append(config))
    for words in trainer.words:
        cli.train(words)
    assert len(configs) == 3


@pytest.mark.slow
@pytest.mark.moves_global_rng
def test_the_whole_demo_ends_with_a_page_a_table_and_a_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stop_after: Callable[[int], None]
) -> None:
    """Real runs on some made sentences, stopped in the middle of SeqGAN and gone on with."""
    text = tmp_path / "my.txt"
    text.write_text("".join(f"{a} {b} {c}\n" for a in ("the", "a") for b in "pqrstu" for c in "vwxyz"))
    plan = Plan(("--corpus", str(text), "--preset", "smoke", "--threads", "1"), (), ("--rounds", "3"), 1)
    stop_after(2)
    with pytest.raises(SystemExit) as stopped:
        run_demo(cli.train, plan, tmp_path / "demo")
    assert stopped.value.code == 130
    said = capsys.readouterr()
    assert re.search(r"stopped by Ctrl-C; to resume: \S*textgan train seqgan --resume \S+", said.err)
    assert "all of it goes on from there with: " in said.err
    stop_after(0)
    page = run_demo(cli.train, plan, tmp_path / "demo")
    assert page.read_text("utf-8").count("seqgan-") >= 2
    out = capsys.readouterr().out
    assert "already there" in out
    folder = tmp_path / "demo"
    compared = compare_runs([folder / name for name in ("mle-1", "seqgan-1", "seqgan-shuffled-1")])
    shown = out[out.rindex("== 4 of 4") :]
    assert [one.sentence in " ".join(shown.split()) for one in compared.differences] == [True, True]
    assert shown.count("nll_test  ") == 2  # a row of either table
    assert "bleu_2" not in shown
    assert sys.argv[0] != "textgan train seqgan"


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ctrl-C in the first g-step of the run with that number (from 1); 0: never."""
    from agents.seqgan import SeqGAN

    usual, wanted = SeqGAN.g_step, [0]

    def g_step(self: SeqGAN, step: object) -> object:
        if wanted[0] > 0:
            signal.raise_signal(signal.SIGINT)
        return usual(self, step)  # type: ignore[arg-type]

    monkeypatch.setattr(SeqGAN, "g_step", g_step)
    return lambda number: wanted.__setitem__(0, number)
