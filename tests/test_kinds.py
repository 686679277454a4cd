"""Kinds of networks by name: each row is the class that calls itself so, and options offer what an agent can take."""

from dataclasses import dataclass

import pytest
import tyro

from textgan_env.utils import kinds
from textgan_env.utils.kinds import DiscriminatorKind, DiscriminatorNetworkKind, PolicyKind


@dataclass(frozen=True)
class Options:
    """Options as agents have them."""

    any_discriminator: DiscriminatorKind = "pair"
    discriminator: DiscriminatorNetworkKind = "pair"
    policy: PolicyKind = "lstm"


@pytest.mark.parametrize("table", [kinds.DISCRIMINATORS, kinds.POLICIES], ids=["discriminators", "policies"])
def test_every_name_stands_for_the_class_that_calls_itself_so(table: dict[str, kinds.Kind]) -> None:
    assert {name: found.kind for name, found in kinds.classes(table).items()} == {
        name: name for name, kind in table.items() if kind.network
    }
    assert all(isinstance(kind.load(), type) for kind in table.values())


@pytest.mark.moves_global_rng  # the library that reads command lines does
@pytest.mark.parametrize(("option", "taken", "refused"), [
    ("any-discriminator", ["pair", "conv", "recurrent", "bleu"], "lstm"),
    ("discriminator", ["pair", "conv", "recurrent"], "bleu"),
    ("policy", ["lstm"], "leaked"),
])  # fmt: skip
def test_an_option_takes_what_is_offered_and_says_what_each_is(
    option: str, taken: list[str], refused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in taken:
        assert name in vars(tyro.cli(Options, args=[f"--{option}", name])).values()
    for words in ([f"--{option}", refused], ["--help"]):
        with pytest.raises(SystemExit):
            tyro.cli(Options, args=words)
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    rows = {**kinds.DISCRIMINATORS, **kinds.POLICIES}
    assert all(f"{name}: {rows[name].about}" in said for name in taken)
