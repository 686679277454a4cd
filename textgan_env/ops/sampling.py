"""Randomness as data: keyed uniform numbers, exact categorical draws from them, and what keeps torch's own RNG still.

A draw is keyed by (seed, episode, prefix, rollout, position) and needs one uniform number. No state is carried from
draw to draw, so it does not matter in what order, in what tiles or on which machine texts are written.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import torch
from torch import Tensor, nn

from textgan_env.ops.exponentials import proportional_exp_
from textgan_env.utils.errors import require

# Philox4x32-10: multipliers and key increments of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_INCREMENT_0, _INCREMENT_1 = 0x9E3779B9, 0xBB67AE85
_MASK_32 = 0xFFFFFFFF
_ROUNDS = 10
# Up to so many probabilities are summed up at once on a GPU: by its bandwidth and the time that a kernel takes to start
# that is faster than two levels. Never measured.
_AT_ONCE = 2**22


class Stream(IntEnum):
    """What a draw is for; two streams never share a random number."""

    TEXT = 0
    ROLLOUT = 1
    REWARD = 2
    STATE = 3
    SEARCH = 4


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10, a counter-based random number generator (Salmon et al. 2011).

    Args:
        counter: Four int64 tensors that broadcast against each other, each holding a 32-bit word.
        key: Two int64 tensors, likewise.

    Returns:
        Four int64 tensors of 32-bit random words.
    """
    word_0, word_1, word_2, word_3 = torch.broadcast_tensors(*counter, *key)[:4]
    # Words 0 and 2 are multiplied, and 3 and 1 are mixed into what comes of it: both at once, in half as many steps.
    even, odd = torch.stack([word_0, word_2]), torch.stack([word_3, word_1])
    factor, step = _pair(_MULTIPLIER_0, _MULTIPLIER_1, even), _pair(_INCREMENT_1, _INCREMENT_0, even)
    keys = torch.stack(torch.broadcast_tensors(key[1], key[0]))
    keys = keys.view(2, *[1] * (even.dim() - keys.dim()), *keys.shape[1:])
    for _ in range(_ROUNDS):
        # A product of two 32-bit words wraps around in int64, but its bits are right. Bits above the lower 32 are left
        # where they are harmless: the mask before the next product drops them, and undoes the signed shift.
        product = even * factor
        mixed = (product >> 32).bitwise_xor_(odd).bitwise_xor_(keys).bitwise_and_(_MASK_32)
        # What word 2 was multiplied to becomes words 0 and 1, what word 0 was becomes words 2 and 3.
        even, odd, keys = mixed.flip(0), product, keys + step
    return even[0], odd[1] & _MASK_32, even[1], odd[0] & _MASK_32


def _pair(first: int, second: int, like: Tensor) -> Tensor:
    """Two numbers along the first axis, made on the device itself: a copy to a GPU would wait for it."""
    numbers = [torch.full((), number, device=like.device) for number in (first, second)]
    return torch.stack(numbers).view(2, *[1] * (like.dim() - 1))


def keyed_uniform(
    seed: Tensor,
    episode: Tensor,
    *,
    prefix: Tensor | int = 0,
    rollout: Tensor | int = 0,
    position: Tensor | int = 0,
    stream: Stream = Stream.TEXT,
) -> Tensor:
    """Uniform numbers in [0, 1), each a pure function of its key.

    All arguments broadcast against each other.

    Args:
        seed: int64, any value: the key of the generator.
        episode: int64, any value.
        prefix: Tokens in the prefix that is completed, 0 to 65,535.
        rollout: Number of the completion, 0 to 16,777,215.
        position: Position of the token that is drawn, 0 to 65,535.
        stream: What the number is for.

    Returns:
        float64 with 53 random bits.
    """
    # A whole number becomes a tensor on the device itself: a copy to a GPU would wait for it.
    place, number = (
        word if isinstance(word, Tensor) else torch.full((), word, device=seed.device)
        for word in (position | (prefix << 16), rollout | (int(stream) << 24))
    )
    counter = (place, number, episode & _MASK_32, (episode >> 32) & _MASK_32)
    high, low, _, _ = philox(counter, (seed & _MASK_32, (seed >> 32) & _MASK_32))
    return ((high >> 5) * 2**26 + (low >> 6)).double() * 2.0**-53


