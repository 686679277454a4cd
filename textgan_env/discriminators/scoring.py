"""Any number of texts and any discriminator: logits and features in tiles, and checked."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.discriminators.base import SCORING_TILE, Discriminator, DiscriminatorModule, read_whole
from textgan_env.ops.reward_kinds import PrecisionName
from textgan_env.ops.sampling import evaluating
from textgan_env.utils.errors import InputError, require, require_at_least


def score_logits(discriminator: Discriminator, tokens_RT: Tensor, tile: int | None = None) -> Tensor:
    """Logits of any number of texts, in eval mode and without gradients; changes nothing in D or the global RNG.

    Always works on ``tile`` rows at once, filled up with empty texts: a matrix product of another number of rows
    rounds differently, and the score of a text must not depend on how many others are scored with it.

    Args:
        discriminator: D.
        tokens_RT: int64 (R, T), PAD = V after the end; R may be 0. They are brought to the device of D's weights.
        tile: Rows at once; None: `SCORING_TILE` of D's device. Bitwise equal scores need equal tiles (and threads); 32
            suits who always has few rows.

    Returns:
        Logits, float (R,), high for real, in the dtype that D gives, on the device of the tokens.

    Raises:
        InputError: If ``tile`` is below 1, D refuses the tokens, or it does not give one finite logit a text.
    """
    return _in_tiles(discriminator, "logits", (), tokens_RT, tile)


def score_completions(
    discriminator: Discriminator, tokens_GNT: Tensor, given_G: Tensor, *, precision: PrecisionName = "float32"
) -> Tensor:
    """Logits of N completions of each of G prefixes: `score_logits` but for rounding, and faster where D can be.

    Here, too, a score does not depend on what else is scored: always as many prefixes are worked on at once as make up
    a `SCORING_TILE`, in sixteens, filled up with empty texts, as products of other numbers of rows round differently.

    Args:
        discriminator: D.
        tokens_GNT: int64; the N texts of a prefix begin with the same tokens.
        given_G: int64; how many tokens that are.
        precision: What D's products are computed in; ``bf16`` has 8 bits, is for rewards only, and refused by
            `require_precision` where it is not at hand.

    Returns:
        Logits, float (G, N), on the device of the tokens.

    Raises:
        InputError: As `score_logits` and `require_precision`.
    """
    require_precision(precision, discriminator)
    (groups, rollouts, max_length), pad = tokens_GNT.shape, discriminator.vocab_size
    device, scored = _device(discriminator, tokens_GNT), []
    if device.type != "cpu" and precision == "float32":  # few large products are faster there than shared ones
        return score_logits(discriminator, tokens_GNT.flatten(0, 1)).view(groups, rollouts)
    # At most 16 texts of a prefix at once: more of them would share hardly more.
    parts = -(-rollouts // 16)
    shared = -(-rollouts // parts)
    filled_GNT = functional.pad(tokens_GNT, (0, 0, 0, parts * shared - rollouts), value=pad)
    texts_HnT, given_H = filled_GNT.reshape(-1, shared, max_length), given_G.repeat_interleave(parts)
    # Prefixes of like lengths together, and of like texts: what no text of a tile reaches can be left out.
    longest_H = (texts_HnT != pad).sum(2).amax(1)
    order_H = (given_H * (max_length + 1) + longest_H).argsort(stable=True)
    tile = max(16, SCORING_TILE.on(device) // shared // 16 * 16)
    with evaluating(discriminator), torch.inference_mode():
        asked: Callable[[Tensor, Tensor], Tensor] = partial(read_whole, discriminator)
        if isinstance(discriminator, DiscriminatorModule):
            asked = discriminator.completion_scorer(precision)
        for order_h in order_H.split(tile) if groups else ():
            filling = tile - len(order_h)
            part_hnT = functional.pad(texts_HnT[order_h].to(device), (0, 0, 0, 0, 0, filling), value=pad)
            given_h = functional.pad(given_H[order_h].to(device), (0, filling), value=int(given_H[order_h[-1]]))
            scored.append(asked(part_hnT, given_h).view(-1, shared))
    if not scored:
        return tokens_GNT.new_empty(0, rollouts, dtype=torch.get_default_dtype())
    scored_Hn = torch.cat(scored)[: len(order_H)].to(tokens_GNT.device)[order_H.argsort()]
    scored_GN = scored_Hn.view(groups, -1)[:, :rollouts]
    return _finite("logits", scored_GN.flatten()).view(groups, rollouts)


def require_precision(precision: str, discriminator: Discriminator) -> None:
    """Refuse to score completions in what D or its device does not have.

    Raises:
        InputError: If so.
    """
    if precision == "float32":
        return
    known = getattr(discriminator, "precisions", ("float32",))
    name = getattr(discriminator, "kind", type(discriminator).__name__)
    expected = f"discriminator {name} scores completions in {' or '.join(known)}"
    require(precision in known, f"{expected}, found score precision {precision}")
    device = _device(discriminator, torch.empty(0))
    has = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu.get_capabilities().get("avx512_bf16")
    why = f"score precision bf16 needs a device that computes in bf16 (CPU: avx512_bf16), found {device.type}"
    require(bool(has), f"{why} without it")


def score_features(discriminator: Discriminator, tokens_RT: Tensor, tile: int | None = None) -> Tensor:
    """Features of any number of texts, float (R, F): in all else as `score_logits`."""
    return _in_tiles(discriminator, "features", (discriminator.feature_size,), tokens_RT, tile)


def score_token_logits(discriminator: Discriminator, tokens_RT: Tensor, tile: int | None = None) -> Tensor:
    """Logits of every prefix of any number of texts, float (R, T), 0 after the end: in all else as `score_logits`.

    Raises:
        InputError: Also if D has no logit for a prefix (`RecurrentDiscriminator` has).
    """
    require_token_logits(discriminator)
    return _in_tiles(discriminator, "token_logits", (discriminator.max_length,), tokens_RT, tile)


def require_token_logits(discriminator: Discriminator) -> None:
    """Refuse a discriminator that has no logit for a prefix.

    Raises:
        InputError: If it has no ``token_logits``.
    """
    expected = "a dense reward needs a discriminator with a logit for every prefix, such as recurrent"
    require(hasattr(discriminator, "token_logits"), f"{expected}, found {type(discriminator).__name__}")


def _in_tiles(
    discriminator: Discriminator, what: str, width: tuple[int, ...], tokens_RT: Tensor, tile: int | None
) -> Tensor:
    """Ask D's method ``what`` in tiles of equal size, in eval mode and without gradients: ``width`` numbers a text.

    All that D says of texts enters here, so here it is checked: a wrong shape would be broadcast, and one NaN or
    infinite number would become the reward of every text that is compared with it.
    """
    require(tokens_RT.dim() == 2, f"tokens must have shape (R, T), found {tuple(tokens_RT.shape)}")
    device = _device(discriminator, tokens_RT)
    tile = SCORING_TILE.on(device) if tile is None else tile
    require_at_least(1, tile=tile)
    scored, asked = [], getattr(discriminator, what)
    # Texts of like lengths together: a tile may leave out what lies behind its longest.
    length_R = (tokens_RT != discriminator.vocab_size).sum(1) * (len(tokens_RT) > tile)
    order_R = length_R.argsort(stable=True)
    with evaluating(discriminator), torch.inference_mode():
        for part in tokens_RT[order_R].to(device).split(tile):
            filling = (0, 0, 0, tile - len(part))
            scored.append(asked(functional.pad(part, filling, value=discriminator.vocab_size)))
            found, expected = tuple(scored[-1].shape), (tile, *width)
            fits = f"the discriminator's {what} of {tile} texts must have shape {expected}, found {found}"
            require(found == expected, fits)
    # A copy made outside of inference mode may take part in a loss.
    scored_R = torch.cat(scored)[: len(tokens_RT)].to(tokens_RT.device)
    return _finite(what, scored_R[order_R.argsort()])


def _device(discriminator: Discriminator, tokens: Tensor) -> torch.device:
    """Where D's weights are; where the tokens are if it has none."""
    weight = next(discriminator.parameters(), None) if isinstance(discriminator, nn.Module) else None
    return tokens.device if weight is None else weight.device


def _finite(what: str, scored_R: Tensor) -> Tensor:
    """What D says of texts; refuses NaN and infinity, which would become the reward of all that it is compared with."""
    unsound_R = ~torch.isfinite(scored_R)
    if bool(unsound_R.any()):
        value, text = float(scored_R[unsound_R][0]), int(unsound_R.nonzero()[0, 0]) + 1
        found_at = f"{value} for text {text} of {len(scored_R)}"
        raise InputError(f"the discriminator's {what} must be finite, found {found_at}")
    return scored_R
