"""Probabilistic grammars, and the automata that they are where texts have at most T tokens. Loads no torch.

A grammar is written as rules, a line each: a name, ``=``, and alternatives between bars, each a weight and what it
stands for. A name of another rule stands for its texts, anything else for its characters; a weight alone is the empty
text. Grammars must be LL(1): in every place the next character decides which alternative it is. So a text has one
derivation at most, its probability is the product of that derivation's weights, and reading it from left to right is
all that parsing takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from textgan_env.text.vocabulary import EOS, Vocabulary
from textgan_env.utils.errors import InputError, require

#: What is still to be written, the next symbol first.
Stack = tuple[str, ...]
_MOST_STATES = 20_000
_DEEPEST = 100  # alternatives that stand for one another before a character is written

_DIGITS = "301 1 | 176 2 | 125 3 | 97 4 | 79 5 | 67 6 | 58 7 | 51 8 | 46 9"  # Benford's law
#: Sums of products of numbers and of sums in parentheses.
_ARITHMETIC = f"""
Sum = 1 Product MoreTerms
MoreTerms = .4 | .35 + Product MoreTerms | .25 - Product MoreTerms
Product = 1 Factor MoreFactors
MoreFactors = .55 | .3 * Factor MoreFactors | .15 / Factor MoreFactors
Factor = .75 Number | .25 ( Sum )
Number = 1 First MoreDigits
First = {_DIGITS}
MoreDigits = .6 | .1 0 MoreDigits | .3 First MoreDigits
"""


def _json(depth: int) -> str:
    """JSON without blanks: an object or a list, nested at most so deep."""
    rules = [
        'Start = .6 { Pairs1 } | .4 [ Values1 ]',
        'Text = 1 " Letter Letters "',
        "Letters = .4 | .6 Letter Letters",
        "Letter = 5 a | 3 b | 2 c | 1 d",
        "MoreDigits = .7 | .1 0 MoreDigits | .2 First MoreDigits",
        f"First = {_DIGITS}",
    ]  # fmt: skip
    for level in range(1, depth + 1):
        deeper = f"| .1 {{ Pairs{level + 1} }} | .15 [ Values{level + 1} ]" if level < depth else ""
        rules += [
            f"Value{level} = .3 Text | .3 First MoreDigits | .05 0 | .05 true | .05 false | .05 null {deeper}",
            f"Pairs{level} = .03 | .97 Text : Value{level} MorePairs{level}",
            f"MorePairs{level} = .5 | .5 , Text : Value{level} MorePairs{level}",
            f"Values{level} = .03 | .97 Value{level} MoreValues{level}",
            f"MoreValues{level} = .4 | .6 , Value{level} MoreValues{level}",
        ]
    return "\n".join(rules)


@dataclass(frozen=True, eq=False)
class Automaton:
    """The texts of a grammar, END counted as their last token, as states that tokens lead to.

    Attributes:
        tokens: The V tokens, END first.
        share_SV: float64; the probability of each token in each state, as the grammar has it.
        next_SV: int64; the state that each token leads to; S - 1, where nothing can be written, if it cannot stand
            there or ends the text.
    """

    tokens: tuple[str, ...]
    share_SV: NDArray[np.float64]
    next_SV: NDArray[np.int64]

    def finishing(self, most: int) -> NDArray[np.float64]:
        """Probability that a text in each state ends within so many more tokens, float64 (most + 1, S)."""
        end_S = self.share_SV[:, 0]
        found = [np.zeros(len(end_S))]
        for _ in range(most):
            found.append(end_S + (self.share_SV[:, 1:] * found[-1][self.next_SV[:, 1:]]).sum(1))
        return np.stack(found)


@dataclass(frozen=True)
class Grammar:
    """A probabilistic grammar.

    Args:
        rules: As above; the first is what a text is.

    Raises:
        InputError: If a rule cannot be read, or weights are not positive.
    """

    rules: str

    def __post_init__(self) -> None:
        """Read the rules once."""
        require(bool(self.alternatives), "a grammar needs a rule")

    @cached_property
    def alternatives(self) -> Mapping[str, tuple[tuple[float, Stack], ...]]:
        """Name of a rule -> the probability of each alternative, and the symbols that it stands for."""
        lines = [line.partition(" = ") for line in self.rules.splitlines() if line.strip()]
        names = [name for name, _, _ in lines]
        require(len(set(names)) == len(names), "a grammar has each rule once")
        return {name: _alternatives(name, said, names) for name, _, said in lines}

    @property
    def characters(self) -> str:
        """What texts are made of, in alphabetical order."""
        symbols = {one for rule in self.alternatives.values() for _, stack in rule for one in stack}
        return "".join(sorted(symbols - self.alternatives.keys()))

    def continued(self, stack: Stack) -> dict[str, tuple[float, Stack]]:
        """What may come next where a stack is still to be written: character -> its probability and the stack after it.

        The end of the text is the character "".

        Raises:
            InputError: If one character can stand for two alternatives, or a rule stands for itself.
        """
        return self._continued(stack, _DEEPEST)

    def _continued(self, stack: Stack, deepest: int) -> dict[str, tuple[float, Stack]]:
        require(deepest > 0, f"a rule of the grammar begins with itself: {' '.join(stack[:3])}")
        if not stack or stack[0] not in self.alternatives:
            return {stack[0] if stack else "": (1.0, stack[1:])}
        found: dict[str, tuple[float, Stack]] = {}
        for share, symbols in self.alternatives[stack[0]]:
            for character, (then, rest) in self._continued((*symbols, *stack[1:]), deepest - 1).items():
                twice = f"the grammar is not LL(1): {character!r} can begin two alternatives of {stack[0]}"
                require(character not in found, twice)
                found[character] = (share * then, rest)
        return found

    def automaton(self, max_length: int) -> Automaton:
        """The texts of at most T tokens, END counted, as an automaton.

        Args:
            max_length: T; states that only longer texts reach are left out.

        Raises:
            InputError: If the grammar is not LL(1), or there are too many states.
        """
        start: Stack = (next(iter(self.alternatives)),)
        tokens = ("", *self.characters)
        numbers, fresh, rows = {start: 0}, [start], []
        for _ in range(max_length):
            reached: list[Stack] = []
            for stack in fresh:
                rows.append(self.continued(stack))
                for character, (_, after) in rows[-1].items():
                    if character and after not in numbers:
                        numbers[after] = len(numbers)
                        reached.append(after)
            require(len(numbers) <= _MOST_STATES, f"texts of {max_length} tokens take over {_MOST_STATES:,} states")
            fresh = reached
        # Who is reached by the last token only has no row: its text does not end within T tokens.
        dead = len(rows)
        share_SV = np.zeros((dead + 1, len(tokens)))
        next_SV = np.full(share_SV.shape, dead)
        for state, row in enumerate(rows):
            for character, (share, after) in row.items():
                share_SV[state, tokens.index(character)] = share
                if character and numbers[after] < dead:
                    next_SV[state, tokens.index(character)] = numbers[after]
        return Automaton((EOS, *tokens[1:]), share_SV, next_SV)


def _alternatives(name: str, said: str, names: list[str]) -> tuple[tuple[float, Stack], ...]:
    """The alternatives of one rule, their weights made probabilities."""
    found: list[tuple[float, Stack]] = []
    for alternative in said.split(" | "):
        weight, *words = alternative.split()
        try:
            number = float(weight)
        except ValueError:
            raise InputError(f"rule {name} of the grammar: expected a weight first, found {weight!r}") from None
        require(0 < number < np.inf, f"rule {name} of the grammar: expected a weight above 0, found {weight}")
        found.append((number, tuple(one for word in words for one in ([word] if word in names else word))))
    total = sum(weight for weight, _ in found)
    return tuple((weight / total, stack) for weight, stack in found)


#: Task -> its grammar, T, and what its texts are.
GRAMMARS: dict[str, tuple[Grammar, int, str]] = {
    "arithmetic-grammar": (Grammar(_ARITHMETIC), 24, "arithmetic such as 12*(3+4)"),
    "json-grammar": (Grammar(_json(3)), 32, 'JSON such as {"a":[1,true]}'),
}


def grammar_vocabulary(automaton: Automaton) -> Vocabulary:
    """The tokens of an automaton as a vocabulary of characters with an end token."""
    return Vocabulary(automaton.tokens, mode="char", eos=0)