def keyed_normal(seed_B: Tensor, episode_B: Tensor, shape: tuple[int, ...], *, rollout: int = 0) -> Tensor:
    """Numbers from N(0, 1) for each text, from the stream of initial states.

    Args:
        seed_B: int64; what the text's draws are keyed by, with
        episode_B: int64.
        shape: Of the numbers of one text, fewer than 65,536.
        rollout: Which of several draws for the text.

    Returns:
        float64; B, then the shape.
    """
    number = torch.arange(math.prod(shape), device=seed_B.device).view(shape)
    key = (part.view(-1, *[1] * len(shape)) for part in (seed_B, episode_B))
    uniform = keyed_uniform(*key, position=number, rollout=rollout, stream=Stream.STATE)
    # 0 would be minus infinity; it is drawn once in 2^53 times.
    normal: Tensor = torch.special.ndtri(uniform.clamp(min=2.0**-54))
    return normal


def sample_categorical(
    logits_BV: Tensor, uniform: Tensor, *, overwrite: bool = False, furthest: float = math.inf
) -> Tensor:
    """Draw tokens by inverting the distribution function: the first token at which it is above the uniform number.

    Exact up to float32 rounding of the probabilities; a token of logit -inf is never drawn. One uniform number a draw,
    where `torch.multinomial` draws V exponentials (and is over 90 % of generation time on CPU for that).

    Args:
        logits_BV: float; unnormalised log-probabilities (nats). Every row needs one finite entry and no NaN.
        uniform: float64 in [0, 1), shape (B,) or (B, N) for N independent draws from each row.
        overwrite: Use the memory of ``logits_BV`` for the probabilities: a large fresh array costs as much as they do.
        furthest: How far from 0 the highest logit of a row can be, if that is known; it changes speed, never a draw.

    Returns:
        int64 tokens of the shape of ``uniform``.

    Raises:
        InputError: If a row has no token to draw or holds NaN (looked for on CPU only: it would stall a GPU).
    """
    return _drawn(logits_BV, uniform, overwrite, furthest)[0].view_as(uniform)


def sample_with_probability(
    logits_BV: Tensor, uniform: Tensor, *, overwrite: bool = False, furthest: float = math.inf
) -> tuple[Tensor, Tensor]:
    """As `sample_categorical`, and the probability of each token that is drawn, float64 of the shape of ``uniform``."""
    tokens_BN, weights_BV, total_B1 = _drawn(logits_BV, uniform, overwrite, furthest)
    share_BN = weights_BV.gather(1, tokens_BN).double() / total_B1
    return tokens_BN.view_as(uniform), share_BN.view_as(uniform)


