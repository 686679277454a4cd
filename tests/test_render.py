import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import assert_refused, disk_full
from textgan_env.ops import colours, plots, render
from textgan_env.ops.colours import credit_colour, credit_limits, ink_on
from textgan_env.ops.plots import heat_map, learning_curve
from textgan_env.ops.render import ansi, rgb_array, score_list
from textgan_env.ops.reward_kinds import TRANSFORMS

WORDS = ["a", "man", "in", "a", "red", "shirt", "rides", "a", "horse", "."]
CREDIT = [0.05, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
UNIT = (0.0, 1.0)
LINES = {"nats per token": {"nll_test": "NLL-test", "nll_oracle": "NLL-oracle"}}


def share_of(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((picture == np.array(colour, np.uint8)).all(-1).mean())


def png_size(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        width, height = picture.size
        return width, height


def test_colours_run_from_orange_over_a_pale_middle_to_blue() -> None:
    low, middle, high = (credit_colour(value, (-2.0, 4.0)) for value in (-2.0, 1.0, 4.0))
    assert low[0] > 2 * low[2]
    assert high[2] > 2 * high[0]
    assert min(middle) > 225
    assert credit_colour(-99.0, UNIT) == credit_colour(0.0, UNIT)
    assert credit_colour(math.inf, UNIT) == credit_colour(1.0, UNIT)
    assert len(set(credit_colour(math.nan, UNIT))) <= 2


def test_colours_grow_darker_evenly_away_from_the_middle() -> None:
    light = [colours._luminance(credit_colour(value, UNIT)) for value in np.linspace(0, 1, 101)]
    assert (np.diff(light[:51]) > 0).all()
    assert (np.diff(light[50:]) < 0).all()


@given(st.floats(0, 1))
def test_text_on_every_colour_has_the_contrast_that_reading_needs(value: float) -> None:
    colour = credit_colour(value, UNIT)
    assert colours.contrast(ink_on(colour), colour) >= 3.6


def test_contrast_of_black_and_white_is_21() -> None:
    assert colours.contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert colours.contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)


def test_the_scale_of_probabilities_is_never_stretched_to_their_range() -> None:
    assert (credit_limits([0.45, 0.55]), credit_limits([0.9, math.nan]), credit_limits([])) == ((0.0, 1.0),) * 3
    assert (credit_limits([0.2, -1.0, 3.0]), credit_limits([-4.0, 1.0], middle=0.0)) == ((-2.0, 3.0), (-4.0, 4.0))
    assert credit_limits([0.1, -0.2], middle=0.0) == (-0.5, 0.5)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_middle_of_the_scale_is_where_d_does_not_know(name: str) -> None:
    transform = TRANSFORMS[name]
    unsure = float(transform(torch.zeros(1)))
    low, high = transform.limits or credit_limits([unsure, unsure + 3], transform.middle)
    assert (low + high) / 2 == pytest.approx(unsure)


def test_ansi_paints_each_word_in_the_colour_of_its_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    first, legend = ansi(["low", "high"], [0.0, 1.0], limits=UNIT).split("\n")
    painted = re.findall(r"\x1b\[48;2;(\d+);(\d+);(\d+)m\x1b\[38;2;[\d;]+m (\w+) \x1b\[0m", first)
    assert painted == [(*map(str, credit_colour(0.0, UNIT)), "low"), (*map(str, credit_colour(1.0, UNIT)), "high")]
    assert legend.startswith("Q 0.00 ")
    assert legend.endswith(" 1.00")


def test_ansi_without_credit_is_the_plain_text() -> None:
    assert ansi(WORDS) == " ".join(WORDS)
    assert (ansi(list("床前明月"), separator=""), ansi([])) == ("床前明月", "")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_ansi_honours_the_wish_for_no_colours(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[48" in ansi(["a", "b"], [0.25, math.nan])
    monkeypatch.setenv(name, value)
    assert ansi(["a", "b"], [0.25, math.nan]) == "a(0.25) b(nan)"


@pytest.mark.parametrize("acting", ["\x1b[2J", "\r", "\n", "\x07", "\x9b", "\u202e"])
def test_characters_that_act_on_a_terminal_are_shown_as_escapes(acting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for text in (ansi([f"x{acting}y"]), ansi([f"x{acting}y"], [0.5])):
        assert acting[0] not in text
        assert "x\\" in text


def test_values_that_do_not_fit_the_words_are_refused() -> None:
    for function in (ansi, rgb_array):
        assert_refused("credit", function, ["a", "b"], [0.5])
        for limits in ((1.0, 1.0), (2.0, 1.0), (0.0, math.nan), (-math.inf, 0.0)):
            assert_refused("limits", function, ["a"], [0.5], limits=limits)


@pytest.mark.parametrize(("words", "credit"), [
    ([], None), ([], []), (WORDS, None), (WORDS, CREDIT), (WORDS, [math.nan] * len(WORDS)),
    (WORDS, [math.inf, -math.inf, *CREDIT[2:]]), (["", " ", "\x1b", "\U000f0000"], [1e-9, -1e9, 1e300, 0.0]),
    (["x" * 5000], [0.5]), (WORDS * 60, CREDIT * 60),
])  # fmt: skip
@pytest.mark.parametrize("size", [(640, 360), (320, 200)])
def test_every_text_gives_a_picture_of_the_same_size(
    words: list[str], credit: list[float] | None, size: tuple[int, int]
) -> None:
    picture = rgb_array(words, credit, size=size, title="TextGAN-v0")
    assert picture.shape == (size[1], size[0], 3)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous


def test_a_picture_too_small_for_text_is_refused() -> None:
    assert_refused("pixels", rgb_array, WORDS, size=(100, 300))


def test_tiles_have_the_colours_of_the_credit() -> None:
    picture = rgb_array(["aaaa", "bbbb", "cccc"], [0.1, 0.9, math.nan], limits=UNIT)
    for value in (0.1, 0.9, math.nan):
        assert share_of(picture, credit_colour(value, UNIT)) > 0.003
    assert share_of(rgb_array(["aaaa", "bbbb", "cccc"]), credit_colour(0.1, UNIT)) == 0


def test_a_growing_text_leaves_what_was_drawn_in_its_place() -> None:
    before = rgb_array(WORDS[:5], CREDIT[:5], limits=UNIT)
    after = rgb_array(WORDS[:6], CREDIT[:6], limits=UNIT)
    changed = (before != after).any(-1)
    assert changed.any()
    assert (after[changed] != before[changed]).any(-1).all()
    assert share_of(before[changed], render._PAPER) > 0.99


def test_text_longer_than_the_picture_shows_its_end() -> None:
    words = [f"{number:04}" for number in range(900)]
    room = (0, 0, 900, 400)
    tiles = render._layout(words, [0.5] * 900, room)
    assert tiles[0].word == "…"
    assert [tile.word for tile in tiles[1:]] == words[-(len(tiles) - 1) :]
    assert len(tiles) > 20
    assert max(tile.box[3] for tile in tiles) <= 400
    assert max(tile.box[2] for tile in tiles) <= 900


def test_without_another_font_a_character_is_shown_as_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_installed_fonts", lambda: ())
    render._font_file.cache_clear()
    try:
        assert render._font_file("床") == render._usual_font()
        drawn, empty = (rgb_array([word], [0.5], limits=UNIT) for word in ("床", ""))
        assert (drawn != empty).any()
    finally:
        render._font_file.cache_clear()


def test_characters_outside_the_usual_font_take_an_installed_one_that_has_them() -> None:
    if render._font_file("床") == render._usual_font():
        pytest.skip("no font with Chinese characters is installed")
    box = rgb_array(["\U000f0000"], [0.5], limits=UNIT)
    one, other = (rgb_array([word], [0.5], limits=UNIT) for word in ("床", "月"))
    assert (one != other).any()
    assert (one != box).any()
    assert render._font_file("a") == render._usual_font()


def rows_of_a_run() -> list[dict[str, Any]]:
    return [
        {"step": step, "phase": "mle" if step < 6 else "adversarial", "nll_test": 9 - step / 10, "note": "x"}
        | ({"nll_oracle": 10 - step / 10} if step % 2 else {"nll_oracle": math.nan})
        for step in range(1, 11)
    ]


def test_a_learning_curve_is_a_small_png_of_readable_size(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    assert learning_curve(rows_of_a_run(), path, lines=LINES, title="MLE", levels={"real text": 5.75})
    assert png_size(path) == (924, 451)
    assert path.stat().st_size < 100_000
    two = LINES | {"share": {"note": "text is no number"}, "BLEU-2": {"nll_test": "test"}}
    assert learning_curve(rows_of_a_run(), path, lines=two, x_label="epoch")
    assert png_size(path) == (924, 781)  # the panel without a point is left out
    assert os.listdir(tmp_path) == ["curve.png"]


def test_one_point_is_enough_for_a_curve(tmp_path: Path) -> None:
    assert learning_curve([{"step": 1, "nll_test": 7.0}], tmp_path / "curve.png", lines=LINES)
    png_size(tmp_path / "curve.png")


def test_without_a_point_there_is_no_curve(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"step": 1, "nll_test": math.nan},
        {"step": 2, "nll_test": "text"},
        {"nll_test": 3.0},
    ]
    assert not learning_curve(rows, tmp_path / "curve.png", lines=LINES)
    assert not learning_curve([], tmp_path / "curve.png", lines=LINES)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_keeps_the_older_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "curve.png"
    learning_curve(rows_of_a_run(), path, lines=LINES)
    before = path.read_bytes()
    monkeypatch.setattr("textgan_env.utils.files.os.fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        learning_curve(rows_of_a_run()[:3], path, lines=LINES)
    assert path.read_bytes() == before


def test_drawing_a_curve_leaves_the_global_state_of_pyplot_alone(tmp_path: Path) -> None:
    program = (
        "import sys; from textgan_env.ops.plots import learning_curve\n"
        "learning_curve([{'step': 1, 'a': 2.0}], sys.argv[1], lines={'unit': {'a': 'name'}})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "curve.png")]
    subprocess.run(command, cwd=Path(__file__).parent.parent, check=True)


def test_names_stand_beside_the_lines_the_highest_last_value_on_top() -> None:
    panel = plots.new_figure(4, 3).subplots()
    points = {"falls": [(0.0, 2.0), (1.0, 1.0)], "rises": [(0.0, 0.0), (1.0, 30.0)]}
    lines = {name: plots._Line(at, plots.plot_look(0)) for name, at in points.items()}
    plots._draw_panel(panel, "unit", lines, {"level": 2.0})
    legend = panel.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["rises  30", "level  2.000", "falls  1.000"]


def hex_colour(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


@pytest.mark.parametrize("colour", [*plots.LINE_COLOURS, plots.REAL, plots.FAKE])
def test_names_in_the_colours_of_their_lines_can_be_read_on_white(colour: str) -> None:
    assert colours.contrast(hex_colour(colour), (255, 255, 255)) >= 4.5


def test_no_line_of_a_run_has_the_colours_of_real_and_fake() -> None:
    assert (hex_colour(plots.FAKE), hex_colour(plots.REAL)) == tuple(tuple(end) for end in colours.SCALE[[0, -1]])
    for colour in plots.LINE_COLOURS:
        for other in (plots.FAKE, plots.REAL):
            assert math.dist(as_seen(colour, SIGHT["usual"]), as_seen(other, SIGHT["usual"])) > 25


#: Linear sRGB as people see it who lack the cones for long, middle or short waves (Machado et al. 2009, severity 1).
SIGHT = {
    "usual": np.eye(3),
    "no long": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "no middle": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "no short": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def as_seen(colour: str, sight: np.ndarray) -> np.ndarray:
    """A colour in CIELAB; by the definitions, independent of ops.colours."""
    share = np.array(hex_colour(colour)) / 255
    linear = np.clip(sight @ np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    x, y, z = np.cbrt(to_xyz @ linear / to_xyz.sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_lines_whose_colours_look_alike_to_someone_differ_in_dashes_and_markers(sight: str) -> None:
    for one, other in itertools.combinations(range(len(plots.LINE_COLOURS)), 2):
        first, second = (as_seen(plots.LINE_COLOURS[number], SIGHT[sight]) for number in (one, other))
        if math.dist(first, second) < 20:
            assert plots.line_look(one)[1] != plots.line_look(other)[1]
            assert plots.plot_look(one)["marker"] != plots.plot_look(other)["marker"]


def test_twenty_four_lines_differ_in_colour_or_dashes_and_forty_two_in_colour_or_marker() -> None:
    assert len({plots.line_look(number) for number in range(24)}) == 24
    marked = [plots.plot_look(number) for number in range(42)]
    assert len({(look["color"], look["marker"]) for look in marked}) == 42


def test_a_line_keeps_its_colour_where_another_has_no_points() -> None:
    names = {"a": "first", "b": "second"}
    rows = [{"step": 1, "a": 1.0, "b": 2.0}, {"step": 2, "b": 3.0}]
    both, alone = (plots._lines(some, "step", names, positive=False, colour_of={}) for some in (rows, rows[1:]))
    assert list(alone) == ["second"]
    assert alone["second"].look == both["second"].look != both["first"].look
    (named,) = plots._lines(rows[1:], "step", names, positive=False, colour_of={"b": plots.FAKE}).values()
    assert named.look["color"] == plots.FAKE


def test_a_band_lies_between_the_lowest_and_the_highest_seed(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"step": step, "a": 1.0, "a low": 0.0, "a high": high} for step, high in ((1, 2.0), (2, 2.0), (3, math.nan))
    ]
    (line,) = plots._lines(rows, "step", {"a": "a"}, positive=False, colour_of={}).values()
    assert line.band == [(1.0, 0.0, 2.0), (2.0, 0.0, 2.0)]
    learning_curve(rows, tmp_path / "band.png", lines={"unit": {"a": "a"}})
    pale = [round(255 - 0.15 * (255 - part)) for part in hex_colour(plots.LINE_COLOURS[0])]
    share = (abs(pixels(tmp_path / "band.png").astype(int) - pale) < 6).all(-1).mean()
    assert 0.1 < share < 0.6


def pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_on_a_logarithmic_axis_what_is_not_above_0_has_no_point(tmp_path: Path) -> None:
    lines = {"size": {"a": "a"}}
    rows = [{"step": 1, "a": 0.001}, {"step": 2, "a": 10.0}]
    learning_curve(rows, tmp_path / "plain.png", lines=lines)
    learning_curve(rows, tmp_path / "log.png", lines=lines, log=("size",))
    learning_curve([*rows, {"step": 2, "a": 0.0}], tmp_path / "zero.png", lines=lines, log=("size",))
    assert (pixels(tmp_path / "plain.png") != pixels(tmp_path / "log.png")).any()
    assert (pixels(tmp_path / "zero.png") == pixels(tmp_path / "log.png")).all()
    assert not learning_curve([{"step": 1, "a": 0.0}], tmp_path / "none.png", lines=lines, log=("size",))


def test_a_heat_map_puts_each_value_at_its_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    heat_map(np.array([[0.0, 0.5], [0.5, 1.0]]), path, rows=["a", "b"], columns=["c", "d"], x_label="x", title="map")
    picture = pixels(path)
    places = {
        value: np.argwhere((abs(picture.astype(int) - credit_colour(value, UNIT)) < 8).all(-1)) for value in (0.0, 1.0)
    }
    # The colour scale to the right shows these colours, too, in a line or so.
    low, high = (np.median(places[value], axis=0) for value in (0.0, 1.0))
    assert low[0] < high[0]
    assert low[1] < high[1]
    assert min(map(len, places.values())) > 1000


def test_a_heat_map_of_other_names_than_numbers_is_refused(tmp_path: Path) -> None:
    assert_refused("name", heat_map, np.zeros((2, 2)), tmp_path / "map.png", rows=["a"], columns=["c", "d"])
    assert os.listdir(tmp_path) == []


def test_a_list_of_texts_has_each_score_on_its_colour_one_below_the_other() -> None:
    picture = score_list(["one", "two"], [0.0, 1.0], limits=UNIT, title="texts")
    assert picture.shape == (110, 960, 3)
    tops = [np.argwhere((picture == credit_colour(value, UNIT)).all(-1))[:, 0].min() for value in (0.0, 1.0)]
    assert tops[1] - tops[0] == 29


def test_a_text_wider_than_the_list_is_cut() -> None:
    picture = score_list(["word " * 200], [0.5], limits=UNIT)
    assert (picture[:, -30:] == picture[0, 0]).all()


def test_a_list_without_a_score_for_each_text_is_refused() -> None:
    assert_refused("credit", score_list, ["a", "b"], [0.5])
