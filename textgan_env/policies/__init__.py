"""Policies: the protocol, our own, and the registry by which a saved run names the one it was made with."""

import inspect
from collections.abc import Mapping
from typing import Any

from textgan_env.ops.templates import BLANK
from textgan_env.policies.adapted import AdaptedPolicy
from textgan_env.policies.base import Decoding, Policy, PolicyModule, State, map_state
from textgan_env.policies.causal_lm import CausalLMPolicy
from textgan_env.policies.combined import EnsemblePolicy, MemoriserPolicy, MixturePolicy
from textgan_env.policies.given import GivenPolicy
from textgan_env.policies.infilling import InfillingPolicy
from textgan_env.policies.lagged import LaggedCopy
from textgan_env.policies.latent import LatentPolicy
from textgan_env.policies.leaked import LeakedPolicy
from textgan_env.policies.lstm import LSTMPolicy
from textgan_env.policies.ngram import NGramPolicy, UniformPolicy
from textgan_env.policies.ratio import RatioDiscriminator
from textgan_env.policies.relational import RelationalPolicy
from textgan_env.policies.table import TablePolicy
from textgan_env.policies.transformer import TransformerPolicy
from textgan_env.utils import kinds
from textgan_env.utils.errors import InputError, require_known

__all__ = [
    "BLANK", "POLICIES", "AdaptedPolicy",
    "CausalLMPolicy", "Decoding", "EnsemblePolicy", "GivenPolicy", "InfillingPolicy", "LSTMPolicy",
    "LaggedCopy", "LatentPolicy", "LeakedPolicy", "MemoriserPolicy", "MixturePolicy", "NGramPolicy", "Policy",
    "PolicyModule", "RatioDiscriminator", "RelationalPolicy", "State", "TablePolicy", "TransformerPolicy",
    "UniformPolicy", "make_policy", "map_state",
]  # fmt: skip

#: Name -> class of every policy that is saved with its weights.
POLICIES: dict[str, type[PolicyModule]] = kinds.classes(kinds.POLICIES)


def make_policy(kind: str, config: Mapping[str, Any]) -> PolicyModule:
    """Build a policy as it was saved; its weights are then loaded with ``load_state_dict``.

    Args:
        kind: A key of `POLICIES`.
        config: What `PolicyModule.config` gave.

    Raises:
        InputError: If the kind is unknown or the config is not one of this kind.
    """
    require_known("policy", kind, POLICIES)
    policy = POLICIES[kind]
    try:
        inspect.signature(policy).bind(**config)
    except TypeError as error:
        raise InputError(f"the config of the {kind} policy does not fit: {error}") from None
    made: PolicyModule = policy(**config)
    return made
