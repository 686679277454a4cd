"""REINFORCE against the policy gradient over all actions, ScratchGAN's ``--all-actions``: noise, and seconds to a fit.

``python -m benchmarks.all_actions``. G begins as a brief maximum likelihood on a small oracle. First neither G nor D
changes, and the gradients of many batches are compared, under the true log p / q and under a D that has learnt. Then G
learns against the true log p / q of where it is, with both gradients and several learning rates each.
"""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from benchmarks.results import command, show
from textgan_env.utils.errors import require

if TYPE_CHECKING:
    from torch import Tensor

    from agents.scratchgan import ScratchGAN
    from textgan_env.tasks import OracleTask

#: Whether the next token is paid by its expectation -> how a table calls it.
ARMS = {False: "REINFORCE", True: "all actions"}


@dataclass(frozen=True)
class Options:
    """Compare two policy gradients."""

    vocab_size: int = 50
    """V."""
    max_length: int = 10
    """T."""
    rows: int = 64
    """B, texts of a g-step."""
    gammas: tuple[float, ...] = (0.23,)
    """Discounts at which noise is measured; G learns at ScratchGAN's."""
    epochs: int = 4
    """Of maximum likelihood before, on 2,000 texts."""
    d_epochs: int = 8
    """Epochs of D, where it has learnt."""
    batches: int = 16
    """Batches whose gradients are compared."""
    signal_batches: int = 32
    """Further batches of all actions, for the expected gradient."""
    rates: tuple[float, ...] = (6e-3, 2e-2, 5e-2)
    """Learning rates of G."""
    steps: int = 60
    """g-steps."""
    every: int = 5
    """g-steps from one look at the fit to the next."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of texts, weights and draws of the learning; the oracle is one."""
    target: float = 0.85
    """Fit that the seconds are taken to, nats per token."""
    name: str = "all_actions"
    """Of the result files; those of the noise end in _noise."""


@command
def main(options: Options) -> None:
    """The command."""
    import torch

    require(min(options.batches, options.signal_batches) >= 3, "--batches and --signal-batches must be at least 3")
    torch.set_num_threads(1)
    about = (
        f"An oracle of V={options.vocab_size}, T={options.max_length}; G: LSTM 32/32 after {options.epochs} epochs of "
        f"maximum likelihood on 2,000 texts; B={options.rows}; leave-one-out baseline; one thread. "
    )
    noise = (
        "seconds: of the processor, for texts, rewards and gradient, median. variance: of a batch's gradient, summed "
        "over the weights. signal: squared norm of the expected gradient, the same of both, with its standard error. "
        "snr: signal by variance. per second: snr by seconds, in units of REINFORCE. D has learnt: an LSTM, "
        f"{options.d_epochs} epochs on the same texts. One G, one D."
    )
    show(f"{options.name}_noise", list(noise_rows(options)), notes=about + noise)
    learning = (
        f"D is the true log p / q of each step, gamma .23, {options.steps} g-steps, {len(options.seeds)} seeds. "
        f"steps, seconds to target: g-steps, and seconds of the processor for them, until the fit (KL(q||p), 2,000 "
        f"texts, looked at every {options.every} g-steps) is first at most {options.target:g}; mean and range over the "
        "seeds that reached it. "
        "fit, cover: at the end, mean over seeds; fit of equal time: after as many seconds as REINFORCE of that rate "
        "took for all its g-steps."
    )
    show(options.name, list(learning_rows(options)), notes=about + learning)


def agent_of(options: Options, task: "OracleTask", seed: int, **changes: Any) -> "ScratchGAN":
    """ScratchGAN without dropout and averages, so that both gradients have the same expectation."""
    from agents import scratchgan

    plain: dict[str, Any] = {"dropout": 0.0, "ema_decay": 0.0, "d_batches": 0, "baseline": "leave-one-out"}
    config = replace(scratchgan.fast("oracle"), seed=seed, batch_size=options.rows, **plain, **changes)
    return scratchgan.ScratchGAN(config, task)


def begun(options: Options, seed: int) -> "ScratchGAN":
    """An agent whose G has learnt by maximum likelihood."""
    from textgan_env.ops.sampling import derived_seed
    from textgan_env.tasks import OracleTask

    sizes: dict[str, Any] = {"train_size": 2_000, "valid_size": 500, "test_size": 2_000, "text_seed": seed}
    task = OracleTask(vocab_size=options.vocab_size, max_length=options.max_length, **sizes)
    agent = agent_of(options, task, seed)
    for epoch in range(options.epochs):
        agent.mle_steps_of("mle_epoch").alone(derived_seed(seed, "mle", epoch))
    return agent


def taken_over(options: Options, first: "ScratchGAN", learnt: bool, **changes: Any) -> "ScratchGAN":
    """An agent with the G of another one, and its D, or the true log p / q of its own G."""
    from textgan_env.policies import RatioDiscriminator
    from textgan_env.tasks import OracleTask

    assert isinstance(first.task, OracleTask)
    assert first.discriminator is not None
    agent: Any = agent_of(options, first.task, first.config.seed, **changes)
    agent.policy.load_state_dict(first.policy.state_dict())
    if learnt:
        agent.discriminator.load_state_dict(first.discriminator.state_dict())
    else:
        agent.discriminator = RatioDiscriminator(first.task.oracle, agent.policy, options.max_length)
    return agent  # type: ignore[no-any-return]


