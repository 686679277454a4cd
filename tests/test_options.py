"""The command line of an agent: which default a preset gives, which words are refused, which old names are read."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from agents import leakgan, mle, seqgan
from conftest import assert_refused
from textgan_env.tasks import TASKS, Task
from textgan_env.training.launch import launch
from textgan_env.utils.options import RENAMED, TaskOptions, parse

# The library that reads command lines draws from the global generators.
pytestmark = pytest.mark.moves_global_rng

TINY = ["--task", "toy", "--preset", "smoke", "--threads", "1", "--show-samples", "0"]


@pytest.mark.parametrize(("words", "preset", "task"), [
    ([], "fast", "oracle"),
    (["--preset", "smoke"], "smoke", "oracle"),
    (["--preset=smoke", "--task=coco"], "smoke", "coco"),
    (["--seed", "3", "--corpus", "my.txt"], "fast", "corpus"),
    (["--corpus", "folder", "--task", "coco"], "fast", "coco"),
])  # fmt: skip
def test_the_defaults_are_those_of_the_preset_for_the_task(words: list[str], preset: str, task: str) -> None:
    config, default = parse(seqgan.PRESETS, "", words), seqgan.PRESETS[preset](task)
    assert (config.preset, config.task) == (preset, task)
    assert (config.embed_size, config.rounds) == (default.embed_size, default.rounds)


@pytest.mark.parametrize("words", [["--task"], ["--preset"], ["--corpus", "--task", "toy"], ["toy"], ["--seed", "x"]])
def test_words_that_cannot_be_read_are_one_line(words: list[str]) -> None:
    assert "\n" not in assert_refused(words[0], parse, seqgan.PRESETS, "", words)


@pytest.mark.parametrize(
    ("presets", "old"), [(presets, old) for presets in (seqgan.PRESETS, leakgan.PRESETS) for old in sorted(RENAMED)]
)
def test_an_old_name_is_refused_and_the_new_one_named(presets: dict[str, Any], old: str) -> None:
    typed = f"--{old.replace('_', '-')}"
    known = RENAMED[old] in vars(presets["fast"]("oracle"))
    expected = f"is called --{RENAMED[old].replace('_', '-')} now" if known else "unrecognized options: "
    for word in (typed, f"--{old}"):
        assert_refused(f"{expected}|{typed} {expected}", parse, presets, "", [word, "1"])


@pytest.mark.parametrize("word", ["--hidden-size", "--hidden_size"])
def test_a_resumed_run_keeps_its_options_however_they_are_typed(word: str, tmp_path: Path) -> None:
    assert_refused("leave out --hidden-size", parse, mle.PRESETS, "", ["--resume", str(tmp_path), word, "8"])
    assert parse(mle.PRESETS, "", ["--resume", str(tmp_path), "--learning_rate", "1"]).overrides == ("learning_rate",)


def test_a_run_saved_with_old_names_is_resumed(tmp_path: Path) -> None:
    run = launch(parse(seqgan.PRESETS, "", [*TINY, "--kl-coef", "0.5", "--runs", str(tmp_path)]), seqgan.SeqGAN)
    about = run.path / "config.json"
    saved = json.loads(about.read_text("utf-8"))
    old_names = {new: old for old, new in RENAMED.items()}
    config = {old_names.get(name, name): value for name, value in saved["config"].items()}
    assert {"kl", "entropy", "look_every", "clip_norm", "anew", "average"} <= config.keys()
    about.write_text(json.dumps({**saved, "config": config}))
    resumed: list[seqgan.SeqGANConfig] = []

    def make(config: seqgan.SeqGANConfig, task: Task) -> seqgan.SeqGAN:
        resumed.append(config)
        return seqgan.SeqGAN(config, task)

    launch(parse(seqgan.PRESETS, "", ["--resume", str(run.path), "--threads", "1"]), make)
    assert [(config.kl_coef, config.ema_decay) for config in resumed] == [(0.5, saved["config"]["ema_decay"])]


def test_the_help_of_task_names_every_task() -> None:
    """The table of tasks lies above the options, so the help cannot be made from it."""
    source = inspect.getsource(TaskOptions)
    said = re.search(r'task: str = "oracle"\n\s+"""(.*?)"""', source, re.DOTALL)
    assert said is not None
    named = re.sub(r"\([^)]*\)|[.\n]", " ", said.group(1)).split(",")
    assert sorted(name.strip() for name in named) == sorted(TASKS)
