"""A pretrained language model of whose weights none is changed: a low-rank adapter beside them learns."""

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from textgan_env.ops.sampling import seeded
from textgan_env.policies.causal_lm import CausalLMPolicy
from textgan_env.text.language_models import quiet, read_causal_lm, transformers_package, weights_hash
from textgan_env.utils.errors import InputError, require, require_at_least, require_package

#: Beside a matrix W the adapter adds SCALE * A B: peft's lora_alpha is SCALE times the rank.
SCALE = 2


class AdaptedPolicy(CausalLMPolicy):
    """LoRA (Hu et al. 2021) by peft, on the matrices that it takes by default: of a Llama those of queries and values.

    The base model is no part of this module: its weights are no parameters, copies of the policy share them, and no
    checkpoint holds them. A saved policy names its base, and is refused where that has other weights now.

    Args:
        vocab_size: V.
        start_token: As in `CausalLMPolicy`, and so are ``max_length``, ``token_ids`` and ``forbidden``.
        max_length: T.
        token_ids: V + 1 numbers of the model.
        base: The language model, by name or its folder (`read_causal_lm`).
        base_hash: `weights_hash` of the base when the adapter was made; "": it is made now.
        rank: Of the two matrices that are learnt beside each one; 8 in the paper's default.
        seed: Of the first of the two; the second is 0, so that the policy begins as its base.
        forbidden: Tokens that are never generated.

    Raises:
        InputError: If the base has other weights than the adapter was made for, the rank is below 1, peft does not know
            the kind of model, or as `CausalLMPolicy`.
        MissingDataError: If peft is not installed, or as `read_causal_lm`.
    """

    kind: ClassVar[str] = "adapted"
    model: Any
    adapter: nn.ParameterDict

    def __init__(
        self,
        vocab_size: int,
        *,
        start_token: int,
        max_length: int,
        token_ids: Sequence[int],
        base: str,
        base_hash: str = "",
        rank: int = 8,
        seed: int = 0,
        forbidden: Sequence[int] = (),
    ) -> None:
        require_at_least(1, rank=rank)
        found = weights_hash(base)
        same = base_hash in ("", found)
        require(same, f"the adapter was made for other weights than those of the language model '{base}'")
        sizes: dict[str, Any] = {"start_token": start_token, "max_length": max_length, "token_ids": token_ids}
        super().__init__(vocab_size, **sizes, model=_adapted(base, rank, seed), forbidden=forbidden)
        model = self._modules.pop("model")
        assert model is not None
        # Not as a part of this module, which would make the base's weights parameters of it.
        object.__setattr__(self, "model", model.eval())
        learns = {name: part for name, part in model.named_parameters() if part.requires_grad}
        self.adapter = nn.ParameterDict({_short(name): part for name, part in learns.items()})
        del self._settings["model"]
        self._settings |= {"base": os.fspath(base), "base_hash": found, "rank": rank}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with an adapter of its own, beside the same base."""
        own = {id(part) for part in self.adapter.values()}
        memo.update({id(part): part for part in self.model.parameters() if id(part) not in own})
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What moves the policy to a device moves its base, too."""
        self.model._apply(fn)
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]


def _adapted(base: str, rank: int, seed: int) -> Any:
    """The base with an adapter in it, which alone has gradients."""
    require_package("peft", "smollm", "LoRA")
    with quiet(transformers_package()):
        from peft import LoraConfig, inject_adapter_in_model
    model = read_causal_lm(base)
    # GPT-2 keeps its matrices the other way round, and peft warns where it is not told so.
    turned = any(type(part).__name__ == "Conv1D" for part in model.modules())
    try:
        with seeded(seed):
            config = LoraConfig(r=rank, lora_alpha=SCALE * rank, fan_in_fan_out=turned)
            inject_adapter_in_model(config, model)
    except ValueError as error:
        kind = model.config.model_type
        raise InputError(f"peft has no LoRA for a {kind} model: {str(error).splitlines()[0]}") from None
    return model


def _short(name: str) -> str:
    """The name of a matrix of the adapter, without what all of them have in theirs, and without dots."""
    for part in ("model.", ".weight", ".default", "lora_"):
        name = name.replace(part, "")
    return name.replace(".", "-")
