"""The live page: what it shows is what the library computes, and it works in a browser that reaches nothing else."""

import asyncio
import importlib.util
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

import textgan_env
from agents import maskgan, mle, seqgan
from conftest import PROJECT, assert_refused
from textgan_env.discriminators import score_logits
from textgan_env.evaluation import generate_texts
from textgan_env.ops.plots import LINE_COLOURS
from textgan_env.rewards import RolloutCredit
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.show import play_page
from textgan_env.show.play import Page, Player, Request, Token, find_runs
from textgan_env.show.play_html import STYLE, as_html, legend
from textgan_env.text.vocabulary import EOS
from textgan_env.utils.errors import InputError, MissingDataError
from textgan_env.utils.molecules import picture_address

# The library that reads command lines draws from the global generators.
pytestmark = pytest.mark.moves_global_rng

NOUNS, VERBS = ("cat", "dog", "fox", "cow", "bee"), ("sat", "ran", "ate", "hid")
LINES = [f"{article} {noun} {verb}" for article in ("the", "a") for noun in NOUNS for verb in VERBS]
TINY = ["--preset", "smoke", "--show-samples", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: two on one text, one of them with a discriminator of its own, and one on another text."""
    here = tmp_path_factory.mktemp("play")
    (here / "cats.txt").write_text("\n".join([*LINES, "the cow sat here"]) + "\n")
    (here / "verse.txt").write_text("".join(f"{word}{other}\n" for word in "春夏秋冬" for other in "風雨雪月"))
    common = [*TINY, "--runs", str(here / "runs")]
    mle.main(["--corpus", str(here / "cats.txt"), *common])
    seqgan.main(["--corpus", str(here / "cats.txt"), *common])
    mle.main(["--corpus", str(here / "verse.txt"), "--mode", "char", *common])
    return here / "runs"


@pytest.fixture(scope="module")
def player(folder: Path) -> Player:
    return Player(find_runs([folder]))


def last(pages: Iterator[Page]) -> Page:
    *_, page = pages
    return page


# -- Runs -------------------------------------------------------------------------------------------------------------
def test_a_folder_of_runs_stands_for_all_of_them(folder: Path) -> None:
    names = ["mle-cats-1", "mle-verse-1", "seqgan-cats-1"]
    assert find_runs([folder]) == {name: folder / name for name in names}
    assert find_runs([folder / names[2], folder]) == {name: folder / name for name in names}
    assert list(find_runs([folder / names[2], folder])) == [names[2], names[1], names[0]]  # the newest first


def test_runs_of_one_name_are_told_apart_by_their_paths(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "mle-cats-1"
    shutil.copytree(folder / "mle-cats-1", other)
    found = find_runs([folder / "mle-cats-1", other, folder / "mle-verse-1"])
    assert list(found) == [str(folder / "mle-cats-1"), str(other), "mle-verse-1"]


def test_a_path_without_a_run_is_refused(tmp_path: Path) -> None:
    assert_refused("nowhere", find_runs, [Path("nowhere")])
    assert_refused("no run in", find_runs, [tmp_path])


# -- Writing ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["mle-cats-1", "mle-verse-1", "seqgan-cats-1"])
def test_the_texts_are_those_of_the_command_that_is_shown(player: Player, name: str) -> None:
    page = last(player.write(name, Request(texts=5, seed=3, temperature=0.7, top_k=4)))
    saved = textgan_env.load(player.runs[name])
    assert saved.task.vocabulary is not None
    shown = [[token.word for token in tokens if token.word != EOS] for tokens in page.texts]
    texts = [saved.task.vocabulary.join(words) for words in shown]
    assert texts == saved.sample(5, seed=3, temperature=0.7, top_k=4)
    assert page.command == f"textgan sample {player.runs[name]} -n 5 --seed 3 --temperature 0.7 --top-k 4"
    assert page.joined == (name == "mle-verse-1")


def test_every_q_is_the_credit_that_the_environment_gives(player: Player) -> None:
    request = Request(texts=4, seed=1, rollouts=3, prefix="the")
    page = last(player.write("seqgan-cats-1", request))
    saved, (discriminator, _) = player.load("seqgan-cats-1"), player.discriminator("seqgan-cats-1", own=True)
    given = saved.task.encode("the")
    policy = saved.decoded(temperature=1.0)
    texts = generate_texts(policy, saved.task, 4, 1, given)
    credit_BT = RolloutCredit(policy, discriminator, rollouts=3).credit(texts, texts.mask_BT)  # all tokens in one pass
    final_B = score_logits(discriminator, texts.tokens_BT).sigmoid()
    for tokens, credit_T, length, final in zip(page.texts, credit_BT, texts.lengths_B.tolist(), final_B, strict=True):
        assert len(tokens) == length
        assert math.isnan(tokens[0].q)  # was given
        assert [token.q for token in tokens[1:]] == pytest.approx(credit_T[1:length].tolist(), abs=1e-6)
        assert tokens[-1].q == pytest.approx(float(final), abs=1e-6)


def test_texts_grow_by_one_token_a_page_and_end_with_an_end_token(player: Player) -> None:
    waiting, *pages = player.write("mle-cats-1", Request(texts=3))
    assert not waiting.texts
    lengths = [[len(tokens) for tokens in page.texts] for page in pages]
    ends = lengths[-1]
    assert lengths == [[min(step, end) for end in ends] for step in range(1, max(ends) + 1)]
    early = [tokens[-1].word == EOS for tokens in pages[-1].texts if len(tokens) < max(ends)]
    assert all(early)


def test_the_same_request_gives_the_same_page(player: Player) -> None:
    one, two = (last(player.write("seqgan-cats-1", Request(seed=9))) for _ in range(2))
    assert one == two != last(player.write("seqgan-cats-1", Request(seed=8)))


def test_two_runs_write_side_by_side_and_a_mistake_in_one_leaves_the_other(player: Player) -> None:
    pages = list(player.side_by_side(["mle-cats-1", "mle-verse-1"], Request(prefix="the")))
    left, right = pages[-1]
    assert not left.error
    assert all(tokens[0].word == "the" for tokens in left.texts)
    assert right.error.startswith("'t' is not among the ")
    assert len(pages) == 1 + max(map(len, left.texts)) - 1


@pytest.mark.parametrize(("request_", "sentence"), [
    (Request(prefix="a zebra"), "'zebra' is not among the "),
    (Request(prefix="the cat sat here the"), "fewer than T="),
    (Request(prefix="the ___ zebra"), "'zebra' is not among the "),
    (Request(prefix="the ___ sat here there on"), "'there' is not among the "),
    (Request(temperature=0.0), "temperature must be above 0"),
    (Request(texts=0), "the number of texts must be at least 1"),
])  # fmt: skip
def test_what_cannot_be_written_is_a_sentence_on_the_page(player: Player, request_: Request, sentence: str) -> None:
    assert sentence in last(player.write("mle-cats-1", request_)).error


def test_a_prefix_with_blanks_is_a_template_whose_words_stand_on_no_colour(player: Player, folder: Path) -> None:
    request = Request(prefix="the ___ sat", seed=2, top_k=3)
    page = last(player.write("mle-cats-1", request))
    assert page.command == (
        f"textgan sample {player.runs['mle-cats-1']} -n 3 --seed 2 --temperature 1 --top-k 3 --template 'the ___ sat'"
    )
    filled = [[token.word for token in tokens] for tokens in page.texts]
    saved = textgan_env.load(folder / "mle-cats-1")
    assert saved.task.vocabulary is not None
    texts = saved.sample(3, template="the ___ sat", seed=2, temperature=1.0, top_k=3)
    assert [saved.task.vocabulary.join(words[:-1]) for words in filled] == texts
    assert all(len(words) == 4 and words[::2] == ["the", "sat"] and words[3] == EOS for words in filled)
    # Given words have no Q; a blank has, and under the end stands the score of the text.
    assert {tuple(math.isnan(token.q) for token in tokens) for tokens in page.texts} == {(True, False, True, False)}
    rows = [saved.task.encode(text) for text in texts]
    length, rest = saved.task.max_length, [saved.task.end_token, saved.task.vocab_size]
    rows_BT = torch.tensor([[*row, *rest][:length] for row in rows])
    discriminator, _ = player.discriminator("mle-cats-1", own=True)
    scores = score_logits(discriminator, rows_BT).sigmoid().tolist()
    assert [tokens[-1].q for tokens in page.texts] == pytest.approx(scores)


def test_who_sees_only_what_stands_before_a_blank_says_so(player: Player, folder: Path, tmp_path: Path) -> None:
    assert last(player.write("mle-cats-1", Request(prefix="the ___ sat"))).one_sided
    assert not last(player.write("mle-cats-1", Request(prefix="the"))).one_sided
    maskgan.main(["--corpus", str(folder.parent / "cats.txt"), "--runs", str(tmp_path), *TINY])
    page = last(Player(find_runs([tmp_path])).write("maskgan-cats-1", Request(prefix="the ___ sat")))
    assert page.texts
    assert not page.one_sided
    assert "sees only what stands before a blank" in as_html(Page(texts=page.texts, one_sided=True))
    assert "sees only what stands before a blank" not in as_html(page)


# -- Judges -----------------------------------------------------------------------------------------------------------
def test_a_run_is_judged_by_its_own_discriminator_where_it_trained_one(player: Player, folder: Path) -> None:
    discriminator, who = player.discriminator("seqgan-cats-1", own=True)
    assert who == "its own, which this run trained"
    assert isinstance(discriminator, torch.nn.Module)
    saved = load_checkpoint(folder / "seqgan-cats-1" / "checkpoints" / "last.safetensors").all_tensors
    trained = {name.partition("/")[2]: tensor for name, tensor in saved.items() if name.startswith("discriminator/")}
    assert trained
    assert discriminator.state_dict().keys() == trained.keys()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in discriminator.state_dict().items())


def test_other_runs_share_the_default_discriminator_of_their_text(player: Player) -> None:
    plain, who = player.discriminator("mle-cats-1", own=True)
    assert who.startswith("the default one of the task (this run trained none)")
    asked, who = player.discriminator("seqgan-cats-1", own=False)
    assert who.startswith("the default one of the task: it knows usual words")
    assert isinstance(plain, torch.nn.Module)
    assert isinstance(asked, torch.nn.Module)
    weights = asked.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in plain.state_dict().items())
    assert player.discriminator("mle-verse-1", own=True)[0] is not plain


def test_a_discriminator_that_a_control_never_trained_scores_nothing(folder: Path, tmp_path: Path) -> None:
    corpus = str(folder.parent / "cats.txt")
    seqgan.main(["--corpus", corpus, "--control", "constant", "--runs", str(tmp_path), *TINY])
    assert textgan_env.load(tmp_path / "seqgan-cats-1").discriminator is None


# -- What is shown ----------------------------------------------------------------------------------------------------
def test_words_cannot_act_on_the_page() -> None:
    shown = as_html(Page(texts=[[Token("<script>", 0.5)]], command="textgan sample '<b>'", note="<i>"))
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert "<u>" not in as_html(Page(error="'<u>' is unknown"))
    assert "<s>" not in as_html(Page(name="<s>", badges=["<s>"], control="<s>"))


def test_a_token_is_shown_on_the_colour_of_its_q_with_the_number_below() -> None:
    shown = as_html(Page(texts=[[Token("low", 0.0), Token("high", 1.0), Token("old", math.nan), Token(EOS, 0.25)]]))
    # The ends of the scale, on light paper and on dark.
    assert "background:light-dark(rgb(158, 66, 16), rgb(244, 150, 84));color:light-dark(rgb(255, 255, 255)," in shown
    assert "background:light-dark(rgb(28, 81, 144), rgb(134, 188, 240));color:light-dark(rgb(255, 255, 255)," in shown
    assert re.findall(r'>([^<>]+)</span><span class="q">([^<]+)</span>', shown) == [
        ("low", ".00"), ("high", "1.00"), ("old", "given"), ("end", ".25"),
    ]  # fmt: skip
    assert 'class="token given">' in shown  # on no colour


def test_half_stands_on_the_middle_of_the_scale_in_the_page_and_in_its_legend() -> None:
    middle = "background:light-dark(rgb(246, 240, 232), rgb(52, 55, 60))"
    assert middle in as_html(Page(texts=[[Token("unsure", 0.5)]]))
    assert re.findall(r'<i style="([^"]+)">', legend())[6] == middle


def test_a_molecule_is_drawn_beside_its_text_once_it_is_whole_and_other_text_never(
    player: Player, tmp_path: Path
) -> None:
    pytest.importorskip("rdkit")
    (tmp_path / "chains.smi").write_text("".join(f"{'C' * count}{end}\n" for count in range(1, 8) for end in "ON"))
    mle.main(["--corpus", str(tmp_path / "chains.smi"), "--mode", "smiles", "--runs", str(tmp_path), *TINY])
    chains = Player(find_runs([tmp_path]))
    (name,) = chains.runs
    pages = [page for page in chains.write(name, Request(texts=6, rollouts=1)) if page.texts]
    whole = pages[-1].texts
    for page in pages:
        for tokens, last, address in zip(page.texts, whole, page.pictures, strict=True):
            text = "".join(token.word for token in tokens if token.word != EOS)
            expected = picture_address(text) if len(tokens) == len(last) else None
            assert address == expected
    assert any(pages[-1].pictures)
    shown = as_html(pages[-1])
    assert shown.count("<img") == len([one for one in pages[-1].pictures if one])
    *_, cats = player.write("mle-cats-1", Request(texts=2, rollouts=1))
    assert cats.texts
    assert "<img" not in as_html(cats)


def test_what_stands_beside_a_drawing_cannot_act_on_the_page() -> None:
    shown = as_html(Page(texts=[[Token('C"><script>', 0.5)]], pictures=['x"><script>']))
    assert "<script>" not in shown
    assert 'alt="The molecule C&quot;&gt;&lt;script&gt;" src="x&quot;&gt;&lt;script&gt;"' in shown


def test_page_and_report_share_one_style_sheet() -> None:
    viewer = PROJECT / "textgan_env" / "show" / "viewer"
    shared = (viewer / "style.css").read_text("utf-8")
    assert STYLE.startswith(shared)
    own = "".join((viewer / f"{name}.css").read_text("utf-8") for name in ("play", "page", "compare"))
    assert re.findall(r"#[0-9a-f]{6}\b", own) == []  # colours are named in the shared sheet only
    runs = re.findall(r"--run\d: light-dark\((#\w+),", shared)
    assert tuple(runs) == LINE_COLOURS  # those of curves and of the picture of a comparison


def test_the_command_quotes_what_a_shell_would_read() -> None:
    assert Request(prefix="a man's", top_p=0.9).command(Path("my runs/r")) == (
        "textgan sample 'my runs/r' -n 3 --seed 0 --temperature 1 --top-p 0.9 --prefix 'a man'\"'\"'s'"
    )


# -- Opening ----------------------------------------------------------------------------------------------------------
def test_without_gradio_one_sentence_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDataError, match="gradio"):
        play_page.serve([folder], "127.0.0.1", 7860)


def test_an_address_that_nothing_can_listen_on_is_refused() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_refused(f"port {port}", play_page.check_address, "127.0.0.1", port)
    play_page.check_address("127.0.0.1", port)
    assert_refused("port", play_page.check_address, "127.0.0.1", 0)
    with pytest.raises(InputError, match=r"192\.0\.2\.1"):  # nobody's address
        play_page.check_address("192.0.2.1", port)


# -- In a browser -----------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# Serves as the command does, and writes down every address outside this machine that the server asks for.
SERVER = """
import socket, sys
def watched(name, at):
    real = getattr(socket, name) if name == "getaddrinfo" else getattr(socket.socket, name)
    def call(*given, **named):
        host = given[at][0] if isinstance(given[at], tuple) else given[at]
        if host not in (None, "", "127.0.0.1", "localhost", "::1", b"127.0.0.1", "0.0.0.0"):
            print("OUTSIDE", host, flush=True)
        return real(*given, **named)
    return call
socket.getaddrinfo = watched("getaddrinfo", 0)
socket.socket.connect = watched("connect", 1)
socket.socket.connect_ex = watched("connect_ex", 1)
from agents.cli import main
main(sys.argv[1:])
"""


def free_port() -> int:
    with closing(socket.socket()) as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[str]:
    """The address of the page; at the end the server is stopped as a person would."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, "play", str(folder), "--port", str(port)],
        cwd=PROJECT,
        env=os.environ | {"TMPDIR": str(folder.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert server.stdout is not None
    said = ""
    while "Ctrl-C ends it" not in said:
        line = server.stdout.readline()
        assert line, server.communicate()[1]
        said += line
    assert f"textgan play: http://127.0.0.1:{port}\n" in said
    yield f"http://127.0.0.1:{port}"
    server.send_signal(signal.SIGINT)
    out, errors = server.communicate(timeout=100)
    assert "OUTSIDE" not in said + out
    # The first page of a machine also fits the default discriminator, and says so.
    told = [line for line in errors.splitlines() if not line.startswith("making the default discriminator")]
    assert (told, server.returncode) == (["stopped by Ctrl-C; files written before are whole"], 130)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs the program chromium (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(served: str, browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page in a fresh window; fails if it asks for anything elsewhere, or complains."""
    width, scheme = getattr(request, "param", (1280, "light"))
    window = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    window.set_default_timeout(200_000)
    page = window.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(served)
    page.wait_for_selector("#write")
    yield page
    assert [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []
    assert complaints == []
    window.close()


def words_on(page: Any, side: int) -> list[list[str]]:
    rows = page.locator(f"#side-{side} li").all()
    words = [[tile.inner_text().split("\n")[0] for tile in row.locator(".token").all()] for row in rows]
    return [[word for word in row if word != "end"] for row in words]


def wait_until_written(page: Any, side: int) -> None:
    """Wait until nothing has been added for a second: every last tile has its value by then."""
    page.wait_for_selector(f"#side-{side} .token")
    count = -1
    while count != (count := page.locator(".token").count()):
        page.wait_for_timeout(5000)


def choose_run(page: Any, name: str) -> None:
    """The run on the left."""
    page.locator("#run-1 input").click()
    page.get_by_role("option", name=name).last.click()


@pytest.mark.slow
def test_a_text_grows_on_the_page_and_is_that_of_sample(opened: Any, player: Player) -> None:
    choose_run(opened, "mle-cats-1")
    opened.evaluate("""() => { window.counts = [];
        new MutationObserver(() => window.counts.push(document.querySelectorAll('#side-1 .token').length))
            .observe(document.querySelector('#side-1'), {childList: true, subtree: true, characterData: true}); }""")
    opened.locator("#prefix textarea, #prefix input").first.fill("the")
    opened.locator("#seed input").fill("5")
    opened.locator("#write").click()
    wait_until_written(opened, 1)
    assert not opened.locator("#side-2").is_visible()
    said = opened.locator("#side-1 .discriminator").first.inner_text()
    assert "the default one of the task (this run trained none)" in said
    texts = textgan_env.load(player.runs["mle-cats-1"]).sample(3, prefix="the", seed=5, temperature=1.0)
    assert [" ".join(words) for words in words_on(opened, 1)] == texts
    counts = sorted(set(opened.evaluate("window.counts")) - {0})
    assert len(counts) >= 2  # it grew before one's eyes


@pytest.mark.slow
@pytest.mark.parametrize(
    "opened", [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], indirect=True, ids=str
)
def test_two_runs_stand_side_by_side_and_fit_the_window(opened: Any) -> None:
    opened.locator("#run-2 input").click()
    opened.get_by_role("option", name="seqgan-cats-1").last.click()
    opened.locator("#write").click()
    opened.wait_for_selector("#side-2 .token")
    wait_until_written(opened, 1)
    assert "this run trained" in opened.locator("#side-2 .discriminator").first.inner_text()
    width = opened.viewport_size["width"]
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    left, right = (opened.locator(f"#side-{side}").bounding_box() for side in (1, 2))
    beside = right["x"] > left["x"]
    assert beside == (width > 600)
    assert beside or right["y"] > left["y"]
    dark = opened.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == dark
    ink = "e => [getComputedStyle(e).color, getComputedStyle(e.querySelector('.q')).color]"
    word, number = opened.locator("#side-1 .token").first.evaluate(ink)
    assert word == number  # the theme does not paint over the colour that reads well on the tile


@pytest.mark.slow
def test_blanks_are_filled_on_the_page_and_its_button_makes_it_dark(opened: Any) -> None:
    choose_run(opened, "mle-cats-1")
    opened.locator("#prefix textarea, #prefix input").first.fill("the ___ sat")
    opened.locator("#write").click()
    wait_until_written(opened, 1)
    assert [[row[0], row[2]] for row in words_on(opened, 1)] == [["the", "sat"]] * 3
    assert opened.locator("#side-1 .token.given").count() == 6
    assert "sees only what stands before a blank" in opened.locator("#side-1 .note").inner_text()
    # Blanks and the end stand on a colour, which is another one in the dark.
    look = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(document.body).backgroundColor]"
    tile = opened.locator("#side-1 .token:not(.given)").first
    light = tile.evaluate(look)
    opened.locator("#theme").click()
    opened.wait_for_timeout(500)
    dark = tile.evaluate(look)
    assert [sum(map(int, re.findall(r"\d+", paper)[:3])) > 384 for paper in (light[1], dark[1])] == [True, False]
    assert light[0] != dark[0]


@pytest.mark.slow
def test_a_mistake_is_told_on_the_page(opened: Any) -> None:
    choose_run(opened, "mle-cats-1")
    opened.locator("#prefix textarea, #prefix input").first.fill("zebra")
    opened.locator("#write").click()
    assert "'zebra' is not among the" in opened.locator("#side-1 [role=alert]").inner_text()


# -- Who may ask ------------------------------------------------------------------------------------------------------
LOCAL = "http://127.0.0.1:7860"


def answers(player: Player, host: str, *requests: tuple[str, str, dict[str, Any]]) -> list[int]:
    """Ask the page's server, which is not started: the status of each answer."""
    pytest.importorskip("gradio")
    import httpx
    from gradio.routes import App

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(App.create_app(play_page.build_page(player), app_kwargs=guards))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:
            return [(await client.request(how, path, **what)).status_code for how, path, what in requests]

    guards = play_page.guards(host, 7860)
    with ThreadPoolExecutor(1) as thread:  # a browser of another test has a loop in this one
        return thread.submit(asyncio.run, ask()).result()


def config_for(**headers: str) -> tuple[str, str, dict[str, Any]]:
    return "GET", "/config", {"headers": headers}


def test_only_the_page_itself_is_answered_and_takes_no_files(player: Player) -> None:
    hosts = ["evil.example:7860", "127.0.0.1", "127.0.0.1:80", "127.0.0.1.evil.example:7860", "10.0.0.1:7860", ""]
    origins = ["http://evil.example", "http://evil.example:7860", "https://127.0.0.1:7860", "null", f"{LOCAL}/x", ""]
    paths = ["/gradio_api/upload", "/gradio_api/upload/", "/gradio_api/process_recording", "/gradio_api/run/write"]
    refused = [
        *(config_for(Host=host) for host in hosts),
        *(config_for(Origin=origin) for origin in origins),
        *(("POST", path, {"files": {"files": b"x"}}) for path in paths),
        ("POST", "/gradio_api/queue/join", {"content": b"x" * 2**17}),
    ]
    taken = [config_for(), config_for(Host="localhost:7860", Origin=LOCAL)]
    to_gradio = ("POST", "/gradio_api/queue/join", {"json": {"data": 1}})
    found = answers(player, "127.0.0.1", *taken, to_gradio, *refused)
    assert found == [200, 200, 422, *[403] * len(refused)]


def test_a_page_for_other_machines_is_asked_for_by_number_or_by_the_name_it_was_given(player: Player) -> None:
    asked = config_for(Host="192.168.0.7:7860"), config_for(Host="evil.example:7860")
    assert answers(player, "0.0.0.0", *asked) == [200, 403]


@pytest.mark.parametrize(("place", "value"), [
    (0, None), (0, "no such run"), (1, None), (1, ["x"]), (2, None), (2, 5), (3, None), (3, "x"), (4, -1), (4, "1"),
    (5, None), (5, 10**9), (6, "x"), (7, {}), (8, 0), (8, None),
])  # fmt: skip
def test_what_a_program_sends_in_place_of_a_control_is_refused_in_a_sentence(
    player: Player, place: int, value: object
) -> None:
    values = ["mle-cats-1", "none", "", 1.0, 0, 1, 0, 1.0, 2, "the run's own discriminator"]
    values[place] = value
    ((shown, *_),) = play_page._answer(player, *values)
    assert 'role="alert"' in shown