# ----------------------------------------------------------------------------------------------------
# Noise
def noise_rows(options: Options) -> Iterator[dict[str, Any]]:
    """A row each D, discount and gradient."""
    from textgan_env.ops.sampling import derived_seed

    first = begun(options, 0)
    for epoch in range(options.d_epochs):
        found = first.d_steps_of(1).alone(derived_seed(0, "d", epoch))
    names = {False: "true log p / q", True: f"has learnt, AUC {found['d_auc']:.3f}"}
    for learnt, gamma in product((False, True), options.gammas):
        rows = _noise(options, first, learnt, gamma)
        for row in rows:
            row["per second"] = row["snr"] / row["seconds"] * (rows[0]["seconds"] / rows[0]["snr"])
            yield {"D": names[learnt], "gamma": gamma, **row}


def _noise(options: Options, first: "ScratchGAN", learnt: bool, gamma: float) -> list[dict[str, Any]]:
    """The rows of a D and a discount: the same texts for both gradients."""
    import torch

    from benchmarks.long_text import squared_norm

    agents = {name: taken_over(options, first, learnt, gamma=gamma, all_actions=every) for every, name in ARMS.items()}
    gradients: dict[str, list[Tensor]] = {name: [] for name in agents}
    seconds: dict[str, list[float]] = {name: [] for name in agents}
    for number, (name, agent) in product(range(options.batches), agents.items()):
        before = time.process_time()
        gradients[name].append(_gradient(agent, number))
        seconds[name].append(time.process_time() - before)
    more = range(options.batches, options.batches + options.signal_batches)
    signal, error = squared_norm(torch.stack([_gradient(agents[ARMS[True]], number) for number in more]))
    rows = []
    for name, some in gradients.items():
        variance = float(torch.stack(some).var(0).sum())
        row: dict[str, Any] = {"gradient": name, "seconds": statistics.median(seconds[name]), "variance": variance}
        rows.append(row | {"signal": signal, "its error": error, "snr": signal / variance})
    return rows


def _gradient(agent: "ScratchGAN", number: int) -> "Tensor":
    """The gradient of a g-step, flat, float64."""
    import torch

    from textgan_env.ops.sampling import derived_seed
    from textgan_env.training.mle import trained
    from textgan_env.training.schedule import Step

    batch = agent.collect(Step(derived_seed(0, "batch", number)))
    columns = (batch.tokens_BT, batch.mask_BT, agent.advantage(batch), batch.keys.seed_B, batch.keys.episode_B)
    total, texts = agent._objective(*columns)["loss"]
    parts = torch.autograd.grad(total / texts, list(trained(agent.policy)))
    return torch.cat([part.flatten() for part in parts]).double()


# ----------------------------------------------------------------------------------------------------
# Learning
def learning_rows(options: Options) -> Iterator[dict[str, Any]]:
    """A row each gradient and learning rate, over the seeds."""
    starts = {seed: begun(options, seed) for seed in options.seeds}
    curves = {
        (name, rate): [_learn(options, starts[seed], rate, every) for seed in options.seeds]
        for every, name in ARMS.items()
        for rate in options.rates
    }
    for (name, rate), some in curves.items():
        given = [curve[-1]["seconds"] for curve in curves[ARMS[False], rate]]
        yield {"gradient": name, "rate": f"{rate:g}", **summary(some, options.target, given)}


def _learn(options: Options, first: "ScratchGAN", rate: float, every: bool) -> list[dict[str, float]]:
    """Seconds of the processor, fit and cover, before the first g-step and at each look."""
    from textgan_env.ops.sampling import derived_seed
    from textgan_env.training.schedule import Step

    agent = taken_over(options, first, learnt=False, all_actions=every, learning_rate=rate)
    seed, spent, points = first.config.seed, 0.0, []
    for number in range(options.steps + 1):
        if number % options.every == 0:
            points.append({"steps": number, "seconds": spent, **divergences(agent, seed)})
        before = time.process_time()
        if number < options.steps:
            agent.g_step(Step(derived_seed(seed, "g", number), round=number))
        spent += time.process_time() - before
    print(f"{ARMS[every]}, rate {rate:g}, seed {seed}: {points[0]} {points[-1]}", flush=True)
    return points


def divergences(agent: "ScratchGAN", seed: int) -> dict[str, float]:
    """KL(q || p) and KL(p || q) of G, nats a token, by 2,000 texts each."""
    from benchmarks.measure import SIZES, point

    values = point(agent.policy.eval(), agent.task, replace(SIZES["fast"], curve=2_000), seed)
    return {"fit": values["fit"], "cover": values["cover"]}


def summary(curves: Sequence[Sequence[Mapping[str, float]]], target: float, given: Sequence[float]) -> dict[str, Any]:
    """What some curves that differ by their seed say of time and fit.

    Args:
        curves: A curve a seed: ``steps``, ``seconds``, ``fit`` and ``cover`` at each look.
        target: Fit that the seconds are taken to.
        given: Seconds of each seed after which the fit is taken, too.

    Returns:
        The columns of a row; a dash where no seed reached the target.
    """
    first = [next((at for at in curve if at["fit"] <= target), None) for curve in curves]
    reached = [at for at in first if at is not None]

    def span(name: str, digits: int) -> str | None:
        """Mean and range over the seeds that reached the target."""
        some = [at[name] for at in reached]
        if not some:
            return None
        return f"{statistics.fmean(some):.{digits}f} ({min(some):.{digits}f} to {max(some):.{digits}f})"

    then = [[at["fit"] for at in curve if at["seconds"] <= most][-1] for curve, most in zip(curves, given, strict=True)]
    ends = [curve[-1] for curve in curves]
    found: dict[str, Any] = {"steps to target": span("steps", 0), "seconds to target": span("seconds", 2)}
    found["reached"] = f"{len(reached)} of {len(curves)}"
    found |= {name: statistics.fmean(end[name] for end in ends) for name in ("seconds", "fit", "cover")}
    return found | {"fit of equal time": statistics.fmean(then)}


if __name__ == "__main__":
    main()
