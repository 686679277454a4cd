"""Millions of steps in one process: what stands in memory stops growing."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import PROJECT
from textgan_env.envs import TextGANEnv, TextGANVectorEnv

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="asks Linux for its resident memory")
MOST_GROWTH = 0.01  # of what is resident after the first tenth


def resident(process: int | str = "self") -> int:
    """Resident memory of a process, bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth_of_steps(steps: int, rows: int | None) -> float:
    """Growth after a tenth of the steps of a batch of environments, or of one, with a random policy and reward 1."""
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {"reward": "terminal", "control": "constant", "max_length": 8}
    env: Any = TextGANEnv("toy", **options) if rows is None else TextGANVectorEnv(rows, "toy", **options)
    env.reset(seed=0)
    early = 0
    for done in range(rows or 1, steps + 1, rows or 1):
        ended = env.step(rng.integers(4, size=rows))[2]
        if rows is None and ended:
            env.reset()
        if done == steps // 10:
            early = resident()
    return resident() / early - 1


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("rows", [1000, pytest.param(None, marks=pytest.mark.faults)])
def test_memory_of_environments_does_not_grow_over_millions_of_steps(rows: int | None) -> None:
    assert growth_of_steps(1_000_000, rows) < MOST_GROWTH


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("agent", ["seqgan", "leakgan"])
def test_memory_of_training_does_not_grow_over_500_adversarial_rounds(agent: str, tmp_path: Path) -> None:
    """The most bytes in the last fifth of the rounds, beside those in the second; an evaluation every tenth round."""
    rounds = 500
    words = f"--preset smoke --task toy --threads 1 --eval-every 10 --rounds {rounds} --runs {tmp_path}".split()
    command = [sys.executable, str(PROJECT / "agents" / f"{agent}.py"), *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=PROJECT)
    most = [0] * 6  # by fifths of the run; the last one is for what comes after the rounds
    while process.poll() is None:
        time.sleep(0.02)
        log = next(iter(tmp_path.glob("*/metrics.jsonl")), None)
        done = 0 if log is None else log.read_bytes().count(b"\n")
        try:
            fifth = min(5, 5 * done // rounds)
            most[fifth] = max(most[fifth], resident(process.pid))
        except (FileNotFoundError, IndexError):
            break
    assert process.wait() == 0
    assert most[4] / most[1] - 1 < MOST_GROWTH
