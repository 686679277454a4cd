"""How fast the pieces are, each beside a plain version of the published algorithm in the same run.

``python -m benchmarks.throughput`` takes SeqGAN's published sizes and times every piece; ours and the plain one
(benchmarks/reference.py) take turns, so their ratio holds on a machine that is busy with other things, too. Also:

  --works rollouts --max-length 51 --vocab-size 30000 --no-plain   what one piece takes, memory included
  --grow                                                           how the cost grows with B, N, T and V, ours alone
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from textgan_env.utils.errors import friendly_errors, require

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

Run = Callable[[int], object]

# What grows, together, and the values it takes.
GROWTH = {
    ("rows",): (16, 32, 64, 128),
    ("rollouts", "leakgan_rollouts"): (2, 4, 8, 16),
    ("max_length",): (10, 20, 40),
    ("vocab_size",): (500, 1500, 5000, 15000),
}
LETTERS = {"rows": "B", "rollouts": "N", "max_length": "T", "vocab_size": "V"}


@dataclass(frozen=True)
class Sizes:
    """How large the pieces are."""

    rows: int = 64
    """B, also the texts of a step of D (half real, half written) and of maximum likelihood."""
    rollouts: int = 16
    """N of SeqGAN's generator step."""
    leakgan_rollouts: int = 4
    """N of LeakGAN's step, which takes Q after every c-th token."""
    max_length: int = 20
    """T."""
    vocab_size: int = 5000
    """V."""
    hidden_size: int = 32
    """Of embedding and LSTM."""
    samples: int = 10_000
    """Texts that are written in one go."""
    envs: int = 1024
    """Environments side by side where their steps are counted."""
    device: str = "cpu"
    """cpu, cuda ..."""


@dataclass(frozen=True)
class Options(Sizes):
    """Time the pieces of adversarial training."""

    works: tuple[str, ...] = ()
    """Which pieces; none: all."""
    repeats: int = 5
    """Turns that are timed, after one that is not."""
    plain: bool = True
    """Time the plain version, too."""
    grow: bool = False
    """Change B, N, T and V one at a time instead, ours alone."""
    threads: int | None = None
    """CPU threads [torch's choice]."""
    name: str = "throughput"
    """Of the result files, and of the picture in docs/images."""


@dataclass(frozen=True)
class Work:
    """One piece, ours and plain; both take the number of the turn, from which their draws follow.

    Attributes:
        ours: Does it our way.
        plain: Does it plainly, or None.
        count: How much ours deals with, in ``unit``.
        unit: For example "texts".
        sizes: Those that matter.
        plain_count: How much the plain one deals with, where that is less; the ratio is one of speeds.
    """

    ours: Run
    plain: Run | None
    count: int
    unit: str
    sizes: str
    plain_count: int | None = None


def _names(sizes: Sizes, *letters: str) -> str:
    values = {letter: getattr(sizes, name) for name, letter in LETTERS.items()}
    size = sizes.hidden_size
    return " ".join([*(f"{letter}={values[letter]}" for letter in letters), f"{size}/{size}"])


def _generator(sizes: Sizes) -> Any:
    from textgan_env.policies import LSTMPolicy

    size = sizes.hidden_size
    # Weights as wide as the oracle's, so that texts differ as much as texts do.
    policy = LSTMPolicy(sizes.vocab_size, start_token=0, embed_size=size, hidden_size=size, init_scale=1.0)
    return policy.to(sizes.device)


def _judge(sizes: Sizes) -> Any:
    from textgan_env.discriminators import make_discriminator

    return make_discriminator("conv", vocab_size=sizes.vocab_size, max_length=sizes.max_length).to(sizes.device)


def _draws(sizes: Sizes, turn: int) -> "torch.Generator":
    import torch

    return torch.Generator(sizes.device).manual_seed(turn)


