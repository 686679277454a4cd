"""`textgan play`: the live page, on which the runs of a `Player` generate.

Gradio, the extra ``demo``, is imported by what serves the page only.
"""

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
from textgan_env.show.play import Page, Player, Request, find_runs
from textgan_env.show.play_html import HEADER, STYLE, as_html, legend
from textgan_env.utils.errors import InputError, require, require_package
from textgan_env.utils.printing import say
from textgan_env.utils.reading import get_typed, preview, read_typed

if TYPE_CHECKING:
    import gradio

_ALONE = "none"  # what stands for no second run
_OWN, _DEFAULT = "the run's own discriminator", "the default discriminator"
_DIFFER = """<p class="note">These runs are scored by different discriminators, whose numbers do not compare. Under More
one discriminator, the default one, can be asked about both.</p>"""
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
    # Without ssr_mode there is no node process, and one port.
    quiet: dict[str, Any] = {"share": False, "quiet": True, "footer_links": [], "ssr_mode": False}
    quiet |= {"app_kwargs": guards(host, port), "max_file_size": 0}
    page.launch(server_name=host, server_port=port, prevent_thread_lock=True, theme=report_theme(), **quiet)
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


def report_theme() -> "gradio.themes.Base":
    """Gradio's controls in the colours and shapes of the report."""
    import gradio as gr

    # The fonts of the machine that shows the page.
    plain = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    colours = {
        "body_background_fill": "paper", "body_text_color": "ink", "body_text_color_subdued": "faint",
        "background_fill_primary": "card", "background_fill_secondary": "sunk", "border_color_primary": "line",
        "border_color_accent": "accent", "block_background_fill": "card", "block_border_color": "line",
        "block_label_text_color": "faint", "block_title_text_color": "faint", "block_info_text_color": "faint",
        "input_background_fill": "card", "input_background_fill_focus": "card", "input_border_color": "line",
        "input_border_color_focus": "accent", "input_placeholder_color": "faint", "slider_color": "accent",
        "button_primary_background_fill": "accent", "button_primary_background_fill_hover": "accent",
        "button_primary_border_color": "accent", "button_primary_text_color": "on-accent",
        "button_secondary_background_fill": "card", "button_secondary_background_fill_hover": "sunk",
        "button_secondary_border_color": "line", "button_secondary_text_color": "ink",
        "checkbox_background_color": "card", "checkbox_background_color_selected": "accent",
        "checkbox_border_color": "line", "checkbox_border_color_selected": "accent",
        "checkbox_label_background_fill": "card", "checkbox_label_background_fill_selected": "sunk",
        "checkbox_label_background_fill_hover": "sunk", "checkbox_label_border_color": "line",
        "checkbox_label_text_color": "ink", "checkbox_label_text_color_selected": "ink",
        "accordion_text_color": "accent",
    }  # fmt: skip
    looks = {f"{name}{ending}": f"var(--{colour})" for name, colour in colours.items() for ending in ("", "_dark")}
    radii = dict.fromkeys(("input_radius", "button_large_radius", "button_small_radius", "block_radius"), "8px")
    return plain.set(
        **looks, **radii, button_border_width="1px", button_border_width_dark="1px", input_border_width="1px"
    )


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
    bare: dict[str, Any] = {"apply_default_css": False, "padding": False}
    with page:
        # In the body the style sheet stays as it is written, and comes after Gradio's, which makes all headings plain.
        gr.HTML(f"<style>{STYLE}</style>{HEADER}", **bare)
        with gr.Column(elem_id="controls"):
            with gr.Row():
                first = gr.Dropdown(names, value=names[0], label="Run", elem_id="run-1", min_width=220)
                beside_it, others = "Beside it, to compare", [_ALONE, *names]
                second = gr.Dropdown(others, value=_ALONE, label=beside_it, elem_id="run-2", min_width=220)
            with gr.Row():
                label, hint = (
                    "Texts begin with (or a whole text with ___ for each blank)",
                    "a man ... or: a ___ on a ___",
                )
                prefix = gr.Textbox(label=label, placeholder=hint, elem_id="prefix", min_width=220, scale=2)
                how: dict[str, Any] = {"step": 0.05, "label": "Temperature", "elem_id": "temperature", "min_width": 200}
                temperature = gr.Slider(0.1, 2.0, own, **how)
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed", min_width=90)
            with gr.Accordion("More", open=False):
                with gr.Row():
                    texts = gr.Slider(1, 10, 3, step=1, label="Texts", min_width=200)
                    top_k = gr.Slider(0, 200, 0, step=1, label="Top-k (0: all tokens)", min_width=200)
                    top_p = gr.Slider(0.05, 1.0, 1.0, step=0.05, label="Top-p (1: all tokens)", min_width=200)
                    rollouts = gr.Slider(1, 32, 8, step=1, label="Completions a token, N", min_width=200)
                scored_by = "Scored by (its own: where the run has trained one)"
                discriminator = gr.Radio([_OWN, _DEFAULT], value=_OWN, label=scored_by)
            with gr.Row():
                start = gr.Button("Write", variant="primary", elem_id="write", min_width=90, scale=0)
                stop = gr.Button("Stop", elem_id="stop", min_width=90, scale=0)
        scale = gr.HTML(legend(), **bare)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                left = gr.HTML(as_html(Page(note="Press Write.")), elem_id="side-1", **bare)
            with gr.Column(min_width=320, visible=False) as beside:
                right = gr.HTML("", elem_id="side-2", **bare)

        asked = [first, second, prefix, temperature, seed, texts, top_k, top_p, rollouts, discriminator]
        # Values come as they were sent: `_asked` refuses in a sentence what Gradio would stumble over.
        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "preprocess": False}
        triggers, shown = [start.click, prefix.submit], [left, right, beside, scale]
        writing = gr.on(triggers, partial(_answer, player), asked, shown, **hidden)
        stop.click(None, cancels=[writing], api_visibility="private")
    return page


def _answer(player: Player, *values: Any) -> Iterator[tuple[str, str, Any, str]]:
    """What the page shows after Write, in its two halves; the values are those of its controls, in their order."""
    import gradio as gr

    try:
        names, request = _asked(player, *values)
    except InputError as error:
        yield as_html(Page(error=str(error))), "", gr.update(visible=False), legend()
        return
    for pages in player.side_by_side(names, request):
        two = len(pages) > 1
        halves = [as_html(page, number if two else None) for number, page in enumerate(pages, 1)]
        own = any(page.texts and page.own for page in pages)
        yield halves[0], halves[-1], gr.update(visible=two), legend() + (_DIFFER if two and own else "")
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
