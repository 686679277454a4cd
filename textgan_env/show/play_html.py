"""The page of `textgan play` as HTML, in the style of the report: see ``textgan_env/show/viewer/style.css``."""

import html
import math
from collections.abc import Sequence
from importlib.resources import files
from itertools import zip_longest

from textgan_env.ops.colours import credit_colour, ink_on
from textgan_env.show.play import Page, Token
from textgan_env.text.vocabulary import EOS

_LIMITS = (0.0, 1.0)  # Q is a mean of probabilities: the pale middle is .5
_VIEWER = files("textgan_env") / "show" / "viewer"

_SHARED, _OWN = ((_VIEWER / name).read_text("utf-8") for name in ("style.css", "play.css"))
#: The style sheet: what the page shares with the report, once more with more weight than Gradio's rules for all that
#: stands in a page (it makes headings plain), and what it does to Gradio's own parts.
STYLE = f"{_SHARED}\n.gradio-container.gradio-container {{\n{_SHARED}}}\n{_OWN}"

#: The top of the page. The button does what that of the report does; Gradio's dark is a class of the body.
HEADER = """<header><div><p class="eyebrow">textgan_env play</p><h1>Let it write</h1>
<p class="lead">A policy writes token by token. A token stands on the colour of its Q: how real the discriminator
finds, on average, the texts that the same policy goes on to write from there.</p></div>
<button id="theme" type="button" aria-label="Switch between light and dark"
 onclick="document.body.classList.toggle('dark')"></button></header>"""

_ONE_SIDED = (
    "This policy sees only what stands before a blank, so what follows need not fit. A run of maskgan sees both."
)


def as_html(page: Page, number: int | None = None) -> str:
    """The card of a run, every text in the direction that its script is read in.

    Args:
        page: What the card shows.
        number: Of the run, where two stand side by side: it gives the run its colour.
    """
    return f'<article class="card">{_head(page, number)}{_body(page)}</article>'


def _head(page: Page, number: int | None) -> str:
    """The run's name, and how it writes."""
    tag = "" if number is None else f'<span class="tag" style="--run:var(--run{number - 1})">{number}</span>'
    control = [f'<span class="badge control">control: {html.escape(page.control)} reward</span>'] * bool(page.control)
    badges = [*control, *(f'<span class="badge">{html.escape(text)}</span>' for text in page.badges)]
    name = f"<h3>{tag}<bdi>{html.escape(page.name)}</bdi></h3>" if page.name else ""
    return f'<div class="head">{name}{"".join(badges)}</div>' if page.name else ""


def _body(page: Page) -> str:
    """Texts, or why there are none."""
    if page.error:
        return f'<p class="note" role="alert">{html.escape(page.error)}</p>'
    kind = "tokens joined" if page.joined else "tokens"
    lines = "".join(
        f'<li><div class="{kind}" dir="auto">{"".join(map(_tile, tokens))}</div>{_image(tokens, picture)}</li>'
        for tokens, picture in zip_longest(page.texts, page.pictures)
    )
    one_sided = f'<p class="note">{_ONE_SIDED}</p>' if page.one_sided else ""
    texts = f'{one_sided}<ul class="texts">{lines}</ul>' if lines else ""
    command = f'<p class="discriminator">The same texts:</p><pre>{html.escape(page.command)}</pre>'
    return f'<p class="discriminator">{html.escape(page.note)}</p>{texts}{command if page.command else ""}'


def _image(tokens: Sequence[Token], address: str | None) -> str:
    """The drawing of a molecule beside its tokens."""
    if address is None:
        return ""
    text = "".join(token.word for token in tokens if token.word != EOS)
    return f'<img class="molecule" alt="The molecule {html.escape(text)}" src="{html.escape(address)}">'


def _tile(token: Token) -> str:
    """A token on the colour of its Q, for light and dark; one that was given has none."""
    ends = token.word == EOS
    word = (
        '<span class="word">' + ("end" if ends else html.escape("␣" if token.word == " " else token.word)) + "</span>"
    )
    kind = "token end" if ends else "token"
    if math.isnan(token.q):
        return f'<span class="{kind} given">{word}<span class="q">given</span></span>'
    colours = [credit_colour(token.q, _LIMITS, dark=dark) for dark in (False, True)]
    paint = f"background:{_both(colours)};color:{_both([ink_on(colour) for colour in colours])}"
    value = f"{token.q:.2f}".removeprefix("0")
    return f'<span class="{kind}" style="{paint}">{word}<span class="q">{value}</span></span>'


def _both(colours: list[tuple[int, int, int]]) -> str:
    """A colour on light paper, and on dark paper."""
    return f"light-dark({', '.join(f'rgb{colour}' for colour in colours)})"


def legend() -> str:
    """What the numbers and colours mean."""
    cells = ([credit_colour(step / 12, _LIMITS, dark=dark) for dark in (False, True)] for step in range(13))
    ramp = "".join(f'<i style="background:{_both(colours)}"></i>' for colours in cells)
    return (
        f'<div class="legend"><span>Q 0: less real</span><span class="ramp" aria-hidden="true">{ramp}</span>'
        "<span>1: more real</span><span>In the middle, at .5, the discriminator does not know. Under the last token "
        "stands its score of the whole text.</span></div>"
    )
