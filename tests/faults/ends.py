"""Ask heavy runs to end at random moments, and measure how long they take to.

    python tests/faults/ends.py --signals 20

The agents train with their published sizes, in short phases so that the moments fall into all of them: maximum
likelihood, d-steps with the large CNN, g-steps that take many seconds. Each process is asked by SIGTERM or SIGINT; it
must end with that signal's exit code and the sentence that says how to go on, and leave a checkpoint that can be read.
The next process goes on with the run.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

# What differs from --preset paper is only how long each phase is.
SHORT = {
    "seqgan": "--mle-epochs 1 --d-pretraining 1 --d-steps 1 --d-epochs 1 --rounds 1000",
    "leakgan": "--pretrain-rounds 1 --pretrain-d-steps 1 --pretrain-epochs 1 --d-steps 1 --d-epochs 1 --rounds 1000",
}


def ask(process: "subprocess.Popen[str]", number: signal.Signals) -> float:
    """Send a signal; the seconds until the process is gone."""
    began = time.monotonic()
    process.send_signal(number)
    process.wait()
    return time.monotonic() - began


def end_once(agent: str, folder: Path, number: signal.Signals, after: float) -> tuple[float, str]:
    """Start or go on with the run of an agent, and ask it to end some seconds after it began to train.

    Returns:
        How many seconds it took, and what it was doing.

    Raises:
        SystemExit: If it did not end as it should.
    """
    from textgan_env.runs.checkpoints import load_checkpoint

    runs = folder / agent
    made = next(iter(sorted(runs.glob("*/config.json"))), None)
    begin = ["--preset", "paper", "--task", "oracle", *SHORT[agent].split(), "--runs", str(runs), "--threads", "1"]
    words = begin if made is None else ["--resume", str(made.parent), "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "agents" / f"{agent}.py"), *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PROJECT,
    )  # fmt: skip
    while process.poll() is None and not list(runs.glob("*/config.json")):
        time.sleep(0.05)
    time.sleep(after)
    seconds = ask(process, number)
    said = process.stdout.read() if process.stdout else ""
    if process.returncode != 128 + number or "to go on: " not in said:
        raise SystemExit(f"{agent} ended with {process.returncode} after {number.name}: {said[-2000:]}")
    made = next(iter(sorted(runs.glob("*/config.json")))).parent
    state = load_checkpoint(made / "checkpoints" / "last.safetensors").document["state"]
    return seconds, f"{agent} with {state['done']} rounds and {state['steps']} steps done"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=40.0, help="seconds until the signal, at most")
    options = parser.parse_args()
    dice = random.Random(options.seed)
    # In the background of a script Ctrl-C is ignored, which processes hand on to those that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    took = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.signals):
            agent, number = list(SHORT)[turn % 2], (signal.SIGTERM, signal.SIGINT)[turn // 2 % 2]
            seconds, where = end_once(agent, Path(folder), number, dice.uniform(1, options.longest))
            took.append(seconds)
            print(f"{number.name}: {seconds:.2f} s, {where}", flush=True)
    print(f"{len(took)} signals, {max(took):.2f} s at most")


if __name__ == "__main__":
    main()
