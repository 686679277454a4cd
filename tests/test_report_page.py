"""The page in a browser: it plays, answers a click, shows what it is told, runs nothing and asks nobody."""

import copy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agents.mle import MLE
from agents.mle import smoke as mle_smoke
from agents.seqgan import SeqGAN
from agents.seqgan import smoke as seqgan_smoke
from conftest import make_run
from textgan_env.show.report import page, report_data
from textgan_env.training.launch import launch
from textgan_env.utils.molecules import picture_address

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (on Debian: apt-get install chromium)"),
]

SCRIPT = "<script>document.title='broken'</script>"
LINES = [f"the {noun} {verb} {thing}" for noun in ("cat", "dog") for verb in ("saw", "ate") for thing in "abcde"]
# "The boy writes the book", "the girl reads the poem" and so on.
WHO = ("\u0627\u0644\u0648\u0644\u062f", "\u0627\u0644\u0628\u0646\u062a", "\u0627\u0644\u0634\u0627\u0639\u0631")
DOES = ("\u064a\u0643\u062a\u0628", "\u064a\u0642\u0631\u0623", "\u064a\u062d\u0628")
WHAT = (
    "\u0627\u0644\u0643\u062a\u0627\u0628",
    "\u0627\u0644\u0642\u0635\u064a\u062f\u0629",
    "\u0627\u0644\u0628\u062d\u0631",
)
ARABIC = [f"{who} {does} {what}" for who in WHO for does in DOES for what in WHAT]


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    library = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    with library.sync_playwright() as player:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        found = player.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield found
        found.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of two runs on a text with a script in every second line: one whose D learnt, one with a control."""
    file = tmp_path_factory.mktemp("page") / "my.txt"
    file.write_text("\n".join([*LINES, *[f"{line} {SCRIPT}" for line in LINES]]))
    made = {"mode": "whitespace", "mle_epochs": 2}
    runs = [make_run(SeqGAN, seqgan_smoke, file, **made, control=control).path for control in (None, "shuffled")]
    return report_data(runs, texts=3, rollouts=4)


@pytest.fixture(scope="module")
def arabic(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("arabic") / "my.txt"
    file.write_text("\n".join(ARABIC), encoding="utf-8")
    return report_data([make_run(SeqGAN, seqgan_smoke, file, mode="whitespace").path], texts=2, rollouts=2)


class Watched:
    """A page in the browser, and everything that it should not have done."""

    def __init__(self, browser: "Browser", file: Path, **context: Any) -> None:
        self.context = browser.new_context(**{"reduced_motion": "reduce", **context})
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        self.page.on("request", self._asked)
        self.page.clock.install(time=datetime(2000, 1, 1, tzinfo=UTC))
        self.page.goto(file.as_uri())
        self.page.clock.pause_at(datetime(2000, 1, 2, tzinfo=UTC))  # from now on time passes when a test says so

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.wrong.append(f"request: {request.url}")


@pytest.fixture
def opened(browser: "Browser", tmp_path: Path) -> Iterator[Any]:
    """A function that opens data as a page; at the end nothing may have gone wrong there."""
    pages: list[Watched] = []

    def open_page(data: dict[str, Any], width: int = 1280, **context: Any) -> "Page":
        file = tmp_path / f"{len(pages)}.html"
        file.write_text(page(data), encoding="utf-8")
        pages.append(Watched(browser, file, viewport={"width": width, "height": 900}, **context))
        return pages[-1].page

    yield open_page
    for watched in pages:
        watched.context.close()
        assert watched.wrong == []


def test_a_molecule_is_drawn_below_its_string_and_hidden_where_there_is_none(opened: Any, data: dict[str, Any]) -> None:
    pytest.importorskip("rdkit")
    molecules = copy.deepcopy(data)
    molecules["runs"][0]["texts"][0] |= {"text": "CCO", "picture": picture_address("CCO")}
    shown = opened(molecules)
    image = shown.locator("img.molecule").first
    assert image.get_attribute("alt") == "The molecule CCO"
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 200
    assert image.is_visible()
    shown.locator("#text-next").click()
    assert not image.is_visible()


def position(shown: "Page") -> int:
    """How many tokens the slider says are written."""
    return int(shown.locator("#position").input_value())


def shown_tokens(shown: "Page", run: int = 0) -> list[str]:
    return shown.locator("#stages .stage").nth(run).locator(".token:not(.ahead) .word").all_inner_texts()


def test_everything_is_there_at_once(opened: Any, data: dict[str, Any]) -> None:
    shown = opened(data)
    first, second = data["runs"]
    assert shown.locator("h1").inner_text() == f"{first['name']} · {second['name']}"
    assert shown.locator("#stages .stage").count() == 2
    for run, stage in enumerate(shown.locator("#stages .stage").all()):
        text = data["runs"][run]["texts"][0]
        words = ["end" if token == data["end"] else data["words"][token] for token in text["tokens"]]
        assert shown_tokens(shown, run) == words
        numbers = [float(number) for number in stage.locator(".token .q").all_inner_texts()]
        assert numbers == pytest.approx(text["q"], abs=0.0051)
        found = data["runs"][run]["discriminator"]
        said = stage.locator(".discriminator").inner_text()
        assert "Discriminator: its own" in said
        assert f"AUC {found['auc']:.2f}".replace(" 0.", " .") in said
        assert f"accuracy {found['accuracy']:.2f}".replace(" 0.", " .") in said
        assert stage.locator(".real").count() == len(data["runs"][run]["real"])
        assert stage.locator(".parts tbody tr").count() >= 3
    assert shown.locator("#stages .badge.control").inner_text() == "control: shuffled reward"
    assert shown.locator("#curves .card").count() >= 4
    table = shown.locator("#table").inner_text()
    assert "NLL-test" in table
    assert "temperature" in table
    assert shown.locator("#made-runs pre").count() == 2
    assert (
        first["made"]["source"] is None or first["made"]["source"]["commit"] in shown.locator("#made-runs").inner_text()
    )
    assert "There is no control run" not in shown.locator("#learn-notes").inner_text()


def test_playback_writes_token_by_token_and_ends_by_itself(opened: Any, data: dict[str, Any]) -> None:
    shown = opened(data)
    longest = max(len(run["texts"][0]["tokens"]) for run in data["runs"])
    whole = len(data["runs"][0]["texts"][0]["tokens"])
    shown.select_option("#pace", "160")
    shown.click("#play")
    for count in (1, 2):
        shown.clock.run_for(160)
        assert position(shown) == count
        assert len(shown_tokens(shown)) == min(count, whole)
    shown.click("#play")
    shown.clock.run_for(1000)
    assert position(shown) == 2
    shown.click("#play")
    shown.clock.run_for(160 * longest)
    assert shown.locator("#play").inner_text() == "Play"
    assert shown.locator("#token-number").inner_text() == f"token {longest} of {longest}"
    shown.click("#play")  # once more from the first token
    assert position(shown) == 0
    shown.clock.run_for(160)
    assert position(shown) == 1


def test_it_is_stepped_by_buttons_keys_and_slider(opened: Any, data: dict[str, Any]) -> None:
    shown = opened(data)
    whole = len(data["runs"][0]["texts"][0]["tokens"])
    longest = max(len(run["texts"][0]["tokens"]) for run in data["runs"])
    shown.keyboard.press("ArrowLeft")
    assert position(shown) == longest - 1
    shown.fill("#position", "0")
    assert shown_tokens(shown) == []
    assert "Nothing is written yet" in shown.locator(".readout").first.inner_text()
    shown.click("#forward")
    shown.keyboard.press("ArrowRight")
    assert len(shown_tokens(shown)) == min(2, whole)
    shown.click("#back")
    assert len(shown_tokens(shown)) == 1
    shown.click("#text-next")
    assert shown.locator("#text-number").inner_text() == "text 2 of 3"
    assert len(shown_tokens(shown)) == len(data["runs"][0]["texts"][1]["tokens"])
    shown.locator("h1").click()
    shown.keyboard.press("Space")
    assert shown.locator("#play").inner_text() == "Pause"
    shown.keyboard.press("Space")
    assert shown.locator("#play").inner_text() == "Play"


def test_a_token_shows_its_completions_the_best_first_and_their_mean(opened: Any, data: dict[str, Any]) -> None:
    shown = opened(data)
    text = data["runs"][0]["texts"][0]
    stage = shown.locator("#stages .stage").first
    assert stage.locator(".rollouts").count() == 0
    stage.locator(".token").first.focus()
    shown.keyboard.press("Enter")
    scores = [float(score) for score in stage.locator(".rollouts .score").all_inner_texts()]
    assert scores == pytest.approx(sorted((score for score, _ in text["completions"][0]), reverse=True), abs=0.0051)
    assert f"mean of their scores: {text['q'][0]:.3f}" in stage.inner_text()
    best = max(text["completions"][0], key=lambda one: one[0])[1]
    words = [data["words"][token] for token in (text["tokens"][0], *best) if token != data["end"]]
    assert stage.locator(".rollouts .written").first.inner_text().startswith(" ".join(words))
    stage.locator(".token").last.click()
    assert "Nothing can follow it" in stage.locator(".behind").inner_text()
    stage.locator(".token").last.click()
    assert "Click a token" in stage.locator(".behind").inner_text()


def test_pointing_at_a_part_of_the_judgement_marks_its_tokens(opened: Any, data: dict[str, Any]) -> None:
    shown = opened(data)
    stage = shown.locator("#stages .stage").first
    text = data["runs"][0]["texts"][0]
    for row, (_, positions, _) in enumerate(text["parts"]["strongest"]):
        stage.locator(".parts tr").nth(row).hover()
        marked = [at for at, one in enumerate(stage.locator(".token").all()) if "lit" in one.get_attribute("class")]
        assert marked == [position for position in positions if 0 <= position < len(text["tokens"])]


def test_the_round_slider_shows_the_samples_of_that_round(opened: Any, data: dict[str, Any]) -> None:
    shown = opened(data)
    for run in data["runs"]:
        assert len(run["samples"]) >= 2
    shown.fill("#round", "0")
    step, texts = data["runs"][0]["samples"][0]
    assert shown.locator("#round-label").inner_text().startswith(f"Round {step} of ")
    assert shown.locator("#samples .card").first.locator("li").all_inner_texts() == texts
    before = shown.locator("#curves polyline").count()
    shown.check("#zoom")
    assert 0 < shown.locator("#curves polyline").count() <= before
    shown.select_option("#measure", index=1)
    assert shown.locator("#curves .card").last.locator("polyline").count() >= 1


def test_a_script_in_the_corpus_is_shown_and_never_run(opened: Any, data: dict[str, Any]) -> None:
    shown = opened(data)
    assert shown.title().endswith("textgan_env")
    texts = [text for run in data["runs"] for _, look in run["samples"] for text in look]
    assert any("<script>" in text for text in [*texts, *data["words"]])
    assert shown.locator("script").count() == 2  # the data and the page's own
    found = []
    for at in range(len(data["runs"][0]["texts"])):
        found.append(shown.locator("#stages").inner_text())
        if at < 2:
            shown.click("#text-next")
    assert any(SCRIPT in text for text in found)


def test_right_to_left_text_runs_from_the_right(opened: Any, arabic: dict[str, Any]) -> None:
    shown = opened(arabic, width=900)
    tokens = shown.locator("#stages .tokens").first
    assert tokens.evaluate("node => getComputedStyle(node).direction") == "rtl"
    boxes = [one.bounding_box() for one in tokens.locator(".token").all()[:2]]
    assert boxes[0]["x"] > boxes[1]["x"]
    assert tokens.locator(".q").first.evaluate("node => getComputedStyle(node).direction") == "ltr"
    sample = shown.locator("#samples li").first
    assert sample.evaluate("node => getComputedStyle(node).direction") == "rtl"
    assert shown.locator("html").evaluate("node => getComputedStyle(node).direction") == "ltr"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen_in_light_and_dark_and_every_colour_is_readable(
    opened: Any, data: dict[str, Any], width: int, scheme: str
) -> None:
    shown = opened(data, width=width, color_scheme=scheme)
    assert shown.locator("html").get_attribute("data-theme") == scheme
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    contrasts = shown.evaluate(
        """() => {
            const numbers = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
            const light = (rgb) => rgb.map((part) => part / 255)
                .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
                .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
            const contrast = (one, other) => {
                const [low, high] = [light(numbers(one)), light(numbers(other))].sort((a, b) => a - b);
                return (high + 0.05) / (low + 0.05);
            };
            const behind = (node) => {
                for (let at = node; at; at = at.parentElement) {
                    const colour = getComputedStyle(at).backgroundColor;
                    if (!/, 0\\)$|transparent/.test(colour)) return colour;
                }
                return "rgb(255, 255, 255)";
            };
            const seen = ".token, .lead, .faint, .note, .badge, .tag, nav a, #play, th, dd, summary";
            return [...document.querySelectorAll(seen)]
                .map((node) => [node.className || node.tagName, contrast(getComputedStyle(node).color, behind(node))]);
        }"""
    )
    assert len(contrasts) > 30
    assert [(name, value) for name, value in contrasts if value < 4.5] == []
    shown.click("#theme")
    assert shown.locator("html").get_attribute("data-theme") != scheme


def test_without_results_or_samples_the_page_says_so(opened: Any, data: dict[str, Any]) -> None:
    (run, _) = data["runs"]
    discriminator = {**run["discriminator"], "auc": None, "accuracy": None}
    shown = opened({**data, "runs": [{**run, "evaluation": None, "samples": [], "discriminator": discriminator}]})
    assert "How far to trust it is not known" in shown.locator(".discriminator").inner_text()
    assert "has not measured itself" in shown.locator("#results-lead").inner_text()
    assert "No texts were kept yet." in shown.locator("#samples").inner_text()
    assert "There is no control run" in shown.locator("#learn-notes").inner_text()


def test_nll_oracle_stands_only_beside_nll_test(opened: Any, tmp_path: Path) -> None:
    small: dict[str, Any] = {"embed_size": 4, "hidden_size": 4, "threads": 1, "runs": tmp_path, "show_samples": 1}
    data = report_data([launch(replace(mle_smoke("toy"), **small), MLE).path], texts=1, rollouts=2)
    shown = opened(data)
    table = shown.locator("#table .results").inner_text()
    assert table.index("NLL-oracle") < table.index("NLL-test")
    assert "temperature" in table
    assert "NLL-oracle alone is no result" in shown.locator("#learn-notes").inner_text()
    del data["runs"][0]["evaluation"]["values"]["nll_test"]
    alone = opened(data)
    row = alone.locator("#table tr", has_text="NLL-oracle").first
    assert row.locator("td").last.inner_text() == "\u2013"
