"""Why the plane of NLL-oracle and NLL-test can be gamed: one policy, and a mixture of two temperatures of it.

``python -m benchmarks.mixture --run runs/mle-tuned-s0`` measures both from a finished run on an oracle task. The
mixture has learnt nothing; see docs/benchmarks.md.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import command, show
from textgan_env.utils.errors import require

TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)


@dataclass(frozen=True)
class Options:
    """Measure a mixture of two temperatures beside the temperatures themselves."""

    run: Path
    """A finished run on an oracle task."""
    samples: int = 10_000
    """Texts a row."""
    seed: int = 0
    """Of these texts."""
    name: str = "mixture"
    """Of the result files."""


@command
def main(options: Options) -> None:
    """The command."""
    notes = (
        "One run at several temperatures, and mixtures of it that write a text at 0.4 with probability e, else at "
        f"1; {options.samples:,} texts a row, seed {options.seed}. Nats per token. gain: NLL-test of the "
        "temperatures at the same NLL-oracle (on the straight line between neighbours) less that of the mixture: "
        "what the mixture seems to have won."
    )
    show(options.name, measure(options), notes=notes)


def measure(options: Options) -> list[dict[str, Any]]:
    """A row a temperature, then a row a mixture.

    Raises:
        InputError: If the run is not one on an oracle task.
    """
    from benchmarks import measure as suite
    from textgan_env.policies import Decoding
    from textgan_env.runs.loading import load_policy

    policy, task = load_policy(options.run)
    require(task.oracle is not None, f"run '{options.run}' is on task '{task.name}', which has no oracle")
    policies = {f"temperature {at:g}": policy.with_decoding(Decoding(at)) for at in TEMPERATURES}
    policies |= {f"mixture {variant}": mixed for variant, mixed in suite.mixture(task, [policy]).items()}
    sizes = suite.Sizes(options.samples, options.samples, bleu=0, read=0)
    rows: list[dict[str, Any]] = []
    for name, one in policies.items():
        print(f"measuring {name} ...", flush=True)
        values = suite.point(one, task, sizes, options.seed)
        columns = ("nll_oracle", "nll_test", "nll_self", "cover", "fit", "adjacent_repeats", "unique")
        rows.append({"policy": name, **{column: values.get(column) for column in columns}})
    # The straight line between neighbouring temperatures, which rises with NLL-oracle.
    xs, ys = zip(*sorted((row["nll_oracle"], row["nll_test"]) for row in rows[: len(TEMPERATURES)]), strict=True)
    for row in rows[len(TEMPERATURES) :]:
        at_same = np.interp(row["nll_oracle"], xs, ys, left=np.nan, right=np.nan)
        row["gain"] = None if np.isnan(at_same) else float(at_same) - row["nll_test"]
    return rows


if __name__ == "__main__":
    main()
