"""One generator step of SeqGAN, timed: write B texts, complete every prefix N times, score with D, take the gradient.

``python -m benchmarks.generator_step`` takes the published sizes. With ``--max-length 51 --vocab-size 30000 --no-score
--name rollouts_memory`` it asks what a large vocabulary costs in memory.
"""

import itertools
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

from textgan_env.errors import friendly_errors


@dataclass(frozen=True)
class Options:
    """Time one generator step."""

    rows: int = 64
    """B."""
    rollouts: int = 16
    """N."""
    max_length: int = 20
    """T."""
    vocab_size: int = 5000
    """V."""
    hidden_size: int = 32
    """Of the policy: embedding and LSTM."""
    score: bool = True
    """Score with SeqGAN's convolutional D (12 widths, 1,720 features) and take the gradient; else rollouts only."""
    repeats: int = 5
    """Timed after one that is not."""
    threads: int | None = None
    """CPU threads [torch's choice]."""
    name: str = "generator_step"
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
        print(save(options.name, rows, module="benchmarks.generator_step", notes=notes))


def measure(options: Options) -> list[dict[str, Any]]:
    """A row for each part and one for the whole."""
    import torch

    from textgan_env.discriminators import make_discriminator, score_logits
    from textgan_env.losses import policy_gradient_loss
    from textgan_env.policies import LSTMPolicy
    from textgan_env.rollouts import Keys, complete, write

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    size = options.hidden_size
    policy = LSTMPolicy(options.vocab_size, start_token=0, embed_size=size, hidden_size=size, init_scale=1.0)
    judge = make_discriminator("conv", vocab_size=options.vocab_size, max_length=options.max_length)
    seconds: dict[str, list[float]] = {}
    for repeat in range(-1, options.repeats):
        clock = [time.perf_counter()]
        keys = Keys.counted(repeat + 1, options.rows)
        tokens_BT, _ = write(policy, keys, options.max_length)
        clock.append(time.perf_counter())
        prefixes_BT = torch.ones_like(tokens_BT, dtype=torch.bool).index_fill(1, torch.tensor([0]), False)
        texts = complete(policy, tokens_BT, prefixes_BT, keys=keys, rollouts=options.rollouts)
        clock.append(time.perf_counter())
        names = ["write", "rollouts"]
        if options.score:
            mean_TB = score_logits(judge, texts.tokens_RT).sigmoid().view(-1, options.rows, options.rollouts).mean(2)
            whole_1B = score_logits(judge, tokens_BT).sigmoid()[None]
            clock.append(time.perf_counter())
            mask_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
            logp_BT = policy.log_prob(tokens_BT, mask_BT)
            policy_gradient_loss(logp_BT, torch.cat([mean_TB, whole_1B]).t(), mask_BT).backward()
            clock.append(time.perf_counter())
            names += ["scores", "gradient"]
        if repeat >= 0:
            parts = dict(zip(names, (after - before for before, after in itertools.pairwise(clock)), strict=True))
            for name, value in (parts | {"whole step": clock[-1] - clock[0]}).items():
                seconds.setdefault(name, []).append(value)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    sizes = f"B={options.rows} N={options.rollouts} T={options.max_length} V={options.vocab_size}"
    return [
        {
            "part": name,
            "sizes": f"{sizes} {options.hidden_size}/{options.hidden_size}",
            "seconds": statistics.median(values),
            "range": f"{min(values):.2f} - {max(values):.2f}",
            "peak MiB": round(peak),
            "threads": torch.get_num_threads(),
        }
        for name, values in seconds.items()
    ]


if __name__ == "__main__":
    main()
