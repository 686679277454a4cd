"""What SB3VecEnv costs of a PPO iteration: a collection of texts, and what is learnt from it.

``python -m benchmarks.adapter_cost`` takes agents/ppo.py as it is by default. All shares are of one run, in seconds of
the process, so a busy machine hardly matters.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.results import command, show


@dataclass(frozen=True)
class Options:
    """Measure the share of the adapter."""

    envs: int = 128
    """B."""
    max_length: int = 20
    """T."""
    vocab_size: int = 5000
    """V."""
    repeats: int = 5
    """Iterations measured after one that is not."""
    threads: int = 1
    """CPU threads."""
    name: str = "adapter_cost"
    """Of the result files."""


@command
def main(options: Options) -> None:
    """The command."""
    notes = (
        "One iteration of agents/ppo.py with the terminal reward, in its parts; seconds of the process, median of "
        "the repeats. Adapter: everything in SB3VecEnv but the environment that it calls."
    )
    show(options.name, measure(options), notes=notes)


def measure(options: Options) -> list[dict[str, Any]]:
    """A row for each part and one for the whole."""
    import torch

    from agents.ppo import PPO, PPOConfig
    from textgan_env.ops.sampling import derived_seed
    from textgan_env.tasks import OracleTask
    from textgan_env.training.schedule import Step

    torch.set_num_threads(options.threads)
    sizes: dict[str, Any] = {"max_length": options.max_length, "vocab_size": options.vocab_size}
    task = OracleTask(**sizes, train_size=1, valid_size=1, test_size=1)
    agent = PPO(PPOConfig(task="oracle", envs=options.envs), task)
    spent = dict.fromkeys(("adapter", "environment"), 0.0)
    adapter = agent.model.get_env().venv
    for name in ("reset", "step_async", "step_wait"):
        setattr(adapter, name, _clocked(getattr(adapter, name), spent, "adapter"))
    for name in ("reset", "step"):
        setattr(adapter.envs, name, _clocked(getattr(adapter.envs, name), spent, "environment"))
    repeats: list[dict[str, float]] = []
    for repeat in range(options.repeats + 1):
        spent.update(adapter=0.0, environment=0.0)
        began = time.process_time()
        agent.learn(Step(derived_seed(0, "benchmark", repeat)))
        whole = time.process_time() - began
        repeats.append({
            "adapter": spent["adapter"] - spent["environment"],  # it waits for the environment
            "environment": spent["environment"],
            "networks and learning": whole - spent["adapter"],
            "whole iteration": whole,
        })  # fmt: skip
    medians = {name: statistics.median(parts[name] for parts in repeats[1:]) for name in repeats[0]}
    common = {"sizes": f"B={options.envs} T={options.max_length} V={options.vocab_size}", "threads": options.threads}
    whole = medians["whole iteration"]
    return [
        {"part": name, "seconds": value, "share": f"{value / whole:.2%}", **common} for name, value in medians.items()
    ]


def _clocked(call: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    """The same call, whose seconds of the process are added up under a name."""

    def clocked(*args: Any, **options: Any) -> Any:
        """Call, and add up the seconds."""
        began = time.process_time()
        found = call(*args, **options)
        spent[name] += time.process_time() - began
        return found

    return clocked


if __name__ == "__main__":
    main()
