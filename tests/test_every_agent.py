"""Every agent on every kind of text: its whole smoke preset runs, and a run that was stopped ends in the same bits."""

from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from conftest import PROJECT
from test_keeping import content, save_points_of, stop_at_save_point
from textgan_env.training.launch import launch

# The command lies beside the agents.
AGENTS = sorted(path.stem for path in (PROJECT / "agents").glob("[a-z]*.py") if path.stem != "cli")
# Texts of 2 to 6 words with an end token, and words that are seen once and so are unknown.
WORDS = ("the", "cat", "dog", "sees", "hears", "tree", "stone")
TEXTS = [" ".join(WORDS[(number * step) % 7] for step in range(1, 2 + number % 5)) for number in range(240)]


@pytest.fixture
def own_text(tmp_path: Path) -> Path:
    """A file of short texts, none of which stands twice."""
    path = tmp_path / "own.txt"
    lines = [f"{text} {WORDS[number % 7]} {WORDS[number // 7 % 7]}" for number, text in enumerate(TEXTS)]
    path.write_text("\n".join([*dict.fromkeys(lines), "the owl", "an ox"]) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.moves_global_rng  # importing SB3 does, once
@pytest.mark.parametrize(
    ("agent", "kind"), [*product(AGENTS, ("toy", "own text")), ("seqgan", "oracle"), ("ppo", "oracle")]
)
def test_smoke_runs_on_every_kind_of_text_and_is_resumed_bit_for_bit(
    agent: str, kind: str, own_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module(f"agents.{agent}")
    (learner,) = [one for name, one in vars(module).items() if name.lower() == agent]
    config = module.PRESETS["smoke"]("corpus" if kind == "own text" else kind)
    options: dict[str, Any] = {"own text": {"corpus": str(own_text), "min_count": 2}, "oracle": {"max_length": 6}}
    config = replace(config, threads=1, show_samples=0, **options.get(kind, {}))
    whole, save_points = save_points_of(monkeypatch, lambda: launch(replace(config, runs=tmp_path / "whole"), learner))
    expected = content(whole)
    with monkeypatch.context() as patch:
        stop_at_save_point(patch, max(1, 2 * save_points // 3))
        with pytest.raises(KeyboardInterrupt):
            launch(replace(config, runs=tmp_path / "stopped", checkpoint_every=0.0), learner)
    (folder,) = (tmp_path / "stopped").iterdir()
    assert content(launch(replace(config, resume=folder), learner)) == expected
