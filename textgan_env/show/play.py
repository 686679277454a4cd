"""`textgan play`: a live page on which the policies of runs write, each token on the colour of its Q.

What happens on the page (`Player`) needs no page: it gives rows of tokens with their values, and `as_html` shows them.
Gradio, the extra ``demo``, is imported by `serve` only.
"""

import html
import json
import math
import os
import shlex
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from textgan_env.discriminators import Discriminator
from textgan_env.envs import default_discriminator
from textgan_env.evaluation import generate_texts
from textgan_env.ops.colours import credit_colour, ink_on
from textgan_env.rewards import RolloutCredit, Texts
from textgan_env.runs.folder import RunFolder
from textgan_env.show.saved import SavedRun
from textgan_env.text.vocabulary import EOS
from textgan_env.utils.errors import InputError, MissingDataError, require

if TYPE_CHECKING:
    import gradio

_ALONE = "none"  # what stands for no second run
_OWN, _DEFAULT = "the run's own discriminator", "the default judge"
_PAUSE = 0.05  # seconds a token stays the last one at least, so that one sees the text grow
_LIMITS = (0.0, 1.0)  # Q is a mean of probabilities


@dataclass(frozen=True)
class Request:
    """What the page asks for.

    Attributes:
        prefix: What every text begins with.
        texts: How many.
        seed: Of the draws.
        temperature: What logits are divided by.
        top_k: Write one of the k most probable tokens only; None: of all.
        top_p: Write one of the most probable tokens that together reach this probability only; None: of all.
        rollouts: N, completions of each prefix.
        own_judge: Judge by the run's own discriminator, where it has one.
    """

    prefix: str = ""
    texts: int = 3
    seed: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    rollouts: int = 8
    own_judge: bool = True

    def command(self, run: Path) -> str:
        """What writes the same texts on the command line."""
        words = ["textgan", "sample", str(run), "-n", str(self.texts), "--seed", str(self.seed)]
        words += ["--temperature", f"{self.temperature:g}"]
        for option, value in (("--top-k", self.top_k), ("--top-p", self.top_p), ("--prefix", self.prefix)):
            words += [] if value in (None, "") else [option, str(value)]
        return shlex.join(words)


@dataclass(frozen=True)
class Token:
    """A token that has been written.

    Attributes:
        word: What it stands for; `EOS` for the end token.
        q: The mean probability that the text is real, over its completions from here; NaN where the token was given.
    """

    word: str
    q: float


@dataclass(frozen=True)
class Page:
    """One side of the page at one moment.

    Attributes:
        texts: Each as far as it is written.
        note: Who judges, or what is being waited for.
        command: What writes the same texts on the command line.
        joined: Whether words stand side by side without blanks.
        error: Why nothing can be written, if so.
    """

    texts: Sequence[Sequence[Token]] = ()
    note: str = ""
    command: str = ""
    joined: bool = False
    error: str = ""


