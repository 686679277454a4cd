"""Millions of steps in one process: what stands in memory stops growing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from textgan_env.envs import TextGANEnv, TextGANVectorEnv

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="asks Linux for its resident memory")

MOST_GROWTH = 0.01  # of what is resident after the first tenth
PROJECT = Path(__file__).resolve().parents[2]


def resident(process: int | str = "self") -> int:
    """Resident memory of a process, bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth_of_vector_env(steps: int, rows: int = 1000) -> tuple[int, float]:
    """Steps of a batch of environments, all texts with a random policy and reward 1; bytes after a tenth, growth."""
    rng = np.random.default_rng(0)
    envs = TextGANVectorEnv(rows, "toy", reward="terminal", control="constant", max_length=8)
    envs.reset(seed=0)
    early = 0
    for done in range(rows, steps + 1, rows):
        envs.step(rng.integers(4, size=rows))
        if done == steps // 10:
            early = resident()
    return early, resident() / early - 1


def growth_of_env(steps: int) -> tuple[int, float]:
    """The same with a single environment."""
    rng = np.random.default_rng(0)
    env = TextGANEnv("toy", reward="terminal", control="constant", max_length=8)
    env.reset(seed=0)
    early = 0
    for done in range(1, steps + 1):
        if env.step(rng.integers(4))[2]:
            env.reset()
        if done == steps // 10:
            early = resident()
    return early, resident() / early - 1


def test_memory_of_a_vector_environment_does_not_grow_over_a_million_steps() -> None:
    assert growth_of_vector_env(1_000_000)[1] < MOST_GROWTH


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_memory_does_not_grow_over_ten_million_steps(capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        "10,000,000 steps of 1,000 environments": growth_of_vector_env(10_000_000),
        "1,000,000 steps of one environment": growth_of_env(1_000_000),
    }
    with capsys.disabled():
        for name, (early, growth) in found.items():
            print(f"\n{name}: {early / 2**20:.1f} MB after a tenth, then {growth:+.3%}")
    assert max(growth for _, growth in found.values()) < MOST_GROWTH


def growth_of_training(agent: str, rounds: int, runs: Path) -> tuple[int, float]:
    """A run with a look every tenth round: the most bytes in its second fifth, and the growth in the last one."""
    words = f"--preset smoke --task toy --threads 1 --eval-every 10 --rounds {rounds} --runs {runs}".split()
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "agents" / f"{agent}.py"), *words], stdout=subprocess.DEVNULL, cwd=PROJECT
    )
    most = [0] * 6  # by fifths of the run; the last one is for what comes after the rounds
    while process.poll() is None:
        time.sleep(0.02)
        log = next(iter(runs.glob("*/metrics.jsonl")), None)
        done = 0 if log is None else log.read_bytes().count(b"\n")
        try:
            fifth = min(5, 5 * done // rounds)
            most[fifth] = max(most[fifth], resident(process.pid))
        except (FileNotFoundError, IndexError):
            break
    assert process.wait() == 0
    return most[1], most[4] / most[1] - 1


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("agent", ["seqgan", "leakgan"])
def test_memory_of_training_does_not_grow_over_500_adversarial_rounds(
    agent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early, growth = growth_of_training(agent, 500, tmp_path)
    with capsys.disabled():
        print(f"\n500 rounds of {agent}: {early / 2**20:.1f} MB in the second fifth, {growth:+.3%} in the last")
    assert growth < MOST_GROWTH
