"""The pieces of training that `benchmarks.throughput` times: ours, and the published algorithm done plainly."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam

import textgan_env  # noqa: F401  registers the ids
from agents.leakgan import LeakGAN, LeakGANConfig
from benchmarks import reference
from benchmarks.reference import PlainDiscriminator, PlainGenerator, PlainLeakGAN, descend
from benchmarks.throughput import LETTERS, Options
from textgan_env.discriminators import ConvDiscriminator, fit_discriminator, score_logits
from textgan_env.ops import metrics
from textgan_env.ops.losses import nll_sum, policy_gradient_sum
from textgan_env.ops.sampling import sample_categorical, seeded
from textgan_env.policies import LSTMPolicy
from textgan_env.rewards import Keys, RolloutCredit, Texts, complete, generate
from textgan_env.tasks import OracleTask

Run = Callable[[int], object]


@dataclass(frozen=True)
class Work:
    """One piece, ours and plain; both take the number of the turn, from which their draws follow.

    Attributes:
        ours: Does it our way.
        plain: Does it plainly.
        count: How much ours deals with, in ``unit``.
        unit: For example "texts".
        sizes: Those that matter.
        plain_count: How much the plain one deals with, where that is less; the ratio is one of speeds.
    """

    ours: Run
    plain: Run
    count: int
    unit: str
    sizes: str
    plain_count: int | None = None


def _names(sizes: Options, *letters: str) -> str:
    """The sizes that matter, by their letters."""
    values = {letter: getattr(sizes, name) for name, letter in LETTERS.items()}
    size = sizes.hidden_size
    return " ".join([*(f"{letter}={values[letter]}" for letter in letters), f"{size}/{size}"])


def _generators(sizes: Options) -> tuple[LSTMPolicy, PlainGenerator]:
    """G, ours and plain."""
    size = sizes.hidden_size
    # Weights as wide as the oracle's, so that texts differ as much as texts do.
    policy = LSTMPolicy(sizes.vocab_size, start_token=0, embed_size=size, hidden_size=size, init_scale=1.0)
    return policy.to(sizes.device), PlainGenerator(policy)


def _discriminators(sizes: Options) -> tuple[ConvDiscriminator, PlainDiscriminator]:
    """The published CNN, ours and plain, in eval mode."""
    discriminator = ConvDiscriminator(sizes.vocab_size, sizes.max_length).to(sizes.device).eval()
    return discriminator, PlainDiscriminator(discriminator).eval()


def _no_tokens(sizes: Options, rows: int) -> Tensor:
    """Prefixes without a token, int64 (rows, 0)."""
    return torch.empty(rows, 0, dtype=torch.int64, device=sizes.device)


def _draws(sizes: Options, turn: int) -> torch.Generator:
    """What a plain version draws from in a turn."""
    return torch.Generator(sizes.device).manual_seed(turn)


def generator_step(sizes: Options) -> Work:
    """SeqGAN's g-step: write B texts, complete every prefix N times, score with the CNN, REINFORCE."""
    (policy, slow), (judge, slow_judge) = _generators(sizes), _discriminators(sizes)
    optimizer, slow_optimizer = Adam(policy.parameters(), lr=1e-4, fused=True), Adam(slow.parameters(), lr=1e-4)
    source = RolloutCredit(policy, judge, rollouts=sizes.rollouts)

    def ours(turn: int) -> None:
        """One turn of ours."""
        keys = Keys.counted(turn, sizes.rows, device=policy.device)
        tokens_BT, lengths_B = generate(policy, keys, sizes.max_length)
        texts = Texts.finished(tokens_BT, lengths_B, keys, None)
        credit_BT = source.credit(texts, texts.mask_BT)
        total, rows = policy_gradient_sum(policy.log_prob(tokens_BT, texts.mask_BT), credit_BT, texts.mask_BT)
        descend(total / rows, optimizer, policy)

    def plain(turn: int) -> None:
        """One turn of the plain version."""
        write = partial(slow.write, max_length=sizes.max_length, generator=_draws(sizes, turn))
        tokens_BT = write(_no_tokens(sizes, sizes.rows))
        q_BT = reference.plain_q(write, slow_judge, tokens_BT, sizes.rollouts, list(range(sizes.max_length)))
        descend(-(q_BT * slow.log_prob(tokens_BT)).sum(1).mean(), slow_optimizer, slow)

    return Work(ours, plain, sizes.rows, "texts", f"{_names(sizes, 'B', 'N', 'T', 'V')} F={judge.feature_size}")