@dataclass
class Player:
    """Runs that write when asked; each is loaded, and its judge fitted, when first needed.

    Args:
        runs: Run folders by the names that the page shows.
    """

    runs: Mapping[str, Path]
    _saved: dict[str, SavedRun] = field(default_factory=dict, repr=False)
    _judges: dict[str, Discriminator] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def load(self, name: str) -> SavedRun:
        """The run of a name.

        Raises:
            InputError: If it cannot be loaded, see `textgan_env.load`.
        """
        with self._lock:
            if name not in self._saved:
                self._saved[name] = SavedRun.load(self.runs[name])
            return self._saved[name]

    def judge(self, name: str, own: bool) -> tuple[Discriminator, str]:
        """Who judges the texts of a run, and in words who that is.

        Args:
            name: The run.
            own: Its own discriminator, where it has one that has learnt; otherwise the default one of its text, which
                is fitted once for all runs on that text.
        """
        saved = self.load(name)
        trained = saved.discriminator if own else None
        if trained is not None:
            return trained, "the discriminator that this run trained"
        words = None if saved.task.vocabulary is None else saved.task.vocabulary.fingerprint()
        key = json.dumps([saved.task.config(), words], sort_keys=True, default=str)
        with self._lock:  # fitting seeds global generators for a while
            if key not in self._judges:
                self._judges[key] = default_discriminator(saved.task, 0)
        why = "" if not own else " (this run trained none)"
        return self._judges[key], f"the default judge{why}: it knows usual words and pairs of near words, no more"

    def write(self, name: str, request: Request) -> Iterator[Page]:
        """Write texts with a run, token by token, all of them side by side.

        A token's Q is what the environment would pay for it: the mean over N completions by the same policy of the
        probability that the judge gives the whole text to be real; at the last token, that of the text itself. The
        texts are those of `SavedRun.sample`.

        Args:
            name: The run.
            request: What to write.

        Returns:
            The page after each token; one with an error where something is refused.
        """
        try:
            yield Page(note="loading the run and its judge ...")
            yield from self._written(name, self.load(name), request)
        except InputError as error:
            yield Page(error=str(error))

    def side_by_side(self, names: Sequence[str], request: Request) -> Iterator[list[Page]]:
        """Let several runs write at once, as `write` does: the pages after each token."""
        last: list[Page] = [Page()] * len(names)
        for pages in zip_longest(*(self.write(name, request) for name in names)):
            last = [page or before for page, before in zip(pages, last, strict=True)]
            yield last

    def _written(self, name: str, saved: SavedRun, request: Request) -> Iterator[Page]:
        task = saved.task
        policy = saved.decoded(temperature=request.temperature, top_k=request.top_k, top_p=request.top_p)
        given = task.encode_writable(request.prefix)
        tokens_BT, lengths_B, keys = generate_texts(policy, task, request.texts, request.seed, given)
        texts = Texts(tokens_BT, lengths_B, torch.ones_like(lengths_B, dtype=torch.bool), keys, task.end_token)
        judge, who = self.judge(name, request.own_judge)
        source = RolloutCredit(policy, judge, rollouts=request.rollouts)
        # A text that fills T has a word for every token; one that ends earlier has an end token, which is no word.
        words_B = [
            [*task.words(tokens), EOS][:length]
            for tokens, length in zip(tokens_BT.tolist(), lengths_B.tolist(), strict=True)
        ]
        shown = [[Token(word, math.nan) for word in words[: len(given)]] for words in words_B]
        joined = task.vocabulary is not None and task.vocabulary.mode == "char"
        page = Page(note=f"judged by {who}", command=request.command(saved.folder.path), joined=joined)
        for position in range(len(given), int(lengths_B.max())):
            wanted_BT = torch.zeros_like(texts.mask_BT)
            wanted_BT[:, position] = texts.mask_BT[:, position]
            credit_B = source.credit(texts, wanted_BT)[:, position].tolist()
            for row in wanted_BT[:, position].nonzero()[:, 0].tolist():
                shown[row].append(Token(words_B[row][position], credit_B[row]))
            yield replace(page, texts=[tuple(tokens) for tokens in shown])


def find_runs(paths: Sequence[Path]) -> dict[str, Path]:
    """Run folders by the shortest names that tell them apart.

    Args:
        paths: Run folders, or folders of them.

    Raises:
        InputError: If a path is not there or holds no run; the sentence names it.
    """
    found: list[Path] = []
    for path in paths:
        if (path / "config.json").exists() or not path.is_dir():
            found.append(RunFolder.open(path).path)
            continue
        inside = sorted(folder for folder in path.iterdir() if RunFolder(folder).last_checkpoint.is_file())
        require(bool(inside), f"no run in '{path}': train one first, with textgan train mle --corpus FILE")
        found += inside
    found = list(dict.fromkeys(found))
    names = [path.name for path in found]
    return {path.name if names.count(path.name) == 1 else str(path): path for path in found}


# --------------------------------------------------------------------------------------------- what the page shows


