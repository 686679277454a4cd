"""Two checkouts train alike: last checkpoints of small runs, every weight and optimizer moment, bit by bit.

For example ``python -m benchmarks.bit_equal ../before .``, or with ``--only seqgan`` for the runs whose name begins so.
Each checkout is asked in its own words: options that have another name since are given to either by the name it knows.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from safetensors import deserialize
from tyro.conf import Positional

from benchmarks.results import command
from textgan_env.utils.errors import require
from textgan_env.utils.options import RENAMED

#: Name of a run -> agent and options. All are of the toy task and the smoke preset, and take seconds.
RUNS = {
    "mle": "mle --epochs 3",
    "mle-sampling": "mle --epochs 3 --scheduled-sampling 0.2 --shards 2",
    "seqgan": "seqgan",
    "seqgan-shards": "seqgan --shards 2",
    "seqgan-bleu": "seqgan --discriminator bleu --rollouts 0",
    "seqgan-all": "seqgan --negatives replayed --rollout-lag 0.8 --ent-coef 0.1 --gamma 0.9 --mle-steps 2 --d-steps 2 "
    "--d-epochs 2",
    "leakgan": "leakgan",
    "leakgan-shards": "leakgan --shards 2",
    "leakgan-reference": "leakgan --variant reference --control shuffled --baseline none",
    "leakgan-patience": "leakgan --pretrain-rounds 4 --pretrain-patience 1 --pretrain-epochs 2 --mle-interval 1",
    "leakgan-conv": "leakgan --discriminator conv --d-embed-size 8",
    "ppo": "ppo",
    "a2c": "a2c",
    "dqn": "dqn",
}


@dataclass(frozen=True)
class Options:
    """Train the same small runs in two checkouts, and compare their last checkpoints."""

    before: Annotated[Path, Positional]
    """One checkout."""
    after: Annotated[Path, Positional]
    """The other."""
    only: str = ""
    """Only runs whose name begins with this."""


@command
def main(options: Options) -> None:
    """The command; exits with 1 where a run differs."""
    chosen = [name for name in RUNS if name.startswith(options.only)]
    require(bool(chosen), f"only must begin the name of a run ({', '.join(RUNS)}), found '{options.only}'")
    sys.exit(not all([_compare(name, options) for name in chosen]))


def _compare(name: str, options: Options) -> bool:
    """Train one run in both checkouts, and say what differs; whether nothing does."""
    with tempfile.TemporaryDirectory() as folder:
        before = _train(options.before, RUNS[name].split(), Path(folder) / "before")
        after = _train(options.after, RUNS[name].split(), Path(folder) / "after")
    different = [key for key in before.keys() & after.keys() if before[key] != after[key]]
    alone = sorted(before.keys() ^ after.keys())
    said = f"{name}: {len(before.keys() & after.keys()) - len(different)} of {len(before)} tensors equal"
    said += f"; different: {', '.join(sorted(different)[:5])}" if different else ""
    print(said + (f"; in one only: {', '.join(alone[:5])}" if alone else ""), flush=True)
    return not different and before.keys() <= after.keys()


def _train(checkout: Path, words: list[str], runs: Path) -> dict[str, dict[str, Any]]:
    """The tensors of the last checkpoint: name -> type, shape and bytes."""
    checkout = checkout.resolve()
    script = checkout / "agents" / f"{words[0]}.py"
    require(script.is_file(), f"'{checkout}' is no checkout of this project: it has no agents/{words[0]}.py")
    common = ["--task", "toy", "--preset", "smoke", "--threads", "1", "--runs", str(runs)]
    line = [sys.executable, str(script), *common, *_options_known_to(checkout, words[1:])]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=checkout, env=environment, capture_output=True, text=True)
    last = done.stderr.strip().rpartition("\n")[2]
    require(done.returncode == 0, f"{script.name} of '{checkout}' ended with code {done.returncode}: {last}")
    (path,) = runs.glob("*/checkpoints/last.safetensors")
    return dict(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]


def _options_known_to(checkout: Path, words: list[str]) -> Iterator[str]:
    """The words, with options by their old names where the checkout is from before they were renamed."""
    files = [*(checkout / "agents").glob("*.py"), *(checkout / "textgan_env").rglob("*.py")]
    code = "\n".join(path.read_text("utf-8") for path in files)
    old = {f"--{new.replace('_', '-')}": f"--{name.replace('_', '-')}" for name, new in RENAMED.items()}
    known = {new for new in RENAMED.values() if f"\n    {new}: " in code}
    yield from (word if word[2:].replace("-", "_") in known else old.get(word, word) for word in words)


if __name__ == "__main__":
    main()
