"""Tunes to pitches and pitches to MIDI files, checked on tunes written here and by reading files back."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.cli import main
from conftest import assert_refused, small_music
from textgan_env.tasks import make_task
from textgan_env.text import music
from textgan_env.text.corpora import CORPORA
from textgan_env.text.music import derive_tunes, pitch_name, pitch_number, read_tune, split_tunes, write_midi
from textgan_env.text.published import is_here, named_corpus
from textgan_env.utils.errors import MissingDataError


# -- Pitches ----------------------------------------------------------------------------------------------------------
def test_every_key_of_a_piano_has_one_name() -> None:
    names = [pitch_name(number) for number in range(music.LOWEST, music.HIGHEST + 1)]
    assert (len(set(names)), names[0], names[-1]) == (88, "a0", "c8")
    assert pitch_name(69) == "a4"  # 440 Hz
    assert [pitch_number(name) for name in names] == list(range(21, 109))


@pytest.mark.parametrize("name", ["", "h4", "c", "c##4", "e#4", "b#4", "g0", "c#8", "C4", "the"])
def test_what_is_no_key_is_refused(name: str) -> None:
    assert_refused("pitches", pitch_number, name)


# -- Tunes ------------------------------------------------------------------------------------------------------------

HEAD = "X:1\nT:Test\nM:4/4\nL:1/8\nK:D\n"  # f and c are sharp


def texts_of(abc: str) -> list[str]:
    return read_tune(HEAD + abc)


def test_a_step_is_the_most_common_note_length_and_longer_notes_stay() -> None:
    bar = "D2 EF G4|"  # seven quavers' worth is eight: d d e f# g g g g
    assert texts_of(bar * 4) == [" ".join(["d4 d4 e4 f#4 g4 g4 g4 g4"] * 4)]


def test_accidentals_chords_rests_and_grace_notes() -> None:
    bar = "=FF {A}G[Ac] z2 AA|"  # the natural holds to the end of the bar; the rest keeps the chord's highest pitch
    assert texts_of(bar * 4) == [" ".join(["f4 f4 g4 c#5 c#5 c#5 a4 a4"] * 4)]


def test_a_tune_gives_whole_texts_only_and_a_short_one_none() -> None:
    bar = "DEFG ABcd|"
    text = " ".join(["d4 e4 f#4 g4 a4 b4 c#5 d5"] * 4)
    assert (texts_of(bar * 9), texts_of(bar * 3)) == ([text, text], [])


@pytest.mark.moves_global_rng  # music21 draws names for chords
def test_chord_names_above_the_line_are_not_played() -> None:
    assert texts_of('"Em"DEFG "A7"ABcd|' * 4) == texts_of("DEFG ABcd|" * 4)


def test_tunes_are_held_out_whole_and_no_text_stands_twice() -> None:
    tunes = {f"tune {at}": [f"{at} a", f"{at} b", "everywhere"] for at in range(40)}
    splits = split_tunes(tunes)
    assert splits == split_tunes(tunes)
    texts = [text for part in splits.values() for text in part]
    assert len(texts) == len(set(texts)) == 81
    assert "everywhere" in splits["train"]
    held = {split: {text.split()[0] for text in part} - {"everywhere"} for split, part in splits.items()}
    assert [len(held[split]) for split in ("train", "valid", "test")] == [32, 4, 4]
    assert len(set.union(*held.values())) == 40


# -- The task ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def few_tunes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return small_music(monkeypatch)


def test_the_corpus_is_derived_once_and_kept(few_tunes: list[int], tmp_path: Path) -> None:
    assert "music" in CORPORA
    assert not is_here("music", data_dir=tmp_path)
    corpus = named_corpus("music", data_dir=tmp_path)
    assert is_here("music", data_dir=tmp_path)
    again = named_corpus("music", data_dir=tmp_path)
    assert len(few_tunes) == 1
    assert {split: len(part) for split, part in again.splits.items()} == {"train": 5, "valid": 1, "test": 1}
    assert (corpus.max_length, corpus.vocabulary.eos, corpus.vocabulary.mode) == (32, None, "whitespace")
    (tmp_path / "music_test.txt").write_text("c4\n")
    named_corpus("music", data_dir=tmp_path)
    assert len(few_tunes) == 2


@pytest.mark.usefixtures("few_tunes")
def test_other_tunes_and_a_folder_that_keeps_nothing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingDataError, match="TEXTGAN_DATA"):
        named_corpus("music", data_dir=tmp_path / "file")
    wrong = {split: replace(file, sha256="0" * 64) for split, file in CORPORA["music"].files.items()}
    monkeypatch.setitem(CORPORA, "music", replace(CORPORA["music"], files=wrong))
    with pytest.raises(MissingDataError, match=r"music21==10\.5\.1"):
        named_corpus("music", data_dir=tmp_path)
    assert not list(tmp_path.glob("music*"))


def test_without_music21_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDataError, match=r"pip install 'textgan-env\[music\]'"):
        named_corpus("music", data_dir=tmp_path)


@pytest.mark.slow
def test_the_collection_gives_what_the_checksums_say(tmp_path: Path) -> None:
    task = make_task("music", data_dir=str(tmp_path))
    assert [len(task.split(split)) for split in ("train", "valid", "test")] == [3443, 418, 416]
    assert task.vocab_size == 35
    tunes = derive_tunes()
    assert len(tunes) == 1059
    # The beginning of a tune as its file has it, "uE2|.A2.A2 Acec", read by hand: A major, f, c and g sharp.
    assert tunes["AldridgesHornpipe"][0].split()[:10] == ["e4", "e4", "a4", "a4", "a4", "a4", "a4", "c#5", "e5", "c#5"]


# -- MIDI -------------------------------------------------------------------------------------------------------------
def read_back(file: Path) -> list[tuple[int, float]]:
    from music21 import converter

    notes: Any = converter.parse(file, storePickle=False, forceSource=True).flatten().notes
    return [(note.pitch.midi, float(note.quarterLength)) for note in notes]


def test_a_midi_file_holds_the_melody_and_its_tempo(tmp_path: Path) -> None:
    from music21 import converter, tempo

    files = write_midi(["c4 c4 f#5 a0 c4", "g4"], tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["text-001.mid", "text-002.mid"]
    assert files[0].read_bytes().startswith(b"MThd")
    assert read_back(files[0]) == [(60, 1.0), (78, 0.5), (21, 0.5), (60, 0.5)]
    assert read_back(files[1]) == [(67, 0.5)]
    score: Any = converter.parse(files[0], storePickle=False, forceSource=True)
    (mark,) = {found.number for found in score.flatten().getElementsByClass(tempo.MetronomeMark)}
    assert 60 / mark / 2 == pytest.approx(music.STEP_SECONDS)


def test_texts_without_pitches_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    for texts, sentence in ((["c4", "the cat"], "found 'the'"), (["c4", ""], "without a pitch cannot be played")):
        assert_refused(sentence, write_midi, texts, tmp_path / "midi")
    assert not (tmp_path / "midi").exists()


@pytest.mark.moves_global_rng
def test_sample_writes_what_it_prints_as_midi_files(
    few_tunes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path / "data"))
    tiny = ["--preset", "smoke", "--show-samples", "0", "--threads", "1", "--runs", str(tmp_path)]
    main(["train", "mle", "--task", "music", *tiny])
    capsys.readouterr()
    main(["sample", str(tmp_path / "mle-music-1"), "-n", "2", "--prefix", "C4 d4", "--midi", str(tmp_path / "midi")])
    texts = capsys.readouterr().out.splitlines()
    assert len(texts) == 2
    for text, file in zip(texts, sorted((tmp_path / "midi").glob("*.mid")), strict=True):
        steps = [number for number, length in read_back(file) for _ in range(round(2 * length))]
        assert steps == [pitch_number(name) for name in text.split()]
    assert len(few_tunes) == 1
