"""Folk tunes as sequences of pitches, and sequences of pitches as MIDI files. Both need music21, the extra ``music``.

The tunes are those of Ryan's Mammoth Collection (Boston 1883: reels, jigs, hornpipes), which music21 brings along.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from textgan_env.utils.errors import MissingDataError, require, require_package

#: Steps of a text: SeqGAN's length.
STEPS = 32
#: How long a step is played.
STEP_SECONDS = 0.2
LOWEST, HIGHEST = 21, 108  # MIDI numbers of the 88 keys of a piano

_NAMES = ("c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b")
_PITCH = re.compile(r"([a-g]#?)(\d)")


def pitch_name(number: int) -> str:
    """The name of a key, as texts have it: 60 is ``c4``, 61 ``c#4``."""
    return f"{_NAMES[number % 12]}{number // 12 - 1}"


def pitch_number(name: str) -> int:
    """The MIDI number of a name, 21 to 108.

    Raises:
        InputError: If it names no key of a piano.
    """
    found = _PITCH.fullmatch(name)
    number = _NAMES.index(found[1]) + 12 * (int(found[2]) + 1) if found and found[1] in _NAMES else 0
    require(LOWEST <= number <= HIGHEST, f"expected pitches such as c4 or f#5, found {name!r}: is it a run on music?")
    return number


def derive_tunes() -> dict[str, list[str]]:
    """Read the tunes as texts of 32 pitches.

    A step is the note length that a tune has most often (a sixteenth in most reels, an eighth in jigs), and its pitch
    is the one that sounds when it begins: the highest of a chord, the last one where there is a rest. Grace notes are
    left out, repeats are not played twice, and the steps after the last whole text of a tune are lost.

    Returns:
        Name of the tune -> its texts, in alphabetical order of the names.

    Raises:
        MissingDataError: If music21 or its tunes are not installed.
    """
    before = random.getstate()  # from which music21 draws names for chords
    try:
        with tqdm(_files(), desc="reading tunes (once)", unit="tune", disable=None) as bar:
            return {file.stem: read_tune(file.read_text(encoding="utf-8")) for file in bar}
    finally:
        random.setstate(before)


def read_tune(abc: str) -> list[str]:
    """The texts of one tune in ABC notation, see `derive_tunes`."""
    from music21 import abcFormat, harmony

    # From this version of the notation on, an accidental holds to the end of its bar, as musicians read it.
    score = abcFormat.translate.abcToStreamScore(abcFormat.ABCFile(abcVersion=(2, 1, 0)).readstr(abc))
    notes = [
        (float(found.offset), float(found.quarterLength), max(pitch.midi for pitch in found.pitches))
        for found in score.flatten().notes
        if not found.duration.isGrace and not isinstance(found, harmony.Harmony)
    ]
    steps = [pitch_name(number) for number in _sampled(notes)]
    return [" ".join(steps[first : first + STEPS]) for first in range(0, len(steps) - STEPS + 1, STEPS)]


def split_tunes(tunes: Mapping[str, Sequence[str]], share: float = 0.1) -> dict[str, list[str]]:
    """Hold out tunes at random; a text that stands in two of them is kept where it stands first.

    Args:
        tunes: From `derive_tunes`.
        share: Of the tunes, each for ``valid`` and ``test``.

    Returns:
        ``train``, ``valid`` and ``test`` -> different texts, none in two splits.
    """
    names = list(tunes)
    order = [names[at] for at in np.random.default_rng(0).permutation(len(names))]
    held = max(1, round(share * len(names)))
    parts = {"train": order[2 * held :], "valid": order[:held], "test": order[held : 2 * held]}
    seen: set[str] = set()
    splits: dict[str, list[str]] = {}
    for split, part in parts.items():
        texts = [text for name in sorted(part) for text in tunes[name]]
        splits[split] = [text for text in dict.fromkeys(texts) if text not in seen]
        seen.update(texts)
    return splits


def write_midi(texts: Iterable[str], folder: Path) -> list[Path]:
    """Write each text as a MIDI file that plays: ``text-001.mid`` and so on; a pitch that stays is one long note.

    Args:
        texts: Names of pitches between blanks.
        folder: It is made when it is not there; files of these names in it are replaced.

    Returns:
        The files, in order.

    Raises:
        InputError: If a word is no pitch or a text has none; nothing is written then.
        MissingDataError: If music21 is not installed.
        OSError: If a file cannot be written.
    """
    melodies = [[pitch_number(word) for word in text.split()] for text in texts]
    require(all(melodies), "a text without a pitch cannot be played")
    require_package("music21", "music", "MIDI")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for at, melody in enumerate(melodies, start=1):
        written.append(folder / f"text-{at:03d}.mid")
        _stream(melody).write("midi", fp=written[-1])
    return written


def _files() -> list[Path]:
    """The tunes of music21 that the corpus is derived from."""
    folder = require_package("music21", "music", "the corpus music") / "corpus" / "ryansMammoth"
    files = sorted(folder.glob("*.abc"))
    if not files:
        raise MissingDataError(f"the music21 that is installed came without its tunes ('{folder}'): install it again")
    return files


def _sampled(notes: Sequence[tuple[float, float, int]]) -> list[int]:
    """The pitch of each step, of notes (where they begin, how long they are, MIDI number) in order of time."""
    if not notes:
        return []
    lengths = Counter(length for _, length, _ in notes)
    step = min(lengths, key=lambda length: (-lengths[length], length))
    begin, end = notes[0][0], notes[-1][0] + notes[-1][1]
    starts = np.array([start for start, _, _ in notes])
    times = begin + step * np.arange(round((end - begin) / step))
    sounding = np.searchsorted(starts, times + 1e-6, side="right") - 1  # triplets begin at rounded numbers
    return [notes[at][2] for at in sounding.tolist()]


def _stream(melody: Sequence[int]) -> Any:
    """A melody as music21 writes it."""
    from music21 import note, stream, tempo

    quarter = 2 * STEP_SECONDS  # a step is an eighth
    score: Any = stream.Stream([tempo.MetronomeMark(number=60 / quarter)])
    for number, steps in groupby(melody):
        score.append(note.Note(number, quarterLength=len(list(steps)) / 2))
    return score
