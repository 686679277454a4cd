"""Two runs with the same seed are equal bit for bit on the CPU, whatever the agent."""

from pathlib import Path
from types import ModuleType

import pytest
import torch

from agents import a2c, dqn, leakgan, mle, ppo, seqgan
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.logs import read_metrics

AGENTS: dict[str, ModuleType] = {"mle": mle, "seqgan": seqgan, "leakgan": leakgan, "ppo": ppo, "a2c": a2c, "dqn": dqn}


@pytest.mark.slow
@pytest.mark.moves_global_rng  # the library that reads command lines, and Stable-Baselines3
@pytest.mark.parametrize("name", AGENTS)
def test_the_same_seed_gives_the_same_weights_rows_and_texts(name: str, tmp_path: Path) -> None:
    runs = []
    for folder, seed in (("one", 3), ("two", 3), ("other", 4)):
        root = tmp_path / folder
        words = ["--task", "toy", "--preset", "smoke", "--threads", "1", "--show-samples", "1", "--runs", str(root)]
        AGENTS[name].main([*words, "--seed", str(seed)])
        (run,) = root.iterdir()
        runs.append(run)
    one, two, other = (load_checkpoint(run / "checkpoints" / "last.safetensors").all_tensors for run in runs)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)
    assert read_metrics(runs[0]) == read_metrics(runs[1])
    for file in ("samples.txt", "final_samples.txt"):
        assert (runs[0] / file).read_bytes() == (runs[1] / file).read_bytes()
