"""The comparison of runs by how they fill blanks."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import textgan_env
from agents.maskgan import PRESETS, MaskGAN
from benchmarks import blanks, results
from conftest import mistake_of
from textgan_env.policies import UniformPolicy
from textgan_env.training.launch import launch


class WritesB(UniformPolicy):
    """Writes token 1 always, unless another is given."""

    def raw_step(self, tokens_B: Tensor, state: Any) -> tuple[Tensor, Any]:
        return torch.tensor([0.0, 50.0, 0.0]).repeat(len(tokens_B), 1), state


def test_fillings_keep_what_is_given_and_are_right_where_they_are_the_true_word() -> None:
    real_BT = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0], [2, 1, 1, 2]])
    task: Any = SimpleNamespace(
        vocab_size=3, end_token=None, max_length=4, writable=lambda _: real_BT,
        text=lambda row: " ".join("abc"[token] for token in row), words=lambda row: ["abc"[token] for token in row],
    )  # fmt: skip
    run: Any = SimpleNamespace(policy=WritesB(3, start_token=0), task=task)
    lines, (right,) = blanks.fillings([run], 4, 0)
    found = []
    for (template, filled), real in zip(lines, real_BT.tolist(), strict=True):
        assert template.count("___") == 2
        for given, word, true in zip(template.split(), filled.split(), real, strict=True):
            assert word == ("b" if given == "___" else "abc"[true])
            found += [true == 1] if given == "___" else []
    assert right == sum(found) / len(found)
    assert 0 < right < 1
    assert blanks.fillings([run], 2, 0) == (lines[:2], [right])


@pytest.mark.moves_global_rng  # reading the words does
def test_runs_are_compared_by_how_they_fill_blanks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (blanks, results):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    config = replace(PRESETS["smoke"]("toy"), runs=tmp_path, threads=1)
    path = str(launch(config, MaskGAN).path)
    blanks.main(["--runs", path, path, "--templates", "2"])
    first, second = json.loads((tmp_path / "blanks.json").read_text())["rows"]
    assert first == second
    assert first["blank NLL, 0.75"] == pytest.approx(textgan_env.load(path).blank_nll(mask_rate=0.75))
    assert (tmp_path / "blanks_samples.txt").read_text().count("template  ") == 2
    assert "templates must be at least 1" in mistake_of(blanks.main, ["--runs", path, "--templates", "0"], capsys)
