"""Millions of steps in one process: what stands in memory stops growing."""

import os
from pathlib import Path

import numpy as np
import pytest

from textgan_env.envs import TextGANEnv, TextGANVectorEnv

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="asks Linux for its resident memory")

MOST_GROWTH = 0.01  # of what is resident after the first tenth


def resident() -> int:
    """Resident memory of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


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
