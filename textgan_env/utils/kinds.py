"""Networks by name: what options offer, what saved runs name, and which class each name stands for. Loads no torch.

A new discriminator or policy is its file and one row here: options, ``--help``, checkpoints and the error sentences
follow. A file can name a row of these tables only; it never says what to import.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from tyro.conf import arg

from textgan_env.utils.errors import require


@dataclass(frozen=True)
class Kind:
    """One row: a class and what it is.

    Attributes:
        place: ``module:Class``, relative to the package.
        about: What it is, as ``--help`` says it after the name; no full stop.
        network: Whether it is a module with weights, which is built from plain options and stands in checkpoints.
        offered: Whether an agent's option offers it; the others are made for one purpose.
    """

    place: str
    about: str
    network: bool = True
    offered: bool = True

    def load(self) -> type[Any]:
        """Import the class."""
        module, _, name = self.place.partition(":")
        found: type[Any] = getattr(import_module(f"textgan_env.{module}"), name)
        return found


#: Discriminators, by the name that options and saved runs use.
DISCRIMINATORS: Mapping[str, Kind] = {
    "pair": Kind("discriminators.pair:PairDiscriminator", "a small network of words and near pairs"),
    "conv": Kind("discriminators.conv:ConvDiscriminator", "the published CNN of SeqGAN"),
    "bleu": Kind(
        "evaluation.bleu:BleuDiscriminator",
        "no network, but BLEU-4 against the training texts, which never learns (PG-BLEU)",
        network=False,
    ),
}
#: Policies, by the name that options and saved runs use. Policies made of others are not saved: they are made again.
POLICIES: Mapping[str, Kind] = {
    "lstm": Kind("policies.lstm:LSTMPolicy", "embedding, LSTM and a linear layer"),
    "leaked": Kind("policies.leaked:LeakedPolicy", "LeakGAN's Manager and Worker", offered=False),
    "causal_lm": Kind("policies.causal_lm:CausalLMPolicy", "a language model of transformers", offered=False),
    "ngram": Kind("policies.ngram:NGramPolicy", "counts of n-grams with back-off", offered=False),
    "table": Kind("policies.table:TablePolicy", "a logit for each prefix", offered=False),
    "uniform": Kind("policies.ngram:UniformPolicy", "every token alike", offered=False),
    "unigram": Kind("policies.ngram:UnigramPolicy", "a probability for each token", offered=False),
}


def offered(kinds: Mapping[str, Kind], *, networks_only: bool = False) -> tuple[str, ...]:
    """Names that an option offers, in the order of the table."""
    return tuple(name for name, kind in kinds.items() if kind.offered and (kind.network or not networks_only))


def classes(kinds: Mapping[str, Kind]) -> dict[str, type[Any]]:
    """Name -> class of every network of a table."""
    return {name: kind.load() for name, kind in kinds.items() if kind.network}


def named(classes: Mapping[str, type[Any]], kind: str, what: str) -> type[Any]:
    """The class of a name.

    Args:
        classes: Name -> class, as `classes` gives it.
        kind: The name.
        what: What it is a kind of, for the sentence: "discriminator" or "policy".

    Raises:
        InputError: If there is no such name.
    """
    require(kind in classes, f"the kind of a {what} must be one of {', '.join(classes)}, found '{kind}'")
    return classes[kind]


def explained(kinds: Mapping[str, str]) -> str:
    """Names and what they stand for, as ``--help`` shows them."""
    return "; ".join(f"{name}: {about}" for name, about in kinds.items()) + "."


def _help(kinds: Mapping[str, Kind], names: tuple[str, ...]) -> str:
    """The help of an option that offers these names."""
    return explained({name: kinds[name].about for name in names})


# Types of options: choices and help come from the tables above. A type checker knows no such choices: to it they are
# text.
if TYPE_CHECKING:
    DiscriminatorKind: TypeAlias = str
    DiscriminatorNetworkKind: TypeAlias = str
    PolicyKind: TypeAlias = str
else:
    #: Any discriminator, BLEU among them.
    DiscriminatorKind = Annotated[
        Literal[offered(DISCRIMINATORS)], arg(help=_help(DISCRIMINATORS, offered(DISCRIMINATORS)))
    ]
    _NETWORKS = offered(DISCRIMINATORS, networks_only=True)
    #: Discriminators that learn.
    DiscriminatorNetworkKind = Annotated[Literal[_NETWORKS], arg(help=_help(DISCRIMINATORS, _NETWORKS))]
    #: Policies that an agent can begin with.
    PolicyKind = Annotated[Literal[offered(POLICIES)], arg(help=_help(POLICIES, offered(POLICIES)))]
