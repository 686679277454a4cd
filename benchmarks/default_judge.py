"""What the default judge of a bare environment can tell apart, and how long a bare environment takes to be ready.

For example ``python -m benchmarks.default_judge --runs runs/mle-oracle-1``; the runs must be of the same task.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.policies import policy_of
from benchmarks.results import command, show
from textgan_env.discriminators import discriminator_report
from textgan_env.envs import default_discriminator
from textgan_env.policies import UniformPolicy
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import fit_ngram, shared_task

READY = "import gymnasium as gym, textgan_env; gym.make('TextGAN-v0').reset(seed=0)"


@dataclass(frozen=True)
class Options:
    """Measure the default judge."""

    task: str = "oracle"
    """Whose real texts."""
    runs: tuple[Path, ...] = ()
    """Finished runs of that task whose texts are judged, too."""
    samples: int = 2000
    """Held-out texts a side."""
    repeats: int = 3
    """Timings of a fresh process that makes TextGAN-v0 and resets it."""


@command
def main(options: Options) -> None:
    """The command."""
    notes = (
        f"Task {options.task}: {options.samples} texts of the test split, as many fresh ones of each policy, "
        "none of them seen by the judge. Last row: seconds until a fresh process has made and reset TextGAN-v0."
    )
    show("default_judge", measure(options), module="benchmarks.default_judge", notes=notes)


def measure(options: Options) -> list[dict[str, Any]]:
    """One row a policy, and the time to be ready."""
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", READY], check=True)
        seconds.append(time.perf_counter() - start)
    task = shared_task(options.task)
    judge = default_discriminator(task, 0)
    uniform = UniformPolicy(task.vocab_size, start_token=task.start_token, forbidden=task.forbidden)
    policies: dict[str, Any] = {"uniform tokens": uniform, "unigram": fit_ngram(task, order=1)}
    policies |= {"bigram": fit_ngram(task, order=2)} | {run.name: policy_of(run, task) for run in options.runs}
    real_BT = task.writable("test")[: options.samples]
    rows: list[dict[str, Any]] = []
    for name, policy in policies.items():
        fake_BT, _ = generate(policy, Keys.counted(1234, options.samples), task.max_length, end_token=task.end_token)
        rows.append({"texts of": name} | discriminator_report(judge, real_BT, fake_BT).as_dict())
    ready = f"{sorted(seconds)[len(seconds) // 2]:.1f} s (lowest {min(seconds):.1f}, highest {max(seconds):.1f})"
    return [*rows, {"texts of": "ready in", "loss": ready}]


if __name__ == "__main__":
    main()