def _drawn(logits_BV: Tensor, uniform: Tensor, overwrite: bool, furthest: float) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, int64 (B, N); weights in proportion to the probabilities, (B, V); and their sums, float64 (B, 1)."""
    logits_BV = logits_BV.detach()
    weights_BV = logits_BV.contiguous() if overwrite else logits_BV.clone(memory_format=torch.contiguous_format)
    proportional_exp_(weights_BV, furthest=furthest)
    at_once = not weights_BV.is_cpu and weights_BV.numel() <= _AT_ONCE
    uniform_BN = uniform if uniform.dim() == 2 else uniform[:, None]
    tokens_BN, total_B1 = (_from_all if at_once else _from_blocks)(weights_BV, uniform_BN)
    return tokens_BN, weights_BV, total_B1


def _from_all(weights_BV: Tensor, uniform_BN: Tensor) -> tuple[Tensor, Tensor]:
    """As `_from_blocks`, in few kernels: all weights are summed up in float64."""
    edges_BV = weights_BV.double().cumsum(1)
    total_B1 = edges_BV[:, -1:]
    tokens_BN = torch.searchsorted(edges_BV, uniform_BN * total_B1, right=True)
    return tokens_BN.clamp_(max=weights_BV.shape[1] - 1), total_B1  # only NaN is cut off


def _from_blocks(weights_BV: Tensor, uniform_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Draw tokens in proportion to weights, in two levels: the block of tokens, then the token in it.

    Returns:
        Tokens, int64 (B, N), and what the weights of each row add up to, float64 (B, 1).
    """
    vocab_size = weights_BV.shape[1]
    block_size = max(1, int(vocab_size**0.5))
    full = vocab_size // block_size * block_size
    mass_BK = weights_BV[:, :full].unflatten(1, (-1, block_size)).sum(2)
    if full < vocab_size:
        mass_BK = torch.cat([mass_BK, weights_BV[:, full:].sum(1, keepdim=True)], dim=1)
    mass_BK = mass_BK.double()
    edges_BK = mass_BK.cumsum(1)
    total_B1 = edges_BK[:, -1:]
    drawable = not weights_BV.is_cpu or bool(torch.isfinite(total_B1).all())
    require(drawable, "a row of logits holds NaN or allows no token, so none can be drawn")

    target_BN = uniform_BN * total_B1
    # A number below 1 times the total is below the total, rounded or not: the block has mass. (Only NaN is cut off.)
    block_BN = torch.searchsorted(edges_BK, target_BN, right=True).clamp_(max=edges_BK.shape[1] - 1)
    # Rounding can put a target a little before its block, where the first token would be drawn whatever its weight.
    rest_BN = (target_BN - (edges_BK - mass_BK).gather(1, block_BN)).clamp_(min=0)
    tokens_BNk = block_BN[..., None] * block_size + torch.arange(block_size, device=weights_BV.device)
    inside_BNk = tokens_BNk < vocab_size
    weights_BNk = weights_BV.gather(1, tokens_BNk.clamp(max=vocab_size - 1).flatten(1)).view_as(tokens_BNk)
    edges_BNk = (weights_BNk.double() * inside_BNk).cumsum(2)
    offset_BN = _first_above(edges_BNk, rest_BN[..., None])[..., 0]
    return block_BN * block_size + offset_BN, total_B1


def systematic_sample(weights_R: Tensor, count: int, uniform: Tensor) -> Tensor:
    """Draw rows in proportion to their weights: each as often as it is expected to be, but for less than 1.

    Systematic resampling: ``count`` points at equal distances along the summed weights, moved by one random number.

    Args:
        weights_R: float, not negative, not all 0.
        count: B, rows to draw.
        uniform: float64 in [0, 1), one number.

    Returns:
        int64 (B,), rising.
    """
    edges_R = weights_R.double().cumsum(0)
    points_B = (torch.arange(count, device=weights_R.device) + uniform) / count * edges_R[-1]
    return _first_above(edges_R, points_B)


def _first_above(edges: Tensor, target: Tensor) -> Tensor:
    """Index of the first edge above the target: never one of zero mass, whose edge equals the one before it.

    Rounding can put a target at or above the last edge; then the last entry that has mass is meant.
    """
    last = (edges < edges[..., -1:]).sum(-1, keepdim=True)
    return torch.minimum(torch.searchsorted(edges, target, right=True), last)


def derived_seed(seed: int, *names: str | int) -> int:
    """A seed of 63 bits for one purpose, from the run's seed and names such as ``("mle", epoch)``.

    A hash, so that purposes never share random numbers and a checkpoint needs to hold counters only.
    """
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def derived_generator(seed: int, *names: str | int) -> torch.Generator:
    """A fresh CPU generator for one purpose, seeded with `derived_seed`."""
    return torch.Generator().manual_seed(derived_seed(seed, *names))


def draw_seed(generator: torch.Generator) -> int:
    """A fresh seed of 63 bits, drawn from ``generator``."""
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run what has no generator argument (dropout, initialisation) from ``seed``; the global RNG stays as it was."""
    # Without a list torch warns of several GPUs, and starts them all where a run on the CPU has touched none.
    used = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=used):
        # Where there is no accelerator, torch would take longer to note who asked for its seed than to set it.
        (torch if torch.accelerator.is_available() else torch.default_generator).manual_seed(seed)
        yield


@contextmanager
def evaluating(module: object) -> Iterator[None]:
    """Switch dropout off inside, then give every submodule its own mode back; what is no module has none."""
    if not isinstance(module, nn.Module):
        yield
        return
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
