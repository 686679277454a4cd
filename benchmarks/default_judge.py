"""What the default discriminator can tell apart, and how long a bare environment takes to be ready.

For example ``python -m benchmarks.default_judge --runs runs/mle-oracle-1``; the runs must be of the same task.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import command, show

# Prints seconds of processor time.
READY = """
import time, gymnasium as gym, textgan_env.envs
begin = time.process_time()
env = gym.make("TextGAN-v0")
env.reset(seed=0)
ended = False
while not ended:
    _, _, ended, _, _ = env.step(0)
print(time.process_time() - begin)
"""


@dataclass(frozen=True)
class Options:
    """Measure the default discriminator."""

    task: str = "oracle"
    """Whose real texts."""
    runs: tuple[Path, ...] = ()
    """Finished runs of that task whose texts are judged, too."""
    samples: int = 2000
    """Held-out texts a side."""
    repeats: int = 3
    """Fresh processes after the first one."""


@command
def main(options: Options) -> None:
    """The command."""
    notes = (
        f"Task {options.task}: {options.samples} texts of the test split, as many fresh ones of each policy, "
        "none of them seen by the discriminator. Last rows: processor time of a fresh process on one thread until "
        "TextGAN-v0 has paid for a text, importing torch not counted: the first one on a machine, and later ones."
    )
    show("default_judge", measure(options), notes=notes)


def measure(options: Options) -> list[dict[str, Any]]:
    """One row a policy, and the times to be ready."""
    from benchmarks.measure import plain_policies, written
    from benchmarks.policies import policy_of
    from textgan_env.discriminators import discriminator_report
    from textgan_env.envs import default_discriminator
    from textgan_env.tasks import shared_task

    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TEXTGAN_DATA": folder, "OMP_NUM_THREADS": "1"}
        line = [sys.executable, "-c", READY]
        ready = [subprocess.check_output(line, env=environment, text=True) for _ in range(1 + options.repeats)]
    first, *seconds = map(float, ready)
    task = shared_task(options.task)
    judge = default_discriminator(task, 0)
    policies = plain_policies(task) | {run.name: policy_of(run, task) for run in options.runs}
    real_BT = task.writable("test")[: options.samples]
    rows: list[dict[str, Any]] = []
    for name, policy in policies.items():
        fake_BT = written(policy, task, options.samples, 1234).tokens_BT
        rows.append({"texts of": name} | discriminator_report(judge, real_BT, fake_BT).as_dict())
    later = f"{statistics.median(seconds):.2f} s (lowest {min(seconds):.2f}, highest {max(seconds):.2f})"
    return [*rows, {"texts of": "ready, first", "loss": f"{first:.1f} s"}, {"texts of": "ready, later", "loss": later}]


if __name__ == "__main__":
    main()
