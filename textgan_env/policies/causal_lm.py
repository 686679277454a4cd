"""A causal language model of Hugging Face's transformers as a policy: read never from the network."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.ops.sampling import seeded
from textgan_env.policies.base import PolicyModule, State
from textgan_env.text.language_models import quiet, transformers_package
from textgan_env.utils.errors import InputError, require
from textgan_env.utils.reading import check_weights


class CausalLMPolicy(PolicyModule):
    """GPT-2, Llama and their kin; the task's tokens are some of the model's own, named by ``token_ids``.

    The model's probabilities of the task's tokens are taken and made to sum to 1. The state is the key-value
    cache: for each layer keys and values, float (B, heads, T, width) each, and the tokens read, (B,). It has its full
    size from the first token on, so a row of it takes ``state_bytes`` and the completions of B texts take
    B x T x N x ``state_bytes``.

    Args:
        vocab_size: V.
        start_token: What is read before the first token; V (PAD) for text corpora.
        max_length: T, the most tokens of a text.
        token_ids: V + 1 numbers of the model: of the tokens 0 to V-1, and of PAD, which is what a text begins with.
        model: The model itself, or its config as plain data (then its weights are still to be loaded).
        forbidden: Tokens that are never generated, such as UNK.

    Raises:
        InputError: If token_ids are too many, too few, or none of the model's, T is below 1 or above what the model can
            read, or the model is no causal one with a key-value cache.
        MissingDataError: If transformers is not installed.
    """

    kind: ClassVar[str] = "causal_lm"

    def __init__(
        self,
        vocab_size: int,
        *,
        start_token: int,
        max_length: int,
        token_ids: Sequence[int],
        model: nn.Module | Mapping[str, Any],
        forbidden: Sequence[int] = (),
    ) -> None:
        super().__init__(vocab_size, start_token, forbidden)
        self.model: Any = model if isinstance(model, nn.Module) else _untrained(model)
        config: Any = self.model.config
        expected = f"token_ids must be V + 1 = {vocab_size + 1} numbers (the last for PAD)"
        require(len(token_ids) == vocab_size + 1, f"{expected}, found {len(token_ids)}")
        wrong = [number for number in token_ids if not 0 <= number < config.vocab_size]
        require(not wrong, f"token_ids must be 0 to {config.vocab_size - 1}, the model's tokens, found {wrong[:3]}")
        most = getattr(config, "max_position_embeddings", None) or max_length
        expected = f"max_length must be 1 to {most}, the most tokens that the {config.model_type} model reads"
        require(1 <= max_length <= most, f"{expected}, found {max_length}")
        self.max_length = max_length
        self.token_ids = nn.Buffer(torch.tensor([*token_ids]), persistent=False)
        # Of the model its config, without what names code.
        plain = {name: part for name, part in config.to_dict().items() if name not in ("auto_map", "_name_or_path")}
        self._settings = {"max_length": max_length, "token_ids": self.token_ids.tolist(), "model": plain}
        self._cache_shapes = self._shapes()
        self.train(self.model.training)

    @property
    def state_bytes(self) -> int:
        """Bytes of one row of the state."""
        state = self.begin(1)
        parts = [state["length"], *chain.from_iterable(state["layers"])]
        return sum(part.nbytes for part in parts)

    def begin(self, batch_size: int) -> State:
        """An empty cache: ``layers``, a pair of float (B, heads, T, width) each, and ``length`` int64 (B,)."""
        like = self.model.get_input_embeddings().weight
        layers = tuple(
            tuple(like.new_zeros(batch_size, heads, self.max_length, width) for heads, width in shapes)
            for shapes in self._cache_shapes
        )
        return {"layers": layers, "length": torch.zeros(batch_size, dtype=torch.int64, device=self.device)}

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token a row; rows may have read different numbers of tokens.

        Raises:
            InputError: If a row has read T tokens.
        """
        length_B = state["length"]
        longest = int(length_B.max())
        require(longest < self.max_length, f"the policy reads at most max_length={self.max_length} tokens of a text")
        slots_S = torch.arange(longest + 1, device=self.device)
        # The new token stands in the last slot, behind those that a shorter row has not filled.
        seen_BS = (slots_S < length_B[:, None]) | (slots_S == longest)
        cache = transformers_package().DynamicCache()
        if longest:
            for number, (keys, values) in enumerate(state["layers"]):
                cache.update(keys[:, :, :longest], values[:, :, :longest], number)
        read = {"input_ids": self.token_ids[tokens_B][:, None], "position_ids": length_B[:, None]}
        out = self.model.base_model(**read, attention_mask=seen_BS.long(), past_key_values=cache, use_cache=True)
        here_B1T1 = (torch.arange(self.max_length, device=self.device) == length_B[:, None])[:, None, :, None]
        layers = tuple(
            tuple(torch.where(here_B1T1, new[:, :, -1:], old) for new, old in zip(_newest(layer), pair, strict=True))
            for layer, pair in zip(out.past_key_values.layers, state["layers"], strict=True)
        )
        return self._of_task(out.last_hidden_state[:, 0]), {"layers": layers, "length": length_B + 1}

    def log_prob(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Log-probability (nats) of each token in one pass over the whole text (teacher forcing)."""
        read_BT = self.token_ids[functional.pad(tokens_BT[:, :-1], (1, 0), value=self.start_token)]
        longest = int(mask_BT.any(0).nonzero().max()) + 1 if bool(mask_BT.any()) else 1  # no column is read for nothing
        states_BLH = self.model.base_model(input_ids=read_BT[:, :longest], use_cache=False).last_hidden_state
        logits_RV = self._of_task(states_BLH[mask_BT[:, :longest]])
        asked_R = mask_BT.flatten().nonzero()[:, 0]
        logp_RV = self.decoding.apply(self._forbid(logits_RV)).log_softmax(1)
        logp_R = logp_RV.gather(1, tokens_BT.flatten()[asked_R, None])[:, 0]
        return torch.zeros_like(mask_BT, dtype=logp_R.dtype).flatten().index_copy(0, asked_R, logp_R).view_as(mask_BT)

    def _of_task(self, states_RH: Tensor) -> Tensor:
        """Logits of the task's tokens, from the model's last states: those of its other tokens cost as much again."""
        head, ids = self.model.get_output_embeddings(), self.token_ids[:-1]
        bias = None if head.bias is None else head.bias[ids]
        return functional.linear(states_RH, head.weight[ids], bias).float()

    def _shapes(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each layer, heads and width of its keys and of its values, as one token shows them."""
        kind = self.model.config.model_type
        cache = transformers_package().DynamicCache()
        was_training = self.model.training
        with torch.no_grad():
            read = {"input_ids": self.token_ids[None, -1:]}
            out = self.model.eval()(**read, past_key_values=cache, use_cache=True)
            state_1H = self.model.base_model(**read, use_cache=False).last_hidden_state[0]
        self.model.train(was_training)
        layers = getattr(getattr(out, "past_key_values", None), "layers", None) or []
        pairs = [_newest(layer) for layer in layers]
        whole = bool(pairs) and all(part is not None and part.shape[::2] == (1, 1) for pair in pairs for part in pair)
        require(whole, f"model must keep keys and values of every token in every layer, a {kind} model does not")
        # Some kinds scale or bound their logits after the last layer.
        logits_1V = out.logits[0, :, self.token_ids[:-1]].float()
        plain = torch.allclose(self._of_task(state_1H), logits_1V, atol=1e-3)
        require(plain, f"the logits of the model must be linear in its last state, those of a {kind} model are not")
        return tuple(tuple((part.shape[1], part.shape[3]) for part in pair) for pair in pairs)


def _newest(layer: Any) -> tuple[Any, Any]:
    """Keys and values of a layer of the cache; None where it has none."""
    return getattr(layer, "keys", None), getattr(layer, "values", None)


def _untrained(config: Mapping[str, Any]) -> Any:
    """A model of this config with random weights, which are loaded later."""
    transformers = transformers_package()
    plain = {name: value for name, value in config.items() if name not in ("auto_map", "model_type")}
    try:
        with seeded(0), quiet(transformers):
            settings = transformers.AutoConfig.for_model(config.get("model_type", ""), **plain)
            # Imported here: below, what its module computes at import would be without numbers, too.
            _ = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)]
            with torch.device("meta"):  # shapes without memory
                shapes = transformers.AutoModelForCausalLM.from_config(settings, trust_remote_code=False)
            check_weights(sum(parameter.numel() for parameter in shapes.parameters()), "a causal language model")
            return transformers.AutoModelForCausalLM.from_config(settings, trust_remote_code=False, dtype=torch.float32)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"model must be the config of a causal language model, found {error}") from None
