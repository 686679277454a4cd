"""One adversarial step of LeakGAN's generator, timed: write B texts, Q of their prefixes, both losses and their steps.

``python -m benchmarks.leakgan_step`` takes the sizes at which TextGAN-PyTorch was timed: Q at every c-th token.
``--q-every 1`` asks for Q at every token, as the paper does.
"""

import itertools
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any, Literal

from textgan_env.errors import friendly_errors


@dataclass(frozen=True)
class Options:
    """Time one step of LeakGAN's generator."""

    rows: int = 64
    """B."""
    rollouts: int = 4
    """N."""
    max_length: int = 20
    """T."""
    vocab_size: int = 5000
    """V."""
    hidden_size: int = 32
    """Of the Worker (embedding and LSTM) and of the Manager."""
    goal_steps: int = 4
    """c."""
    q_every: int = 4
    """Q of the prefixes after every how manyth token; 4 is every c-th."""
    variant: Literal["paper", "reference"] = "paper"
    """Whose rules."""
    discriminator: Literal["pair", "conv"] = "conv"
    """Whose features: 1,720 of the CNN, or 33 of the small judge."""
    repeats: int = 5
    """Timed after one that is not."""
    threads: int | None = None
    """CPU threads [torch's choice]."""
    name: str = "leakgan_step"
    """Of the result files."""


def main(args: list[str] | None = None) -> None:
    """The command."""
    import tyro

    with friendly_errors():
        options = tyro.cli(Options, description=__doc__, args=args)
        rows = measure(options)
        from benchmarks.results import save, table

        notes = "Seconds of wall clock, median of the repeats (lowest - highest); peak resident memory of the process."
        print(table(rows))
        print(save(options.name, rows, module="benchmarks.leakgan_step", notes=notes))


def measure(options: Options) -> list[dict[str, Any]]:
    """A row for each part and one for the whole."""
    import torch

    from agents.leakgan import LeakGAN, LeakGANConfig
    from textgan_env.envs import EpisodeBatch
    from textgan_env.rewards import RolloutCredit, Texts
    from textgan_env.rollouts import Keys, write
    from textgan_env.tasks import OracleTask

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    task = OracleTask(
        max_length=options.max_length, vocab_size=options.vocab_size, train_size=1, valid_size=1, test_size=1
    )
    config = LeakGANConfig(
        variant=options.variant,
        embed_size=options.hidden_size,
        hidden_size=options.hidden_size,
        goal_steps=options.goal_steps,
        discriminator=options.discriminator,
        batch_size=options.rows,
        rollouts=options.rollouts,
        q_every=options.q_every,
    )
    agent = LeakGAN(config, task)
    first = options.goal_steps - 1
    positions = list(range(first, options.max_length, options.q_every))
    source = RolloutCredit(agent.completer, agent.policy.discriminator, "rank", options.rollouts)
    seconds: dict[str, list[float]] = {}
    for repeat in range(-1, options.repeats):
        clock = [time.perf_counter()]
        keys = Keys.counted(repeat + 1, options.rows)
        agent.policy.eval()
        tokens_BT, lengths_B = write(agent.writer, keys, options.max_length)
        clock.append(time.perf_counter())
        texts = Texts(tokens_BT, lengths_B, torch.ones_like(lengths_B, dtype=torch.bool), keys, None)
        asked_BT = texts.mask_BT & torch.isin(torch.arange(options.max_length), torch.tensor(positions))
        credit_BT = source.credit(texts, asked_BT)
        clock.append(time.perf_counter())
        batch = EpisodeBatch(tokens_BT, lengths_B, texts.mask_BT, credit_BT, credit_BT, keys, None)
        manager_loss, worker_loss, _ = agent.losses(batch, positions)
        agent.learn(agent.manager_optimizer, manager_loss)
        agent.learn(agent.worker_optimizer, worker_loss)
        clock.append(time.perf_counter())
        if repeat >= 0:
            names = ("write", "Q", "losses and steps")
            parts = dict(zip(names, (after - before for before, after in itertools.pairwise(clock)), strict=True))
            for name, value in (parts | {"whole step": clock[-1] - clock[0]}).items():
                seconds.setdefault(name, []).append(value)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    sizes = (
        f"B={options.rows} N={options.rollouts} c={options.goal_steps} T={options.max_length} V={options.vocab_size} "
        f"{options.hidden_size}/{options.hidden_size} F={agent.policy.feature_size}"
    )
    return [
        {
            "part": name,
            "sizes": sizes,
            "Q every": options.q_every,
            "seconds": statistics.median(values),
            "range": f"{min(values):.2f} - {max(values):.2f}",
            "peak MiB": round(peak),
            "threads": torch.get_num_threads(),
        }
        for name, values in seconds.items()
    ]


if __name__ == "__main__":
    main()
