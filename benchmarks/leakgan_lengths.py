"""How long LeakGAN's texts become over g-steps, by what the decision to end a text learns from, and under which reward.

For example ``python -m benchmarks.leakgan_lengths --corpus captions.txt --lines 2500 --seeds 0 1 2``. Without a corpus
the texts are short made sentences of many lengths. The arms of a seed begin with one pre-trained run. Rows that were
measured before with these settings are kept in the folder of the runs, so the command resumes where it was stopped.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agents.leakgan import LeakGAN, LeakGANConfig, fast
from benchmarks.code import short_hash
from benchmarks.results import command, show
from textgan_env.utils.files import write_safely

if TYPE_CHECKING:
    from textgan_env.tasks import Task


@dataclass(frozen=True)
class Options:
    """Train LeakGAN from one start by several rules and rewards, and measure lengths and NLL-test on the way."""

    corpus: Path | None = None
    """A file of texts; None: made sentences."""
    lines: int = 3000
    """How many texts of it, from the first on."""
    max_length: int = 24
    """T."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One pre-trained run each."""
    end_rewards: tuple[Literal["none", "intrinsic", "q"], ...] = ("intrinsic", "none", "q")
    """Rules for the decision to end a text, see agents/leakgan.py."""
    rewards: tuple[Literal["real", "shuffled", "random"], ...] = ("real", "shuffled", "random")
    """What the Manager learns from: Q, or a control."""
    learning_rate: float = 1e-4
    """Of Manager and Worker in g-steps."""
    hidden_size: int = 64
    """Width of embedding and LSTMs."""
    rounds: int = 4
    """Adversarial rounds, each followed by a measurement."""
    g_steps: int = 10
    """g-steps in a round."""
    mle_interval: int = 2
    """Rounds between two epochs of maximum likelihood; 0: no such epochs."""
    pretrain_rounds: int = 10
    """Rounds of pre-training."""
    samples: int = 1000
    """Texts generated to measure their length."""
    runs: Path = Path("runs/leakgan_lengths")
    """Where pre-trained runs and finished rows are kept."""
    name: str = "leakgan_lengths"
    """Of the result files."""


@command
def main(options: Options) -> None:
    """The command."""
    rows = list(measure(options))
    notes = (
        "LeakGAN fast, from one pre-trained run a seed. end: what the decision to end a text learns from in g-steps "
        "(--end-reward). length: mean of generated texts, end token included; at T: share that did not end by itself. "
        f"{options.samples:,} texts a row; the seed's test texts are {rows[0]['length_real']:.1f} tokens long."
    )
    show(options.name, rows, notes=notes)


def measure(options: Options) -> Iterator[dict[str, Any]]:
    """A row for each seed, rule, reward and number of g-steps; finished arms are read, not trained again."""
    from textgan_env.tasks import make_task

    varied = {"seeds", "end_rewards", "rewards", "runs", "name"}
    settings = {name: str(value) for name, value in asdict(options).items() if name not in varied}
    options = replace(options, runs=options.runs / short_hash(json.dumps(settings)))
    options.runs.mkdir(parents=True, exist_ok=True)
    task = make_task("corpus", path=str(text_file(options)), max_length=options.max_length)
    for seed, end, reward in product(options.seeds, options.end_rewards, options.rewards):
        kept = options.runs / f"{end}-{reward}-s{seed}.json"
        if not kept.exists():
            config = replace(
                config_of(options, seed), pretrained=pretrained(options, seed), rounds=options.rounds, end_reward=end,
                control=None if reward == "real" else reward,
            )  # fmt: skip
            found = [{"seed": seed, "end": end, "reward": reward, **row} for row in arm(config, task, options.samples)]
            write_safely(kept, json.dumps(found))
        yield from json.loads(kept.read_text())


