"""What shards cost, and what several processes save: processor time of a step, cut into shards and whole, in turns.

``torchrun --standalone --nproc-per-node 2 -m benchmarks.processes`` shares the shards out, ``python -m
benchmarks.processes`` computes them in one process. Whole means that each process computes the whole batch.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.results import command, table
from textgan_env.utils.options import at_least
from textgan_env.utils.printing import say


@dataclass(frozen=True)
class Options:
    """Time steps of D and of maximum likelihood in shards."""

    shards: int = 2
    """S."""
    rows: int = 64
    """B."""
    repeats: int = 21
    """Turns that are timed, after two that are not."""


@command
def main(options: Options) -> None:
    """The command."""
    at_least(2, options, "shards")
    at_least(1, options, "rows", "repeats")
    import torch

    from textgan_env.ops import torchrun

    torch.set_num_threads(1)
    with torchrun.process_group():
        rows = [_row(name, run, options) for name, run in _steps(options.rows).items()]
        say(table(rows))


def _steps(rows: int) -> dict[str, Callable[[], object]]:
    """The published CNN and SeqGAN's generator, each with its optimizer, at the published sizes."""
    import torch

    from textgan_env.discriminators import ConvDiscriminator
    from textgan_env.discriminators.fit import fit_step
    from textgan_env.policies import LSTMPolicy
    from textgan_env.tasks import OracleTask
    from textgan_env.training.mle import mle_step

    task = OracleTask(vocab_size=5000, max_length=20, train_size=rows, valid_size=1, test_size=1)
    tokens_BT = task.split("train").tokens_BT
    discriminator = ConvDiscriminator(task.vocab_size, task.max_length)
    policy = LSTMPolicy(task.vocab_size, start_token=task.start_token, embed_size=32, hidden_size=32).train()
    d_optimizer, g_optimizer = discriminator.make_optimizer(), torch.optim.Adam(policy.parameters())
    return {
        "D step": lambda: fit_step(discriminator, d_optimizer, tokens_BT),
        "MLE step": lambda: mle_step(policy, g_optimizer, task, tokens_BT, max_grad_norm=5.0),
    }


def _row(name: str, run: Callable[[], object], options: Options) -> dict[str, Any]:
    """Time a step, whole and in shards in turn; the time of the process that takes longest."""
    from textgan_env.ops.torchrun import all_reduce_max, rank_and_size

    turns = []
    for _ in range(options.repeats + 2):
        whole, shared = _seconds(run, 1), _seconds(run, options.shards)
        turns.append((all_reduce_max(round(whole * 1e6)) / 1e3, all_reduce_max(round(shared * 1e6)) / 1e3))
    whole_ms, shared_ms = zip(*turns[2:], strict=True)
    ratios = [shared / whole for whole, shared in turns[2:]]
    return {
        "work": name,
        "processes": rank_and_size()[1],
        "shards": options.shards,
        "whole, ms": round(statistics.median(whole_ms), 1),
        "in shards, ms a process": round(statistics.median(shared_ms), 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": f"{min(ratios):.2f} - {max(ratios):.2f}",
    }


def _seconds(run: Callable[[], object], shards: int) -> float:
    """Processor time of a step that is cut into so many shards; all processes begin it together."""
    from textgan_env.ops.parallel import sharded
    from textgan_env.ops.torchrun import all_reduce_max

    all_reduce_max(0)
    began = time.process_time()
    with sharded(shards):
        run()
    return time.process_time() - began


if __name__ == "__main__":
    main()
