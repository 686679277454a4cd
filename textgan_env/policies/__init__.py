"""Policies: the protocol, our own, and the registry by which a saved run names the one it was made with."""

import inspect
from collections.abc import Mapping
from typing import Any

from textgan_env.policies.base import Decoding, Policy, PolicyModule, State, map_state
from textgan_env.policies.causal_lm import CausalLMPolicy
from textgan_env.policies.combined import EnsemblePolicy, MemoriserPolicy, MixturePolicy
from textgan_env.policies.lagged import LaggedCopy
from textgan_env.policies.leaked import LeakedPolicy
from textgan_env.policies.lstm import LSTMPolicy
from textgan_env.policies.ngram import NGramPolicy, UniformPolicy, UnigramPolicy
from textgan_env.policies.table import TablePolicy
from textgan_env.utils.errors import InputError, require

__all__ = [
    "POLICIES",
    "CausalLMPolicy",
    "Decoding",
    "EnsemblePolicy",
    "LSTMPolicy",
    "LaggedCopy",
    "LeakedPolicy",
    "MemoriserPolicy",
    "MixturePolicy",
    "NGramPolicy",
    "Policy",
    "PolicyModule",
    "State",
    "TablePolicy",
    "UniformPolicy",
    "UnigramPolicy",
    "make_policy",
    "map_state",
]

#: Fixed on purpose: what a file can name is listed here, it never says what to import. Policies made of others are not
#: saved: they are made again.
POLICIES: dict[str, type[PolicyModule]] = {
    policy.kind: policy
    for policy in (
        CausalLMPolicy,
        LeakedPolicy,
        LSTMPolicy,
        NGramPolicy,
        TablePolicy,
        UniformPolicy,
        UnigramPolicy,
    )
}


def make_policy(kind: str, config: Mapping[str, Any]) -> PolicyModule:
    """Build a policy as it was saved; its weights are then loaded with ``load_state_dict``.

    Args:
        kind: A key of `POLICIES`.
        config: What `PolicyModule.config` gave.

    Raises:
        InputError: If the kind is unknown or the config is not one of this kind.
    """
    require(kind in POLICIES, f"the kind of a policy must be one of {', '.join(POLICIES)}, found '{kind}'")
    try:
        inspect.signature(POLICIES[kind]).bind(**config)
    except TypeError as error:
        raise InputError(f"the config of the {kind} policy does not fit: {error}") from None
    return POLICIES[kind](**config)
