"""`textgan play`: the live page, on which the runs of a `Player` generate.

Gradio, the extra ``demo``, is imported by what serves the page only.
"""

import html
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgan_env.runs.folder import RunFolder
from textgan_env.show.local_only import LocalOnly, is_loopback
from textgan_env.show.play import STYLE, Page, Player, Request, as_html, find_runs, legend
from textgan_env.utils.errors import InputError, require, require_package
from textgan_env.utils.printing import say
from textgan_env.utils.reading import get_typed, preview, read_typed

if TYPE_CHECKING:
    import gradio

_ALONE = "none"  # what stands for no second run
_OWN, _DEFAULT = "the run's own discriminator", "the default discriminator"
_PAUSE = 0.05  # seconds a token stays the last one at least, so that one sees the text grow


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
    say(f"{count} run{'s' if count > 1 else ''}: {', '.join(player.runs)}\nopening the page ...")
    page = build_page(player)
    import gradio as gr

    # The fonts of the machine that shows the page.
    look = {"primary_hue": "blue", "secondary_hue": "blue", "neutral_hue": "stone"}  # orange means less real
    theme = gr.themes.Default(**look, font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    # Without ssr_mode there is no node process, and one port.
    quiet: dict[str, Any] = {"share": False, "quiet": True, "footer_links": [], "ssr_mode": False}
    quiet |= {"app_kwargs": guards(host, port), "max_file_size": 0}
    page.launch(server_name=host, server_port=port, prevent_thread_lock=True, theme=theme, css=STYLE, **quiet)
    try:
        seen_at = "127.0.0.1" if host == "0.0.0.0" else host
        say(f"textgan play: http://{seen_at}:{port}\nCtrl-C ends it.")
        if not is_loopback(host):
            say("Whoever can reach this machine can use the page.")
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def guards(host: str, port: int) -> dict[str, Any]:
    """What Gradio's server is made with, so that nothing but the page itself is answered."""
    from starlette.middleware import Middleware

    no_lists = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    return {"middleware": [Middleware(LocalOnly, host=host, port=port)], **no_lists}


def build_page(player: Player) -> "gradio.Blocks":
    """The page of some runs, not yet served: controls on top, one or two runs below.

    Raises:
        MissingDataError: If Gradio is not installed.
    """
    _require_gradio()
    import gradio as gr

    names = list(player.runs)
    config = RunFolder.open(player.runs[names[0]]).about["config"]
    own = get_typed(config, "temperature", float, f"the config of run '{names[0]}'")
    page = gr.Blocks(title="textgan play", analytics_enabled=False)
    with page:
        about = "A policy writes token by token; colours say how real a discriminator finds the text from there."
        gr.Markdown(f"# textgan play\n{about}")
        with gr.Row():
            first = gr.Dropdown(names, value=names[0], label="Run", elem_id="run-1", min_width=220)
            beside_it, others = "Beside it (compare)", [_ALONE, *names]
            second = gr.Dropdown(others, value=_ALONE, label=beside_it, elem_id="run-2", min_width=220)
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
            discriminator = gr.Radio(
                [_OWN, _DEFAULT], value=_OWN, label="Who judges (own: where the run has trained one)"
            )
        with gr.Row():
            start = gr.Button("Write", variant="primary", elem_id="write", min_width=120)
            stop = gr.Button("Stop", elem_id="stop", min_width=120)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                left = gr.HTML(as_html(Page(note="Press Write.")), elem_id="side-1")
            with gr.Column(min_width=320, visible=False) as beside:
                right = gr.HTML("", elem_id="side-2")
        gr.HTML(legend())

        asked = [first, second, prefix, temperature, seed, texts, top_k, top_p, rollouts, discriminator]
        # Values come as they were sent: `_asked` refuses in a sentence what Gradio would stumble over.
        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "preprocess": False}
        triggers, shown = [start.click, prefix.submit], [left, right, beside]
        writing = gr.on(triggers, partial(_answer, player), asked, shown, **hidden)
        stop.click(None, cancels=[writing], api_visibility="private")
    return page


def _answer(player: Player, *values: Any) -> Iterator[tuple[str, str, Any]]:
    """What the page shows after Write, in its two halves; the values are those of its controls, in their order."""
    import gradio as gr

    try:
        names, request = _asked(player, *values)
    except InputError as error:
        yield as_html(Page(error=str(error))), "", gr.update(visible=False)
        return
    for pages in player.side_by_side(names, request):
        halves = [f"<h3>{html.escape(name)}</h3>{as_html(page)}" for name, page in zip(names, pages, strict=True)]
        yield halves[0], halves[-1], gr.update(visible=len(halves) > 1)
        time.sleep(_PAUSE)


def _asked(player: Player, first: Any, second: Any, prefix: Any, *values: Any) -> tuple[list[str], Request]:
    """Which runs are to generate what; a program may send anything as the values of the controls.

    Raises:
        InputError: If a value is of another kind, or none of the page's.
    """
    chosen = [first] if second == _ALONE else [first, second]
    for name in chosen:
        require(isinstance(name, str) and name in player.runs, f"no run is called {preview(name)}")
    temperature, seed, texts, top_k, top_p, rollouts, discriminator = values
    given = {"prefix": prefix, "temperature": temperature, "seed": seed or 0, "texts": texts, "top_k": top_k or None}
    given |= {"top_p": None if top_p == 1 else top_p, "rollouts": rollouts}
    request = read_typed(Request, given | {"own_discriminator": discriminator == _OWN}, "what the page was sent")
    return chosen, replace(request, prefix=request.prefix.strip())


def _require_gradio() -> None:
    """Refuse to go on without Gradio, and keep it from calling home."""
    require_package("gradio", "demo", "the page")
    # Read when gradio is imported: no telemetry, no look for a newer version.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
