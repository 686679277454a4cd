"""Diagrams of the docs as SVG: docs/images/diagram_*.svg. They are readable on light and on dark pages.

``python -m benchmarks.diagrams`` draws them all. Green is the generator G, violet the discriminator D, grey is data.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal

from benchmarks.results import command, image_path
from textgan_env.utils.files import write_safely

#: What a box is part of.
Kind = Literal["g", "d", "data", "plain"]
#: x, y in pixels.
Point = tuple[float, float]

_LINE = 17.0  # pixels from one line of text to the next
# An opaque card: where the page and the reader's system disagree on dark or light, text and card still agree.
_STYLE = """
text { font: 14px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #212529; text-anchor: middle }
.title { font-weight: 600 } .small { font-size: 12.5px; fill: #50555b }
.left { text-anchor: start } .right { text-anchor: end }
.card { fill: #ffffff; stroke: #d5d8dc } .arrow { fill: none; stroke: #6b6f76; stroke-width: 1.6 }
.learn { stroke-dasharray: 5 4 } .head { fill: #6b6f76 }
.g { fill: #e3f1e8; stroke: #2c7a4b } .d { fill: #eee6f6; stroke: #7b4ea3 }
.data { fill: #f1f3f5; stroke: #9aa0a6 } .plain { fill: #ffffff; stroke: #9aa0a6 }
@media (prefers-color-scheme: dark) {
text { fill: #e6e8ea } .small { fill: #b4b9bf } .card { fill: #1b1e22; stroke: #3a3f45 }
.arrow { stroke: #9aa0a6 } .head { fill: #9aa0a6 } .g { fill: #17382a; stroke: #57b585 }
.d { fill: #33254a; stroke: #b18ee0 } .data { fill: #2a2e33; stroke: #80868c } .plain { fill: #1b1e22; stroke: #80868c }
}"""


@dataclass
class Diagram:
    """Boxes and arrows on a card.

    Attributes:
        width: In pixels.
        height: In pixels.
        about: What it shows, for readers who do not see it.
        parts: The SVG so far.
    """

    width: int
    height: int
    about: str
    parts: list[str] = field(default_factory=list)

    def box(self, kind: Kind, at: Point, size: Point, title: str, *lines: str) -> None:
        """A box with its left upper corner at a point: a title and further lines, in its middle."""
        (x, y), (width, height) = at, size
        self.parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7"/>')
        top = y + height / 2 - _LINE * len(lines) / 2 + 5
        self.text((x + width / 2, top), title, style="title")
        for number, line in enumerate(lines, start=1):
            self.text((x + width / 2, top + number * _LINE), line, style="small")

    def text(self, at: Point, text: str, *, style: str = "small") -> None:
        """One line, ``a_{b}`` with an index; the point is its middle, or the end that the style names."""
        index = r'<tspan dy="4" font-size="72%">\1</tspan><tspan dy="-4">&#8203;</tspan>'
        shown = re.sub(r"_\{([^}]*)\}", index, escape(text))
        self.parts.append(f'<text class="{style}" x="{at[0]:g}" y="{at[1]:g}">{shown}</text>')

    def arrow(self, *points: Point, label: str = "", label_at: Point | None = None, learns: bool = False) -> None:
        """An arrow through points, with a label; dashed where something learns along it."""
        path = " L".join(f"{x:g} {y:g}" for x, y in points)
        style = "arrow learn" if learns else "arrow"
        self.parts.append(f'<path class="{style}" d="M{path}" marker-end="url(#head)"/>')
        if label:
            (x0, y0), (x1, y1) = points[0], points[1]
            self.text(label_at or ((x0 + x1) / 2, (y0 + y1) / 2 - 7), label)

    def svg(self) -> str:
        """The whole picture."""
        head = '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        head += '<path class="head" d="M0 0 L10 5 L0 10 z"/></marker>'
        card = f'<rect class="card" x=".5" y=".5" width="{self.width - 1}" height="{self.height - 1}" rx="9"/>'
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        named = f"<title>{escape(self.about)}</title><style>{_STYLE}</style><defs>{head}</defs>"
        body = "\n".join(self.parts)
        return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>{named}\n{card}\n{body}\n</svg>\n'


def environment() -> Diagram:
    """The loop of agent and environment."""
    about = "An agent chooses tokens, the environment appends them, a discriminator scores the finished text"
    drawn = Diagram(760, 330, about)
    drawn.box("g", (30, 60), (190, 90), "agent: policy G", "prefix → distribution", "of the next token")
    rules = ("appends the token to the text;", "the text ends at its end token,", "or after T tokens")
    drawn.box("plain", (330, 45), (240, 120), "environment", *rules)
    drawn.arrow((220, 82), (330, 82), label="action: token")
    drawn.arrow((330, 128), (220, 128), label="observation", label_at=(275, 121))
    drawn.box("d", (330, 240), (240, 62), "discriminator D", "text → probability that it is real")
    drawn.arrow((400, 165), (400, 240), label="text", label_at=(378, 222))
    drawn.arrow((500, 240), (500, 165), label="score", label_at=(478, 222))
    drawn.arrow((360, 165), (360, 195), (125, 195), (125, 150), label="reward, info", label_at=(240, 188))
    drawn.box("data", (620, 240), (110, 62), "real texts")
    drawn.arrow((620, 271), (570, 271), learns=True)
    drawn.box("data", (620, 60), (110, 90), "texts of G", "as they end")
    drawn.arrow((570, 105), (620, 105))
    drawn.arrow((675, 150), (675, 205), (540, 205), (540, 240), learns=True)
    for line, said in enumerate(("Dashed: D learns to tell real texts", "from texts of G, where you ask for it")):
        drawn.text((30, 262 + 18 * line), said, style="small left")
    return drawn


def seqgan() -> Diagram:
    """One round of SeqGAN."""
    about = "G's prefixes are completed N times; the mean of D's scores is the reward of the token"
    drawn = Diagram(760, 350, about)
    drawn.box("g", (30, 40), (150, 80), "generator G", "LSTM: prefix →", "next token")
    drawn.box("data", (240, 40), (170, 80), "B texts of G", "y_{1} … y_{T}")
    drawn.box("g", (470, 40), (260, 80), "rollouts", "G completes each prefix", "y_{1} … y_{t}  N times")
    drawn.arrow((180, 80), (240, 80))
    drawn.arrow((410, 80), (470, 80))
    drawn.box("d", (470, 175), (260, 66), "discriminator D", "CNN: text → probability of real")
    drawn.arrow((600, 120), (600, 175), label="completed texts", label_at=(656, 152))
    drawn.box("plain", (240, 175), (170, 66), "Q of y_{t}", "mean of the N scores")
    drawn.arrow((470, 208), (410, 208), label="scores")
    drawn.arrow((240, 208), (105, 208), (105, 120), learns=True)
    drawn.text((30, 262), "g-step: raise", style="small left")
    drawn.text((30, 280), "Q(y_{1} … y_{t-1}, y_{t}) · log G(y_{t} | y_{1} … y_{t-1})", style="small left")
    drawn.box("data", (470, 285), (110, 42), "real texts")
    drawn.box("data", (595, 285), (135, 42), "fresh texts of G")
    drawn.arrow((525, 285), (525, 241), learns=True)
    drawn.arrow((662, 285), (662, 241), learns=True)
    drawn.text((456, 311), "d-step: D learns to tell these apart", style="small right")
    drawn.text((30, 330), "Dashed: what learns", style="small left")
    return drawn


def leakgan() -> Diagram:
    """One token of LeakGAN."""
    about = "D leaks features of the prefix, the Manager sets a goal from them, the Worker generates toward it"
    drawn = Diagram(760, 430, about)
    drawn.box("data", (30, 175), (130, 70), "prefix", "y_{1} … y_{t}")
    drawn.box("d", (215, 40), (180, 80), "discriminator D", "features f_{t} of the", "prefix: what is leaked")
    drawn.arrow((95, 175), (95, 80), (215, 80))
    drawn.box("g", (450, 40), (150, 80), "Manager", "LSTM over f_{0} … f_{t}")
    drawn.arrow((395, 80), (450, 80), label="f_{t}")
    drawn.box("plain", (450, 175), (150, 70), "sum of the last", "c goals, then psi")
    drawn.arrow((525, 120), (525, 175), label="goal g_{t}", label_at=(562, 152))
    drawn.box("g", (215, 175), (180, 70), "Worker", "LSTM over the tokens")
    drawn.arrow((160, 210), (215, 210))
    drawn.box("plain", (215, 300), (385, 56), "softmax(O_{t} · w_{t} / alpha)", "distribution of the next token")
    drawn.arrow((305, 245), (305, 300), label="O_{t}", label_at=(287, 277))
    drawn.arrow((525, 245), (525, 300), label="w_{t}", label_at=(546, 277))
    drawn.arrow((215, 328), (95, 328), (95, 245), label="draw y_{t+1}", label_at=(155, 321))
    raised = ("The Manager raises", "Q · cos(f_{t+c} - f_{t}, g_{t}):", "goals toward texts", "that D finds real")
    for line, said in enumerate(raised):
        drawn.text((612, 56 + 17 * line), said, style="small left")
    paid = "The Worker is paid the mean of cos(f_{t} - f_{t-i}, g_{t-i}), i = 1 … c: did the text move to the goals?"
    drawn.text((30, 390), paid, style="small left")
    drawn.text((30, 410), "No gradient flows between Manager, Worker and D.", style="small left")
    return drawn


#: Name of the file in docs/images -> what draws it.
DIAGRAMS: dict[str, Callable[[], Diagram]] = {
    f"diagram_{draw.__name__}": draw for draw in (environment, seqgan, leakgan)
}


@dataclass(frozen=True)
class Options:
    """Draw the diagrams of the docs."""


@command
def main(options: Options) -> None:
    """The command."""
    for name, draw in DIAGRAMS.items():
        print(path_of(name))
        write_safely(path_of(name), draw().svg())


def path_of(name: str) -> Path:
    """Where a diagram is written."""
    return image_path(name).with_suffix(".svg")


if __name__ == "__main__":
    main()