def generator_step(sizes: Sizes) -> Work:
    """SeqGAN's g-step: write B texts, complete every prefix N times, score with the CNN, REINFORCE."""
    import torch
    from torch.optim import Adam

    from benchmarks.reference import PlainDiscriminator, PlainGenerator, plain_generator_step
    from textgan_env.ops.losses import policy_gradient_loss
    from textgan_env.rewards import Keys, RolloutCredit, Texts, generate

    policy, judge = _generator(sizes), _judge(sizes).eval()
    slow, slow_judge = PlainGenerator(policy), PlainDiscriminator(judge).eval()
    optimizer, slow_optimizer = Adam(policy.parameters(), lr=1e-4), Adam(slow.parameters(), lr=1e-4)
    source = RolloutCredit(policy, judge, rollouts=sizes.rollouts)

    def ours(turn: int) -> None:
        keys = Keys.counted(turn, sizes.rows, device=policy.device)
        tokens_BT, lengths_B = generate(policy, keys, sizes.max_length)
        texts = Texts(tokens_BT, lengths_B, torch.ones_like(lengths_B, dtype=torch.bool), keys, None)
        credit_BT = source.credit(texts, texts.mask_BT)
        loss = policy_gradient_loss(policy.log_prob(tokens_BT, texts.mask_BT), credit_BT, texts.mask_BT)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 5.0)
        optimizer.step()

    def plain(turn: int) -> None:
        plain_generator_step(
            slow,
            slow_judge,
            slow_optimizer,
            rows=sizes.rows,
            max_length=sizes.max_length,
            rollouts=sizes.rollouts,
            draws=_draws(sizes, turn),
        )

    return Work(ours, plain, sizes.rows, "texts", f"{_names(sizes, 'B', 'N', 'T', 'V')} F={judge.feature_size}")


def rollouts(sizes: Sizes) -> Work:
    """The completions of a g-step alone."""
    import torch

    from benchmarks.reference import PlainGenerator
    from textgan_env.rewards import Keys, complete, generate

    policy = _generator(sizes)
    slow = PlainGenerator(policy)
    keys = Keys.counted(0, sizes.rows, device=policy.device)
    tokens_BT, _ = generate(policy, keys, sizes.max_length)
    wanted_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
    wanted_BT[:, 0] = False

    def ours(turn: int) -> None:
        keys = Keys.counted(turn, sizes.rows, device=policy.device)
        complete(policy, tokens_BT, wanted_BT, keys=keys, rollouts=sizes.rollouts)

    def plain(turn: int) -> None:
        draws = _draws(sizes, turn)
        for _ in range(sizes.rollouts):
            for length in range(1, sizes.max_length):
                slow.write(tokens_BT[:, :length], sizes.max_length, draws)

    completions = sizes.rows * sizes.rollouts * (sizes.max_length - 1)
    return Work(ours, plain, completions, "completions", _names(sizes, "B", "N", "T", "V"))


def draws(sizes: Sizes) -> Work:
    """Draw one token a row from given logits, a hundred times: two-level inversion against `torch.multinomial`."""
    import torch

    from textgan_env.ops.sampling import sample_categorical

    times = 100
    logits_BV = torch.randn(sizes.rows, sizes.vocab_size, generator=_draws(sizes, 0), device=sizes.device)

    def ours(turn: int) -> None:
        uniform_NB = torch.rand(
            times, sizes.rows, generator=_draws(sizes, turn), dtype=torch.float64, device=sizes.device
        )
        for uniform_B in uniform_NB:
            sample_categorical(logits_BV, uniform_B)

    def plain(turn: int) -> None:
        generator = _draws(sizes, turn)
        for _ in range(times):
            torch.multinomial(logits_BV.softmax(1), 1, generator=generator)

    return Work(ours, plain, times * sizes.rows, "tokens", _names(sizes, "B", "V"))


def scores(sizes: Sizes) -> Work:
    """Score the N completions of one prefix of every row by the CNN, without gradients."""
    import torch

    from benchmarks.reference import PlainDiscriminator
    from textgan_env.discriminators import score_logits

    judge = _judge(sizes).eval()
    slow = PlainDiscriminator(judge).eval()
    shape = (sizes.rows * sizes.rollouts, sizes.max_length)
    tokens_RT = torch.randint(sizes.vocab_size, shape, generator=_draws(sizes, 0), device=sizes.device)

    def plain(_: int) -> None:
        with torch.no_grad():
            for tokens_BT in tokens_RT.split(sizes.rows):
                slow(tokens_BT)

    def ours(_: int) -> None:
        score_logits(judge, tokens_RT)

    return Work(ours, plain, len(tokens_RT), "texts", f"{_names(sizes, 'B', 'N', 'T')} F={judge.feature_size}")


def sampling(sizes: Sizes) -> Work:
    """Write many texts."""
    import torch

    from benchmarks.reference import PlainGenerator
    from textgan_env.rewards import Keys, generate

    policy = _generator(sizes)
    slow = PlainGenerator(policy)

    def ours(turn: int) -> None:
        generate(policy, Keys.counted(turn, sizes.samples, device=policy.device), sizes.max_length)

    def plain(turn: int) -> None:
        draws = _draws(sizes, turn)
        for start in range(0, sizes.samples, sizes.rows):
            rows = min(sizes.rows, sizes.samples - start)
            slow.write(torch.empty(rows, 0, dtype=torch.int64, device=sizes.device), sizes.max_length, draws)

    return Work(ours, plain, sizes.samples, "texts", _names(sizes, "T", "V"))