def rollouts(sizes: Options) -> Work:
    """The completions of a g-step alone."""
    policy, slow = _generators(sizes)
    keys = Keys.counted(0, sizes.rows, device=policy.device)
    tokens_BT, _ = generate(policy, keys, sizes.max_length)
    wanted_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
    wanted_BT[:, 0] = False

    def ours(turn: int) -> None:
        """One turn of ours."""
        keys = Keys.counted(turn, sizes.rows, device=policy.device)
        complete(policy, tokens_BT, wanted_BT, keys=keys, rollouts=sizes.rollouts)

    def plain(turn: int) -> None:
        """One turn of the plain version."""
        draws = _draws(sizes, turn)
        for _ in range(sizes.rollouts):
            for length in range(1, sizes.max_length):
                slow.write(tokens_BT[:, :length], sizes.max_length, draws)

    completions = sizes.rows * sizes.rollouts * (sizes.max_length - 1)
    return Work(ours, plain, completions, "completions", _names(sizes, "B", "N", "T", "V"))


def draws(sizes: Options) -> Work:
    """Draw one token a row from given logits, a hundred times: two-level inversion against `torch.multinomial`."""
    times = 100
    logits_BV = torch.randn(sizes.rows, sizes.vocab_size, generator=_draws(sizes, 0), device=sizes.device)

    def ours(turn: int) -> None:
        """One turn of ours."""
        draws = _draws(sizes, turn)
        for uniform_B in torch.rand(times, sizes.rows, generator=draws, dtype=torch.float64, device=sizes.device):
            sample_categorical(logits_BV, uniform_B)

    def plain(turn: int) -> None:
        """One turn of the plain version."""
        generator = _draws(sizes, turn)
        for _ in range(times):
            torch.multinomial(logits_BV.softmax(1), 1, generator=generator)

    return Work(ours, plain, times * sizes.rows, "tokens", _names(sizes, "B", "V"))


def scores(sizes: Options) -> Work:
    """Score the N completions of one prefix of every row by the CNN, without gradients."""
    judge, slow = _discriminators(sizes)
    shape = (sizes.rows * sizes.rollouts, sizes.max_length)
    tokens_RT = torch.randint(sizes.vocab_size, shape, generator=_draws(sizes, 0), device=sizes.device)

    def plain(_: int) -> None:
        """One turn of the plain version."""
        with torch.no_grad():
            for tokens_BT in tokens_RT.split(sizes.rows):
                slow(tokens_BT)

    named = f"{_names(sizes, 'B', 'N', 'T')} F={judge.feature_size}"
    return Work(lambda _: score_logits(judge, tokens_RT), plain, len(tokens_RT), "texts", named)


def sampling(sizes: Options) -> Work:
    """Write many texts."""
    policy, slow = _generators(sizes)

    def ours(turn: int) -> None:
        """One turn of ours."""
        generate(policy, Keys.counted(turn, sizes.samples, device=policy.device), sizes.max_length)

    def plain(turn: int) -> None:
        """One turn of the plain version."""
        draws = _draws(sizes, turn)
        for start in range(0, sizes.samples, sizes.rows):
            rows = min(sizes.rows, sizes.samples - start)
            slow.write(_no_tokens(sizes, rows), sizes.max_length, draws)

    return Work(ours, plain, sizes.samples, "texts", _names(sizes, "T", "V"))


