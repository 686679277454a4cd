"""Networks by name: what options offer, what saved runs name, and which class each name stands for. Loads no torch.

A new discriminator or policy is its file and one row here: options, ``--help``, checkpoints and the error sentences
follow. A file can name a row of these tables only; it never says what to import.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from tyro.conf import arg


@dataclass(frozen=True)
class Kind:
    """One row: a class and what it is.

    Attributes:
        place: ``module:Class``, relative to the package.
        about: What it is, as ``--help`` says it after the name; no full stop.
        network: Whether it is a module with weights, which is built from plain options and stands in checkpoints.
        offered: Whether an agent's option offers it; the others are made for one purpose.
        of_words: Whether it reads words, which another model splits: it is not built from sizes alone, and has no
            gradient in the tokens.
    """

    place: str
    about: str
    network: bool = True
    offered: bool = True
    of_words: bool = False

    def load(self) -> type[Any]:
        """Import the class."""
        module, _, name = self.place.partition(":")
        found: type[Any] = getattr(import_module(f"textgan_env.{module}"), name)
        return found


#: Discriminators, by the name that options and saved runs use.
DISCRIMINATORS: Mapping[str, Kind] = {
    "pair": Kind("discriminators.pair:PairDiscriminator", "a small network of words and near pairs"),
    "conv": Kind("discriminators.conv:ConvDiscriminator", "the published CNN of SeqGAN"),
    "recurrent": Kind("discriminators.recurrent:RecurrentDiscriminator", "an LSTM with a logit for every prefix"),
    "infilling": Kind(
        "discriminators.infilling:InfillingDiscriminator", "the same, given the template of a text", offered=False
    ),
    "lm": Kind(
        "discriminators.lm:LMDiscriminator", "a small network on what a language model makes of a text", of_words=True
    ),
    "rank": Kind("discriminators.rank:RankDiscriminator", "how near to real texts, beside others", offered=False),
    "bleu": Kind(
        "evaluation.bleu:BleuDiscriminator",
        "no network, but BLEU-4 against the training texts, which never learns (PG-BLEU)",
        network=False,
    ),
}
#: Policies, by the name that options and saved runs use. Policies made of others are not saved: they are made again.
POLICIES: Mapping[str, Kind] = {
    "lstm": Kind("policies.lstm:LSTMPolicy", "embedding, LSTM and a linear layer"),
    "relational": Kind("policies.relational:RelationalPolicy", "memory slots that attend to each other, as RelGAN's"),
    "transformer": Kind("policies.transformer:TransformerPolicy", "two layers of attention to all tokens before"),
    "latent": Kind("policies.latent:LatentPolicy", "the decoder of a text VAE, with its encoder", offered=False),
    "infilling": Kind("policies.infilling:InfillingPolicy", "fills blanks, and sees both sides of them", offered=False),
    "leaked": Kind("policies.leaked:LeakedPolicy", "LeakGAN's Manager and Worker", offered=False),
    "causal_lm": Kind("policies.causal_lm:CausalLMPolicy", "a language model of transformers", offered=False),
    "adapted": Kind("policies.adapted:AdaptedPolicy", "the same, of whose weights only a LoRA learns", offered=False),
    "ngram": Kind("policies.ngram:NGramPolicy", "counts of n-grams with back-off", offered=False),
    "table": Kind("policies.table:TablePolicy", "a logit for each prefix", offered=False),
    "uniform": Kind("policies.ngram:UniformPolicy", "every token alike", offered=False),
}
#: Pretrained language models that are known by name, see `textgan_env.text.language_models`.
LANGUAGE_MODELS = ("smollm2",)
#: How an ensemble's next-token probabilities are made of those of its policies.
MeanName = Literal["arithmetic", "geometric"]


def classes(kinds: Mapping[str, Kind]) -> dict[str, type[Any]]:
    """Name -> class of every network of a table."""
    return {name: kind.load() for name, kind in kinds.items() if kind.network}


def token_networks() -> list[str]:
    """Discriminators that learn and read the tokens themselves, by name."""
    return [name for name, kind in DISCRIMINATORS.items() if kind.offered and kind.network and not kind.of_words]


def _choice(kinds: Mapping[str, Kind], *, networks_only: bool = False, among: Sequence[str] | None = None) -> Any:
    """The type of an option that offers kinds in the order of their table, and says what each is."""
    offered = [name for name, kind in kinds.items() if kind.offered and (kind.network or not networks_only)]
    names = tuple(name for name in offered if among is None or name in among)
    return Annotated[Literal[names], arg(help="; ".join(f"{name}: {kinds[name].about}" for name in names) + ".")]


# A type checker knows no such choices: to it they are text.
if TYPE_CHECKING:
    DiscriminatorKind: TypeAlias = str
    DiscriminatorNetworkKind: TypeAlias = str
    TokenNetworkKind: TypeAlias = str
    PolicyKind: TypeAlias = str
else:
    #: Any discriminator, BLEU among them.
    DiscriminatorKind = _choice(DISCRIMINATORS)
    #: Discriminators that learn.
    DiscriminatorNetworkKind = _choice(DISCRIMINATORS, networks_only=True)
    #: Those of them that read the tokens themselves.
    TokenNetworkKind = _choice(DISCRIMINATORS, among=token_networks())
    #: Policies that an agent can begin with.
    PolicyKind = _choice(POLICIES)