def d_step(sizes: Sizes) -> Work:
    """One step of the CNN on B texts, half of them real."""
    import torch

    from benchmarks.reference import PlainDiscriminator, plain_d_step
    from textgan_env.discriminators import fit_discriminator
    from textgan_env.ops.sampling import seeded

    judge = _judge(sizes)
    slow = PlainDiscriminator(judge).train()
    optimizer, slow_optimizer = judge.make_optimizer(), torch.optim.Adam(slow.parameters(), lr=1e-4)
    shape = (2, max(1, sizes.rows // 2), sizes.max_length)
    real_BT, fake_BT = torch.randint(sizes.vocab_size, shape, generator=_draws(sizes, 0), device=sizes.device)
    tokens_BT = torch.cat([real_BT, fake_BT])
    real_is_one_B = torch.tensor([1.0, 0.0], device=sizes.device).repeat_interleave(len(real_BT))

    def ours(turn: int) -> None:
        generator = torch.Generator().manual_seed(turn)
        fit_discriminator(judge, optimizer, real_BT, fake_BT, steps=1, batch_size=len(real_BT), generator=generator)

    def plain(turn: int) -> None:
        with seeded(turn):
            plain_d_step(slow, slow_optimizer, tokens_BT, real_is_one_B)

    return Work(ours, plain, len(tokens_BT), "texts", f"{_names(sizes, 'B', 'T', 'V')} F={judge.feature_size}")


def mle_step(sizes: Sizes) -> Work:
    """One step of maximum likelihood on B texts."""
    import torch
    from torch.optim import Adam

    from benchmarks.reference import PlainGenerator, plain_mle_step
    from textgan_env.ops.losses import nll_per_token

    policy = _generator(sizes)
    slow = PlainGenerator(policy)
    optimizer, slow_optimizer = Adam(policy.parameters(), lr=1e-2), Adam(slow.parameters(), lr=1e-2)
    shape = (sizes.rows, sizes.max_length)
    tokens_BT = torch.randint(sizes.vocab_size, shape, generator=_draws(sizes, 0), device=sizes.device)
    mask_BT = torch.ones_like(tokens_BT, dtype=torch.bool)

    def ours(_: int) -> None:
        loss = nll_per_token(policy.log_prob(tokens_BT, mask_BT), mask_BT)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 5.0)
        optimizer.step()

    return Work(
        ours,
        lambda _: plain_mle_step(slow, slow_optimizer, tokens_BT),
        sizes.rows,
        "texts",
        _names(sizes, "B", "T", "V"),
    )


def leakgan_step(sizes: Sizes) -> Work:
    """LeakGAN's g-step with the CNN's features: write B texts, Q after every c-th token, losses and their steps."""
    import torch
    from torch.optim import Adam

    from agents.leakgan import LeakGAN, LeakGANConfig
    from benchmarks.reference import PlainLeakGAN, plain_leakgan_step
    from textgan_env.tasks import OracleTask

    length, size = sizes.max_length, sizes.hidden_size
    task = OracleTask(max_length=length, vocab_size=sizes.vocab_size, train_size=1, valid_size=1, test_size=1)
    config = LeakGANConfig(
        embed_size=size,
        hidden_size=size,
        dropout=0.0,
        discriminator="conv",
        batch_size=sizes.rows,
        rollouts=sizes.leakgan_rollouts,
        device=sizes.device,
    )
    agent = LeakGAN(config, task)
    # Every c-th token, as where TextGAN-PyTorch was timed: the offset that a g-step draws is always the first.
    positions = list(range(config.goal_steps - 1, length, config.q_interval))
    slow = PlainLeakGAN(agent.policy)
    optimizers = tuple(Adam(part.parameters(), lr=1.5e-3) for part in (slow.manager, slow.worker))

    def ours(turn: int) -> None:
        agent.policy.eval()
        agent.envs.reset(seed=turn)
        batch = agent.envs.collect(agent.writer, positions)
        share_of, _ = agent.objectives(batch, positions)
        for optimizer in (agent.manager_optimizer, agent.worker_optimizer):
            optimizer.zero_grad()
        share_of(slice(0, sizes.rows))[0].backward()
        agent.step(agent.manager_optimizer)
        agent.step(agent.worker_optimizer)

    def plain(turn: int) -> None:
        draws = torch.Generator(sizes.device).manual_seed(turn)
        plain_leakgan_step(slow, optimizers, rows=sizes.rows, rollouts=sizes.leakgan_rollouts, draws=draws)

    named = _names(replace(sizes, rollouts=sizes.leakgan_rollouts), "B", "N", "T", "V")
    return Work(ours, plain, sizes.rows, "texts", f"{named} c={config.goal_steps} F={agent.policy.feature_size}")


def env_steps(sizes: Sizes) -> Work:
    """Tokens through the environment: random actions, constant terminal reward. Plain: 16 in a SyncVectorEnv."""
    import gymnasium as gym
    import numpy as np

    import textgan_env  # noqa: F401  registers the ids

    options: dict[str, Any] = {"max_length": sizes.max_length, "reward": "terminal", "control": "constant"}
    few, turns = min(16, sizes.envs), 2 * sizes.max_length
    batched = gym.make_vec("TextGAN-v0", num_envs=sizes.envs, vectorization_mode="vector_entry_point", **options)
    single = gym.make_vec("TextGAN-v0", num_envs=few, vectorization_mode="sync", **options)
    actions_TB = np.random.default_rng(0).integers(5000, size=(turns, sizes.envs))
    for envs in (batched, single):
        envs.reset(seed=0)

    def ours(_: int) -> None:
        for actions_B in actions_TB:
            batched.step(actions_B)

    def plain(_: int) -> None:
        for actions_B in actions_TB:
            single.step(actions_B[:few])

    named = f"{sizes.envs} envs T={sizes.max_length}"
    return Work(ours, plain, turns * sizes.envs, "tokens", named, plain_count=turns * few)


def bleu(sizes: Sizes) -> Work:
    """BLEU-2 to 5 and Self-BLEU-2 to 5 of 2,000 texts, 10,000 references. Plain: nltk's BLEU-5 of two texts."""
    import numpy as np
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    from textgan_env.ops import metrics

    # Words as frequent as words are (Zipf), in texts of about eleven.
    draws = np.random.default_rng(0)
    share_V = 1 / np.arange(1, sizes.vocab_size + 1)
    share_V /= share_V.sum()
    texts = [draws.choice(sizes.vocab_size, size, p=share_V).tolist() for size in draws.integers(8, 15, size=12_000)]
    hypotheses, references = texts[:2000], texts[2000:]
    smooth = SmoothingFunction().method1

    def ours(_: int) -> None:
        metrics.bleu(hypotheses, references)
        metrics.self_bleu(hypotheses)

    def plain(_: int) -> None:
        for text in hypotheses[:2]:
            sentence_bleu(references, text, [0.2] * 5, smoothing_function=smooth)

    return Work(ours, plain, 2000, "texts", "2,000 texts, 10,000 references", plain_count=2)


WORKS: dict[str, Callable[[Sizes], Work]] = {
    "generator step": generator_step,
    "rollouts": rollouts,
    "draws": draws,
    "scores": scores,
    "sampling": sampling,
    "D step": d_step,
    "MLE step": mle_step,
    "LeakGAN step": leakgan_step,
    "env steps": env_steps,
    "BLEU": bleu,
}


def main(args: list[str] | None = None) -> None:
    """The command."""
    import tyro

    with friendly_errors():
        options = tyro.cli(Options, description=__doc__, args=args, config=(tyro.conf.FlagCreatePairsOff,))
        works = _chosen(options)
        from benchmarks.results import save, save_picture, table

        with _threads(options.threads):
            rows = grow(options, works) if options.grow else measure(options, works)
            notes = (
                "Seconds of wall clock, median of the turns (lowest - highest); the ratio is the median, over turns, "
                "of plain seconds by ours, for the same amount of work; peak resident memory of the process so far."
            )
            print(table(rows))
            print(save(options.name, rows, module="benchmarks.throughput", notes=notes, device=options.device))
            print(save_picture(_growth_figure(rows) if options.grow else _ratio_figure(rows), options.name))


def _chosen(options: Options) -> list[str]:
    """The pieces that are asked for.

    Raises:
        InputError: If one does not exist, or a number is too small.
    """
    unknown = [name for name in options.works if name not in WORKS]
    require(not unknown, f"unknown work '{next(iter(unknown), '')}', expected some of: {', '.join(WORKS)}")
    require(options.repeats >= 1, f"repeats must be at least 1, found {options.repeats}")
    for name in ("rows", "rollouts", "leakgan_rollouts", "max_length", "vocab_size", "hidden_size", "samples", "envs"):
        require(getattr(options, name) >= 1, f"{name} must be at least 1, found {getattr(options, name)}")
    return list(options.works or WORKS)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """With so many threads of torch; their number is given back."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(options: Options, works: list[str]) -> list[dict[str, Any]]:
    """A row a piece."""
    return [_row(name, WORKS[name](options), options) for name in works]


def grow(options: Options, works: list[str]) -> list[dict[str, Any]]:
    """A row for each piece and each value that B, N, T and V take in turn, where it has such; ours alone."""
    rows = []
    for name in works:
        for what, values in GROWTH.items():
            for value in values:
                options_then = replace(options, **dict.fromkeys(what, value), plain=False)
                work, letter = WORKS[name](options_then), LETTERS[what[0]]
                if f"{letter}={value} " in f"{work.sizes} ":
                    rows.append({"changed": letter, "value": value} | _row(name, work, options_then))
    return rows


def _row(name: str, work: Work, options: Options) -> dict[str, Any]:
    """Time a piece: ours and the plain one in turn."""
    import torch

    from benchmarks.results import peak_memory_mb

    print(f"timing {name} ...", file=sys.stderr, flush=True)
    sides = {"ours": work.ours} | ({"plain": work.plain} if options.plain and work.plain is not None else {})
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(-1, options.repeats):
        for side, run in sides.items():
            started = time.perf_counter()
            run(turn + 1)
            if torch.device(options.device).type == "cuda":
                torch.cuda.synchronize(options.device)
            if turn >= 0:
                seconds[side].append(time.perf_counter() - started)
    peak = peak_memory_mb()
    middle = statistics.median(seconds["ours"])
    row: dict[str, Any] = {
        "work": name,
        "sizes": work.sizes,
        "seconds": middle,
        "range": f"{min(seconds['ours']):.3f} - {max(seconds['ours']):.3f}",
        "a second": f"{work.count / middle:,.0f} {work.unit}",
    }
    if "plain" in sides:
        share = (work.plain_count or work.count) / work.count
        ratios = [slow / share / fast for fast, slow in zip(seconds["ours"], seconds["plain"], strict=True)]
        row |= {"plain seconds": statistics.median(seconds["plain"]) / share, "ratio": statistics.median(ratios)}
        row["ratios"] = f"{min(ratios):.1f} - {max(ratios):.1f}"
    return row | {"peak MiB": None if peak is None else round(peak), "threads": torch.get_num_threads()}


def _ratio_figure(rows: list[dict[str, Any]]) -> "Figure":
    """A bar a piece, ours and plain, on a logarithmic scale."""
    from textgan_env.ops.plots import new_figure, plain_axes

    figure = new_figure(8, 0.9 + 0.55 * len(rows))
    axes = figure.subplots()
    places = range(len(rows))
    for shift, key, label in ((-0.2, "seconds", "ours"), (0.2, "plain seconds", "plain")):
        values = [row.get(key) for row in rows]
        known = [(place + shift, value) for place, value in zip(places, values, strict=True) if value is not None]
        if known:
            axes.barh(*zip(*known, strict=True), height=0.38, label=label)
    for place, row in zip(places, rows, strict=True):
        if "ratio" in row:
            axes.annotate(
                f"{row['ratio']:.1f} times",
                (max(row["seconds"], row["plain seconds"]), place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
    axes.set(xscale="log", xlabel="seconds", yticks=list(places), yticklabels=[row["work"] for row in rows])
    axes.margins(x=0.2)
    axes.invert_yaxis()
    plain_axes(axes)
    axes.legend(frameon=False)
    return figure


def _growth_figure(rows: list[dict[str, Any]]) -> "Figure":
    """A panel for each of B, N, T and V, a line a piece."""
    from textgan_env.ops.plots import new_figure, plain_axes

    figure = new_figure(10, 3.6)
    names = list(dict.fromkeys(row["work"] for row in rows))
    letters = list(dict.fromkeys(row["changed"] for row in rows))
    panels = figure.subplots(1, len(letters), sharey=True, squeeze=False)[0]
    for axes, letter in zip(panels, letters, strict=True):
        for color, name in enumerate(names):
            line = [(row["value"], row["seconds"]) for row in rows if row["changed"] == letter and row["work"] == name]
            axes.plot(*(zip(*line, strict=True) if line else ((), ())), marker="o", color=f"C{color}", label=name)
        ticks = sorted({row["value"] for row in rows if row["changed"] == letter})
        axes.set(xscale="log", yscale="log", xlabel=letter)
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
        plain_axes(axes)
    panels[0].set_ylabel("seconds")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(names), frameon=False)
    return figure


if __name__ == "__main__":
    main()
