"""What a generator step of SeqGAN costs, and how much of its gradient is signal, with Q at every k-th token.

``python -m benchmarks.long_text``. G is trained for some epochs on the texts of a made oracle, D to tell its texts from
them, both once a length; then neither changes, so that every setting estimates the same gradient, of the same texts.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.results import command, show
from textgan_env.utils.kinds import DiscriminatorNetworkKind

if TYPE_CHECKING:
    from torch import Tensor

    from agents.seqgan import SeqGAN
    from textgan_env.envs import EpisodeBatch

BASELINES: tuple[Literal["leave-one-out", "prefix"], ...] = ("leave-one-out", "prefix")


@dataclass(frozen=True)
class Options:
    """Measure generator steps on long text."""

    lengths: tuple[int, ...] = (20, 40, 80)
    """T."""
    intervals: tuple[int, ...] = (1, 2, 4, 8)
    """k, tokens from one Q to the next."""
    rollouts: tuple[int, ...] = (4, 16, 64)
    """N."""
    most: int = 16
    """N / k at most: N = 16 at every prefix and N = 64 at every fourth cost the same."""
    rows: int = 16
    """B."""
    vocab_size: int = 500
    """V."""
    discriminator: DiscriminatorNetworkKind = "pair"
    """D."""
    batches: int = 8
    """Batches whose gradients are compared."""
    signal_batches: int = 64
    """Further batches of the cheapest setting, for the expected gradient."""
    epochs: int = 5
    """Of maximum likelihood before, and d-steps."""
    seed: int = 0
    """Of everything."""
    name: str = "long_text"
    """Of the result files."""


@command
def main(options: Options) -> None:
    """The command."""
    notes = (
        f"B={options.rows} V={options.vocab_size}, D: {options.discriminator}, reward: D's logit, G: LSTM 32/32 after "
        f"{options.epochs} epochs of maximum likelihood. seconds: of the processor, one thread, for texts, credit and "
        f"gradient; median of {options.batches} batches, settings in turn. variance: of the batch's gradient, summed "
        "over the weights. signal: squared norm of the expected gradient, with its standard error; no setting has a "
        f"bias, so it is taken once for each T, from {options.signal_batches} further batches of the last setting. "
        "snr: signal by variance, for B texts: it grows in proportion to B. "
        "per second: snr by seconds, in units of each T's first row: how many times faster an equal snr is reached, as "
        "snr and seconds both grow with B."
    )
    show(options.name, [row for length in options.lengths for row in measure(options, length)], notes=notes)


def measure(options: Options, length: int) -> list[dict[str, Any]]:
    """The rows of one T."""
    import torch

    torch.set_num_threads(1)
    every = product(options.intervals, sorted(options.rollouts, reverse=True))
    settings = [(interval, rollouts) for interval, rollouts in every if rollouts <= options.most * interval]
    agents = dict(zip(settings, _agents(options, length, settings), strict=True))
    seconds: dict[Any, list[float]] = {setting: [] for setting in settings}
    gradients: dict[Any, list[Tensor]] = {key: [] for key in product(settings, BASELINES)}
    for number in range(options.batches):
        for setting, agent in agents.items():
            began = time.process_time()
            batch = _texts(agent, options.seed, number)
            for kind in BASELINES:
                agent.config = replace(agent.config, baseline=kind)
                gradients[setting, kind].append(_gradient(agent, batch))
                if kind == BASELINES[0]:
                    seconds[setting].append(time.process_time() - began)
    noise = {key: float(torch.stack(some).var(0).sum()) for key, some in gradients.items()}
    # The agent and the baseline that were the last ones above.
    more = range(options.batches, options.batches + options.signal_batches)
    signal, error = squared_norm(torch.stack([_gradient(agent, _texts(agent, options.seed, one)) for one in more]))
    rows = [
        {
            "T": length, "k": interval, "N": rollouts, "baseline": kind,
            "seconds": statistics.median(seconds[interval, rollouts]), "variance": variance,
            "signal": signal, "its error": error, "snr": signal / variance,
        }
        for ((interval, rollouts), kind), variance in noise.items()
    ]  # fmt: skip
    for row in rows:
        row["per second"] = row["snr"] / row["seconds"] * (rows[0]["seconds"] / rows[0]["snr"])
    return rows


def _agents(options: Options, length: int, settings: list[tuple[int, int]]) -> Iterator["SeqGAN"]:
    """An agent for each (k, N), all of the same G and D."""
    from agents.seqgan import SeqGAN, SeqGANConfig
    from textgan_env.ops.sampling import derived_seed
    from textgan_env.tasks import OracleTask

    sizes: dict[str, Any] = {"max_length": length, "vocab_size": options.vocab_size, "train_size": 2000}
    task = OracleTask(**sizes, valid_size=500, test_size=1, seed=options.seed)
    config = SeqGANConfig(
        task="oracle", batch_size=options.rows, mle_batch_size=64, discriminator=options.discriminator, kl_coef=0.0,
        seed=options.seed,
    )  # fmt: skip
    first = SeqGAN(config, task)
    for epoch in range(options.epochs):
        first.mle_steps_of("mle_epoch").alone(derived_seed(options.seed, "mle", epoch))
    for epoch in range(options.epochs):
        found = first.d_steps_of(1).alone(derived_seed(options.seed, "d", epoch))
    print(f"T={length}: D's AUC on unseen texts {found['d_auc']:.3f}")
    assert first.discriminator is not None
    for interval, rollouts in settings:
        agent = SeqGAN(replace(config, q_interval=interval, rollouts=rollouts), task)
        agent.policy.load_state_dict(first.policy.state_dict())
        assert agent.discriminator is not None
        agent.discriminator.load_state_dict(first.discriminator.state_dict())
        agent.queue_discriminator()
        yield agent


def _texts(agent: "SeqGAN", seed: int, number: int) -> "EpisodeBatch":
    """A batch with its credit: the same texts for all agents."""
    from textgan_env.ops.sampling import derived_seed
    from textgan_env.training.schedule import Step

    agent.begin_texts(Step(derived_seed(seed, "batch", number)))
    return agent.envs.collect(agent.behaviour_policy())


def _gradient(agent: "SeqGAN", batch: "EpisodeBatch") -> "Tensor":
    """The gradient of a generator step, flat, float64."""
    import torch

    from textgan_env.ops.losses import policy_gradient_sum
    from textgan_env.training.mle import trained

    logp_BT = agent.behaviour_policy().log_prob(batch.tokens_BT, batch.mask_BT)
    total, rows = policy_gradient_sum(logp_BT, agent.advantage(batch), batch.mask_BT)
    parts = torch.autograd.grad(total / rows, list(trained(agent.policy)))
    return torch.cat([part.flatten() for part in parts]).double()


def squared_norm(gradients_MP: "Tensor") -> tuple[float, float]:
    """Squared norm of the expected gradient, without bias: the mean product of two batches; its jackknife error."""
    products_MM = gradients_MP @ gradients_MP.t()
    products_MM.fill_diagonal_(0)
    batches, total = len(products_MM), products_MM.sum()
    without_M = (total - 2 * products_MM.sum(1)) / ((batches - 1) * (batches - 2))
    error = without_M.std(correction=0) * (batches - 1) ** 0.5
    return float(total / (batches * (batches - 1))), float(error)


if __name__ == "__main__":
    main()