def config_of(options: Options, seed: int) -> LeakGANConfig:
    """What all arms of a seed share."""
    return replace(
        fast("corpus"), seed=seed, corpus=str(text_file(options)), max_length=options.max_length, device="cpu",
        embed_size=options.hidden_size, hidden_size=options.hidden_size, learning_rate=options.learning_rate,
        g_steps=options.g_steps, mle_interval=options.mle_interval, pretrain_rounds=options.pretrain_rounds,
        threads=1, show_samples=0, runs=options.runs,
    )  # fmt: skip


def text_file(options: Options) -> Path:
    """The file of texts; it is written where it is not there."""
    path = options.runs / "texts.txt"
    if not path.exists():
        lines = made_sentences(options.lines)
        if options.corpus is not None:
            lines = options.corpus.read_text("utf-8").splitlines()[: options.lines]
        write_safely(path, "\n".join(lines) + "\n")
    return path


def made_sentences(count: int) -> list[str]:
    """Sentences of 3 to about 20 words: a subject, a verb, and as many places as chance will have."""
    drawn = random.Random(0)
    adjectives = ["big", "small", "red", "old", "young", "wet", "happy", "brown"]
    subjects = ["dog", "cat", "man", "woman", "child", "horse", "bird", "boy", "girl", "bear"]
    verbs = ["sits", "stands", "runs", "eats", "sleeps", "plays", "looks", "rides"]
    places = ["table", "street", "park", "field", "room", "hill"]
    prepositions = ["on", "in", "near", "under", "behind", "with"]

    def article() -> list[str]:
        """The words before a noun."""
        return ["a", *([drawn.choice(adjectives)] if drawn.random() < 0.6 else [])]

    sentences = []
    for _ in range(count):
        words = [*article(), drawn.choice(subjects), drawn.choice(verbs)]
        while drawn.random() < 0.62 and len(words) < 20:
            words += [drawn.choice(prepositions), *article(), drawn.choice(places)]
        sentences.append(" ".join(words))
    return sentences


def pretrained(options: Options, seed: int) -> Path:
    """The pre-trained run of a seed; it is trained where it is not there."""
    from textgan_env.training.launch import launch

    runs = options.runs / f"start-s{seed}"
    if not list(runs.glob("*/evaluation.json")):
        launch(replace(config_of(options, seed), rounds=0, runs=runs), LeakGAN)
    return next(runs.glob("*/evaluation.json")).parent


def arm(config: LeakGANConfig, task: "Task", samples: int) -> Iterator[dict[str, Any]]:
    """Train one arm; a row before the first g-step, and one after each round."""
    agent = LeakGAN(config, task)
    yield lengths(agent, samples) | {"g_steps": 0}
    for round_ in agent.schedule().after(0):
        numbers: dict[str, float] = {}
        for steps, step in round_.steps(config.seed):
            numbers |= {name: float(value) for name, value in steps.run(step).items()}
        shown = {name: numbers[name] for name in ("manager_cosine", "intrinsic_reward", "d_auc") if name in numbers}
        row = lengths(agent, samples) | {"g_steps": round_.number * config.g_steps} | shown
        print(config.seed, config.end_reward, config.control, row, flush=True)
        yield row


def lengths(agent: LeakGAN, samples: int) -> dict[str, float]:
    """How long generated texts are, and what the policy makes of real ones."""
    from benchmarks.measure import written
    from textgan_env.evaluation import nll
    from textgan_env.ops.sampling import derived_seed

    task, real_BT = agent.task, agent.task.split("test").tokens_BT
    agent.policy.eval()
    texts = written(agent.policy, task, samples, derived_seed(agent.config.seed, "lengths"))
    ended_B = texts.tokens_BT.eq(task.end_token).any(1)  # type: ignore[arg-type]  # texts of a corpus end by a token
    return {
        "length": float(texts.lengths_B.float().mean()),
        "length_real": float((real_BT != task.vocab_size).sum(1).float().mean()),
        "at_T": 1 - float(ended_B.float().mean()),
        "nll_test": nll(agent.policy, real_BT, task.scored(real_BT))[0],
    }


if __name__ == "__main__":
    main()
