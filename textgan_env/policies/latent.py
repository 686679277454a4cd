"""The decoder of a text VAE, with its encoder: an LSTM that writes each text from a vector z of its own."""

import copy
import math
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from textgan_env.ops.losses import gaussian_kl
from textgan_env.ops.sampling import derived_seed, keyed_normal, seeded
from textgan_env.policies.base import State, draw_weights
from textgan_env.policies.lstm import LSTMPolicy
from textgan_env.utils.errors import require, require_at_least
from textgan_env.utils.reading import check_weights

_MOST_LATENT = 4_096


class LatentPolicy(LSTMPolicy):
    """G(y) is the integral of G(y | z) N(z; 0, I): each text is written from a z of its own.

    The decoder is `LSTMPolicy`; a linear map of z, without bias, is its first state and is added to the embedding of
    each token read. The encoder, an LSTM over the same embeddings, gives mean and log-variance of a normal distribution
    over the z of a text (after Bowman et al. 2016, "Generating sentences from a continuous space").

    z is fixed by the keys of a text (`for_texts`), so that its completions are written from the same one; it is known
    from the first token on, and no prefix changes it. Without keys z is 0. `step` and `log_prob` are given z;
    `text_log_prob` is not.

    Args:
        vocab_size: V.
        start_token: First input token.
        latent_size: Z, numbers in z.
        embed_size: Width of the embedding.
        hidden_size: Width of both LSTMs.
        num_layers: Layers of the decoder; the encoder has one.
        dropout: Share of units of the decoder that are set to 0 in training.
        init_scale: Standard deviation of the initial weights.
        forbidden: Tokens that are never generated, such as UNK.
        seed: What the initial weights follow from.

    Raises:
        InputError: If a size is below 1 or too large, or a share out of its range.
    """

    kind: ClassVar[str] = "latent"

    def __init__(
        self,
        vocab_size: int,
        *,
        start_token: int,
        latent_size: int = 16,
        embed_size: int = 32,
        hidden_size: int = 32,
        num_layers: int = 1,
        dropout: float = 0.0,
        init_scale: float = 0.1,
        forbidden: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        require_at_least(1, latent_size=latent_size)
        require(latent_size <= _MOST_LATENT, f"latent_size must be at most {_MOST_LATENT:,}, found {latent_size:,}")
        super().__init__(
            vocab_size, start_token=start_token, embed_size=embed_size, hidden_size=hidden_size, num_layers=num_layers,
            dropout=dropout, init_scale=init_scale, forbidden=forbidden, seed=seed,
        )  # fmt: skip
        del self._settings["initial_state"]
        self._settings["latent_size"] = latent_size
        self.latent_size, self.random_start = latent_size, True
        self._parts = (embed_size, num_layers * hidden_size, num_layers * hidden_size)
        encoder = 4 * hidden_size * (embed_size + hidden_size + 2) + 2 * latent_size * (hidden_size + 1)
        decoder = sum(parameter.numel() for parameter in self.parameters()) + latent_size * sum(self._parts)
        check_weights(decoder + encoder, "a latent policy")
        self._z_BZ: Tensor | None = None
        self._z_is_given = False
        with seeded(derived_seed(seed, "latent")):
            self.from_latent = nn.Linear(latent_size, sum(self._parts), bias=False)
            self.encoder = nn.LSTM(embed_size, hidden_size, batch_first=True)
            self.to_latent = nn.Linear(hidden_size, 2 * latent_size)
            for part in (self.from_latent, self.encoder, self.to_latent):
                draw_weights(part, init_scale)

    def for_texts(self, seed_B: Tensor, episode_B: Tensor) -> Self:
        """The same policy with the z of these texts, from N(0, I); after `with_latent` the z that was given."""
        if self._z_is_given:
            return self
        view = copy.copy(self)
        view._z_BZ = keyed_normal(seed_B, episode_B, (self.latent_size,)).to(self.projection.weight.dtype)
        return view

    def with_latent(self, z_BZ: Tensor) -> Self:
        """The same policy, sharing its weights, that writes B texts from these z, whatever their keys.

        Args:
            z_BZ: float.

        Raises:
            InputError: If the shape is another.
        """
        fits = z_BZ.dim() == 2 and z_BZ.shape[1] == self.latent_size
        require(fits, f"z must have shape (B, {self.latent_size}), found {tuple(z_BZ.shape)}")
        view = copy.copy(self)
        view._z_BZ, view._z_is_given = z_BZ.to(self.projection.weight), True
        return view

    def for_rows(self, rows_R: Tensor) -> Self:
        """The same policy with the z of some texts, where they were given."""
        if not self._z_is_given:
            return self
        assert self._z_BZ is not None
        return self.with_latent(self._z_BZ[rows_R])

    def begin(self, batch_size: int) -> State:
        """Hidden and cell state, (B, layers, hidden_size), and what z adds to each embedding, (B, embed_size)."""
        z_BZ = self._z_BZ
        if z_BZ is None:
            z_BZ = self.projection.weight.new_zeros(batch_size, self.latent_size)
        require(len(z_BZ) == batch_size, f"the policy has the z of {len(z_BZ)} texts, asked for {batch_size}")
        added_BE, *state = self.from_latent(z_BZ).split(self._parts, dim=1)
        return *(part.view(batch_size, self.lstm.num_layers, -1) for part in state), added_BE

    def _inputs(self, embedded_BTE: Tensor, state: State) -> Tensor:
        """The embeddings and what z adds to them."""
        added_BE: Tensor = state[2]
        return embedded_BTE + added_BE[:, None]

    def encode(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder believes of the z of texts: mean and log-variance, float (B, Z) each.

        Args:
            tokens_BT: int64, PAD after the end.
        """
        states_BTH: Tensor = self.encoder(self.embedding(tokens_BT))[0]
        states_BTH = nn.functional.pad(states_BTH, (0, 0, 1, 0))  # of the empty text: zeros
        length_B = (tokens_BT != self.vocab_size).sum(1)
        mean_BZ, log_variance_BZ = self.to_latent(states_BTH[torch.arange(len(length_B)), length_B]).chunk(2, dim=1)
        return mean_BZ, log_variance_BZ

    def autoencode(
        self, tokens_BT: Tensor, mask_BT: Tensor, noise_BZ: Tensor, read_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode texts, draw a z for each, and score the texts given z: the two terms of the bound, differentiable.

        The sum of the first less the sum of the second is at most log G(y) in expectation over the noise.

        Args:
            tokens_BT: int64.
            mask_BT: bool; the tokens that count.
            noise_BZ: float, from N(0, 1): z = mean + standard deviation * noise (Kingma and Welling 2014).
            read_BT: int64; what the decoder reads where that is not the text itself (word dropout).

        Returns:
            Log-probabilities given z (nats), float (B, T), 0 where masked; and KL(e(z | y) || N(0, I)) by number of z,
            float (B, Z).
        """
        mean_BZ, log_variance_BZ = self.encode(tokens_BT)
        decoder = self.with_latent(mean_BZ + (log_variance_BZ / 2).exp() * noise_BZ.to(mean_BZ))
        kl_BZ = gaussian_kl(mean_BZ, log_variance_BZ)
        if read_BT is None:
            return decoder.log_prob(tokens_BT, mask_BT), kl_BZ
        return decoder.log_prob_after(read_BT, tokens_BT, mask_BT), kl_BZ

    def text_log_prob(
        self, tokens_BT: Tensor, mask_BT: Tensor, *, seed_B: Tensor, episode_B: Tensor, draws: int
    ) -> Tensor:
        """An estimate of log G of texts, z integrated out: log of the mean of K weights G(y | z) N(z) / e(z | y).

        The mean of the weights has no bias, so that of its logarithm is at most log G(y), and rises to it with K (the
        importance-weighted bound; Burda et al. 2016). K = 1 is `autoencode`'s bound, the KL estimated by the draw.

        Args:
            tokens_BT: int64.
            mask_BT: bool; the tokens that count.
            seed_B: int64; what the draws for each text are keyed by, with
            episode_B: int64.
            draws: K.

        Returns:
            float64 (B,), nats.
        """
        mean_BZ, log_variance_BZ = self.encode(tokens_BT)
        weights_KB = []
        for number in range(1, draws + 1):
            noise_BZ = keyed_normal(seed_B, episode_B, (self.latent_size,), rollout=number).to(mean_BZ)
            z_BZ = mean_BZ + (log_variance_BZ / 2).exp() * noise_BZ
            logp_BT = self.with_latent(z_BZ).log_prob(tokens_BT, mask_BT)
            log_ratio_BZ = (noise_BZ.square() - z_BZ.square() + log_variance_BZ) / 2  # log N(z) / e(z | y)
            weights_KB.append(logp_BT.double().sum(1) + log_ratio_BZ.double().sum(1))
        return torch.stack(weights_KB).logsumexp(0) - math.log(draws)