#: The style sheet of what `as_html` gives.
STYLE = """
.tg-texts { list-style: none; padding: 0; margin: 0.4rem 0; }
.tg-texts li { margin: 0 0 0.8rem; line-height: 1.2; min-height: 2.6rem; }
.tg-token { display: inline-block; padding: 0.2rem 0.35rem 0.1rem; margin: 0 0.2rem 0.25rem 0; border-radius: 0.35rem;
  text-align: center; font-size: 1.05rem; white-space: pre; max-width: 100%; overflow-wrap: anywhere; }
.tg-joined .tg-token { margin-inline: 0 1px; padding-inline: 0.15rem; }
.tg-token small { display: block; color: inherit; font-size: 0.7rem; font-variant-numeric: tabular-nums; }
.tg-end { font-style: italic; }
.tg-note, .tg-legend, .tg-command { font-size: 0.85rem; margin: 0.3rem 0; }
.tg-note, .tg-command { opacity: 0.8; }
.tg-command code { overflow-wrap: anywhere; white-space: normal; }
.tg-error { border-left: 4px solid #c2571a; padding: 0.4rem 0.7rem; margin: 0.4rem 0; }
.tg-bar { display: inline-block; width: min(12rem, 40vw); height: 0.7rem; border-radius: 0.2rem; margin: 0 0.4rem;
  vertical-align: middle; }
"""


def as_html(page: Page) -> str:
    """One side of the page, every text in the direction that its script is read in."""
    if page.error:
        return f'<div class="tg-error" role="alert">{html.escape(page.error)}</div>'
    lines = "".join(f'<li dir="auto">{"".join(map(_tile, tokens))}</li>' for tokens in page.texts)
    joined = " tg-joined" if page.joined else ""
    command = f'<p class="tg-command">The same texts: <code>{html.escape(page.command)}</code></p>'
    return (
        f'<p class="tg-note">{html.escape(page.note)}</p><ul class="tg-texts{joined}">{lines}</ul>'
        f"{command if page.command else ''}"
    )


def _tile(token: Token) -> str:
    colour = credit_colour(token.q, _LIMITS)
    paint = f"background:rgb{colour};color:rgb{ink_on(colour)}"
    value = "given" if math.isnan(token.q) else f"{token.q:.2f}"
    ends = token.word == EOS
    kind, word = ("tg-token tg-end", "end") if ends else ("tg-token", html.escape(token.word))
    return f'<span class="{kind}" style="{paint}">{word}<small>{value}</small></span>'


def legend() -> str:
    """What the numbers and colours mean."""
    steps = [f"rgb{credit_colour(step / 8, _LIMITS)}" for step in range(9)]
    bar = f'<span class="tg-bar" style="background:linear-gradient(to right,{",".join(steps)})"></span>'
    return (
        f'<p class="tg-legend">Q: 0{bar}1<br>The number under a token is its Q: how probably real the judge finds the '
        "text, on average over completions that the same policy writes from there. Under the last token it is the "
        "judge's opinion of the text itself. Grey tokens were given.</p>"
    )


# --------------------------------------------------------------------------------------------- the page


def check_address(host: str, port: int) -> None:
    """Refuse an address that nothing can listen on.

    Raises:
        InputError: If the port is out of range or taken, or the host is no address of this machine.
    """
    require(1 <= port <= 65535, f"port must be 1 to 65535, found {port}")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind)) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot listen on {host}, port {port} ({reason}): choose others by --host, --port") from None