def d_step(sizes: Options) -> Work:
    """One step of the CNN on B texts, half of them real."""
    judge, slow = _discriminators(sizes)
    slow.train()
    optimizer, slow_optimizer = judge.make_optimizer(), Adam(slow.parameters(), lr=1e-4)
    shape = (2, max(1, sizes.rows // 2), sizes.max_length)
    real_BT, fake_BT = torch.randint(sizes.vocab_size, shape, generator=_draws(sizes, 0), device=sizes.device)
    tokens_BT = torch.cat([real_BT, fake_BT])
    real_is_one_B = torch.tensor([1.0, 0.0], device=sizes.device).repeat_interleave(len(real_BT))

    def ours(turn: int) -> None:
        """One turn of ours."""
        generator = torch.Generator().manual_seed(turn)
        fit_discriminator(judge, optimizer, real_BT, fake_BT, steps=1, batch_size=len(real_BT), generator=generator)

    def plain(turn: int) -> None:
        """One turn of the plain version: cross entropy and the L2 of the head."""
        with seeded(turn):
            loss = functional.binary_cross_entropy_with_logits(slow(tokens_BT), real_is_one_B)
            penalty = slow.l2 / 2 * sum(part.square().sum() for part in slow.output.parameters())
            descend(loss + penalty, slow_optimizer)

    return Work(ours, plain, len(tokens_BT), "texts", f"{_names(sizes, 'B', 'T', 'V')} F={judge.feature_size}")


def mle_step(sizes: Options) -> Work:
    """One step of maximum likelihood on B texts."""
    policy, slow = _generators(sizes)
    optimizer, slow_optimizer = Adam(policy.parameters(), lr=1e-2, fused=True), Adam(slow.parameters(), lr=1e-2)
    shape = (sizes.rows, sizes.max_length)
    tokens_BT = torch.randint(sizes.vocab_size, shape, generator=_draws(sizes, 0), device=sizes.device)
    mask_BT = torch.ones_like(tokens_BT, dtype=torch.bool)

    def ours(_: int) -> None:
        """One turn of ours."""
        total, count = nll_sum(policy.log_prob(tokens_BT, mask_BT), mask_BT)
        descend(total / count, optimizer, policy)

    def plain(_: int) -> None:
        """One turn of the plain version."""
        descend(-slow.log_prob(tokens_BT).mean(), slow_optimizer, slow)

    return Work(ours, plain, sizes.rows, "texts", _names(sizes, "B", "T", "V"))


def leakgan_step(sizes: Options) -> Work:
    """LeakGAN's g-step with the CNN's features: write B texts, Q after every c-th token, losses and their steps."""
    length, size = sizes.max_length, sizes.hidden_size
    task = OracleTask(max_length=length, vocab_size=sizes.vocab_size, train_size=1, valid_size=1, test_size=1)
    config = LeakGANConfig(
        embed_size=size, hidden_size=size, dropout=0.0, discriminator="conv", batch_size=sizes.rows,
        rollouts=sizes.leakgan_rollouts, device=sizes.device,
    )  # fmt: skip
    agent = LeakGAN(config, task)
    # Every c-th token, as where TextGAN-PyTorch was timed: the offset that a g-step draws is always the first.
    positions = list(range(config.goal_steps - 1, length, config.q_interval))
    slow = PlainLeakGAN(agent.policy)
    optimizers = Adam(slow.manager.parameters(), lr=1.5e-3), Adam(slow.worker.parameters(), lr=1.5e-3)

    def ours(turn: int) -> None:
        """One turn of ours."""
        agent.policy.eval()
        agent.envs.reset(seed=turn)
        with agent.remembering():
            batch = agent.envs.collect(agent.sampling, positions)
            columns, minimise, _ = agent.columns(batch, positions)
        objective = partial(agent.policy.rules.generated_sums, agent.learning)
        agent.descend((agent.manager_optimizer, agent.worker_optimizer), columns, objective, minimise)

    def plain(turn: int) -> None:
        """One turn of the plain version."""
        size = {"rows": sizes.rows, "rollouts": sizes.leakgan_rollouts}
        reference.plain_leakgan_step(slow, optimizers, draws=_draws(sizes, turn), **size)

    named = _names(replace(sizes, rollouts=sizes.leakgan_rollouts), "B", "N", "T", "V")
    return Work(ours, plain, sizes.rows, "texts", f"{named} c={config.goal_steps} F={agent.policy.feature_size}")


def env_steps(sizes: Options) -> Work:
    """Tokens through the environment: random actions, constant terminal reward. Plain: 16 in a SyncVectorEnv."""
    options: dict[str, Any] = {"max_length": sizes.max_length, "reward": "terminal", "control": "constant"}
    few, turns = min(16, sizes.envs), 2 * sizes.max_length
    batched = gym.make_vec("TextGAN-v0", num_envs=sizes.envs, vectorization_mode="vector_entry_point", **options)
    single = gym.make_vec("TextGAN-v0", num_envs=few, vectorization_mode="sync", **options)
    actions_TB = np.random.default_rng(0).integers(5000, size=(turns, sizes.envs))
    for envs in (batched, single):
        envs.reset(seed=0)

    def ours(_: int) -> None:
        """One turn of ours."""
        for actions_B in actions_TB:
            batched.step(actions_B)

    def plain(_: int) -> None:
        """One turn of the plain version."""
        for actions_B in actions_TB:
            single.step(actions_B[:few])

    named = f"{sizes.envs} envs T={sizes.max_length}"
    return Work(ours, plain, turns * sizes.envs, "tokens", named, plain_count=turns * few)


def bleu(sizes: Options) -> Work:
    """BLEU-2 to 5 and Self-BLEU-2 to 5 of 2,000 texts, 10,000 references. Plain: nltk's BLEU-5 of two texts."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    # Words as frequent as words are (Zipf), in texts of about eleven.
    draws = np.random.default_rng(0)
    share_V = 1 / np.arange(1, sizes.vocab_size + 1)
    share_V /= share_V.sum()
    texts = [draws.choice(sizes.vocab_size, size, p=share_V).tolist() for size in draws.integers(8, 15, size=12_000)]
    hypotheses, references = texts[:2000], texts[2000:]
    smooth = SmoothingFunction().method1

    def ours(_: int) -> None:
        """One turn of ours."""
        metrics.bleu(hypotheses, references)
        metrics.self_bleu(hypotheses)

    def plain(_: int) -> None:
        """One turn of the plain version."""
        for text in hypotheses[:2]:
            sentence_bleu(references, text, [0.2] * 5, smoothing_function=smooth)

    return Work(ours, plain, 2000, "texts", "2,000 texts, 10,000 references", plain_count=2)


WORKS: dict[str, Callable[[Options], Work]] = {
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
