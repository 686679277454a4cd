"""The one door to the screen: what is printed may stand in a file of somebody else, and could steer a terminal."""

import json
import re
import sys
from typing import TextIO

#: Control characters but line end and tab, line ends that are none to a terminal, what turns the direction of a line
#: round, and halves of characters.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_STEERING_LINE = re.compile(f"{_STEERING.pattern}|[\t\n]")


def printable(text: str, encoding: str = "utf-8", *, line: bool = False) -> str:
    r"""A text as a terminal can show it: what would steer it, or is not in its encoding, is spelled out.

    Args:
        text: Any text; line ends and tabs stay.
        encoding: Of the terminal.
        line: Spell line ends and tabs out, too.

    Returns:
        The text, with ``\x1b``, ``\u20ac`` and the like for such characters.
    """
    shown = (_STEERING_LINE if line else _STEERING).sub(lambda found: ascii(found[0])[1:-1], text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def say(text: object = "", *, file: TextIO | None = None, flush: bool = True) -> None:
    """Print a line, as `printable` spells it.

    Args:
        text: What to print, of any type that has a text.
        file: Where; None: standard output.
        flush: Whether it is to be seen at once.
    """
    stream = sys.stdout if file is None else file
    # A stream in memory has no encoding, and takes everything.
    # One write, so that the lines of several processes do not come between text and line end.
    stream.write(printable(str(text), getattr(stream, "encoding", None) or "utf-8") + "\n")
    if flush:
        stream.flush()


def say_json(document: object) -> None:
    """Print a document as JSON in ASCII, which every terminal can show."""
    say(json.dumps(document, indent=2))