def serve(runs: Sequence[Path], host: str, port: int) -> None:
    """Open the page and keep it open until Ctrl-C.

    Args:
        runs: Run folders, or folders of them.
        host: The address to listen on; 0.0.0.0: every address of this machine.
        port: The port.

    Raises:
        InputError: If there is no run, or nothing can listen on this address.
        MissingDataError: If Gradio is not installed.
    """
    player = Player(find_runs(runs))
    _require_gradio()
    check_address(host, port)
    count = len(player.runs)
    print(f"{count} run{'s' if count > 1 else ''}: {', '.join(player.runs)}\nopening the page ...", flush=True)
    page = build_page(player)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        ssr_mode=False,  # no node process, one port
        theme=_theme(),
        css=STYLE,
    )
    try:
        seen_at = "127.0.0.1" if host == "0.0.0.0" else host
        print(f"textgan play: http://{seen_at}:{port}\nCtrl-C ends it.", flush=True)
        if host not in ("127.0.0.1", "localhost", "::1"):
            print("Whoever can reach this machine can use the page.", flush=True)
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def build_page(player: Player) -> "gradio.Blocks":
    """The page of some runs, not yet served: controls on top, one or two runs below.

    Raises:
        MissingDataError: If Gradio is not installed.
    """
    _require_gradio()
    import gradio as gr

    names = list(player.runs)
    own = RunFolder.open(player.runs[names[0]]).about["config"].get("temperature", 1.0)
    page = gr.Blocks(title="textgan play", analytics_enabled=False)
    with page:
        gr.Markdown(
            "# textgan play\nA policy writes token by token; colours say how real a judge finds the text from there."
        )
        with gr.Row():
            first = gr.Dropdown(names, value=names[0], label="Run", elem_id="run-1", min_width=220)
            second = gr.Dropdown(
                [_ALONE, *names], value=_ALONE, label="Beside it (compare)", elem_id="run-2", min_width=220
            )
        with gr.Row():
            prefix = gr.Textbox(label="Texts begin with", placeholder="nothing given", elem_id="prefix", min_width=220)
            temperature = gr.Slider(0.1, 2.0, own, step=0.05, label="Temperature", min_width=220, elem_id="temperature")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed", min_width=90)
        with gr.Accordion("More", open=False):
            with gr.Row():
                texts = gr.Slider(1, 10, 3, step=1, label="Texts")
                top_k = gr.Slider(0, 200, 0, step=1, label="Top-k (0: all tokens)")
                top_p = gr.Slider(0.05, 1.0, 1.0, step=0.05, label="Top-p (1: all tokens)")
                rollouts = gr.Slider(1, 32, 8, step=1, label="Completions a token (N)")
            judge = gr.Radio([_OWN, _DEFAULT], value=_OWN, label="Who judges (own: where the run has trained one)")
        with gr.Row():
            start = gr.Button("Write", variant="primary", elem_id="write", min_width=120)
            stop = gr.Button("Stop", elem_id="stop", min_width=120)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                left = gr.HTML(as_html(Page(note="Press Write.")), elem_id="side-1")
            with gr.Column(min_width=320, visible=False) as beside:
                right = gr.HTML("", elem_id="side-2")
        gr.HTML(legend())

        def write(*values: Any) -> Iterator[tuple[str, str, Any]]:
            yield from _answer(player, *values)

        asked = [first, second, prefix, temperature, seed, texts, top_k, top_p, rollouts, judge]
        writing = gr.on(
            [start.click, prefix.submit],
            write,
            asked,
            [left, right, beside],
            show_progress="hidden",
            api_visibility="private",
        )
        stop.click(None, cancels=[writing], api_visibility="private")
    return page


def _answer(
    player: Player,
    first: str,
    second: str,
    prefix: str,
    temperature: float,
    seed: int,
    texts: int,
    top_k: int,
    top_p: float,
    rollouts: int,
    judge: str,
) -> Iterator[tuple[str, str, Any]]:
    """What the page shows after Write, in its two halves."""
    import gradio as gr

    request = Request(
        prefix=prefix.strip(),
        texts=texts,
        seed=seed or 0,
        temperature=temperature,
        top_k=top_k or None,
        top_p=top_p if top_p < 1 else None,
        rollouts=rollouts,
        own_judge=judge == _OWN,
    )
    names = [first] if second == _ALONE else [first, second]
    for pages in player.side_by_side(names, request):
        halves = [f"<h3>{html.escape(name)}</h3>{as_html(page)}" for name, page in zip(names, pages, strict=True)]
        yield halves[0], halves[-1], gr.update(visible=len(halves) > 1)
        time.sleep(_PAUSE)


def _theme() -> Any:
    """Gradio's plain theme in the fonts of the machine that shows the page."""
    import gradio as gr

    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def _require_gradio() -> None:
    """Refuse to go on without Gradio, and keep it from calling home."""
    if find_spec("gradio") is None:
        raise MissingDataError('the page needs the package gradio: pip install "textgan_env[demo]"')
    # Read when gradio is imported: no telemetry, no look for a newer version.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
