"""SMILES, the notation that writes a molecule as a line: its tokens, and two corpora of molecules.

Nothing here imports rdkit: what rdkit knows of a molecule is in `textgan_env.utils.molecules`.
"""

import csv
import gzip
import io
import re
import zipfile
from collections import Counter
from pathlib import Path

from textgan_env.utils.errors import MissingDataError, require, require_package
from textgan_env.utils.reading import file_hash

# A token is an atom in brackets, one of the two atoms of two letters that stand without, the number of a ring closure
# that needs more than one digit, or a single character: so no character is ever lost.
_TOKEN = re.compile(r"\[[^\[\]]*\]|Br|Cl|%\(\d+\)|%\d\d|.", re.DOTALL)
_LONGEST, _RAREST = 60, 20  # tokens of a molecule of `nci`, and how often each of its tokens occurs there

#: The wheel that has MOSES's molecules: read as a zip, never installed or imported (its requirements do not build).
MOSES_WHEEL = "molsets-0.3.1-py3-none-any.whl"
_MOSES_SHA256 = "7f4450e3ebecebe79c3a2a55950c93daddee071120daf64a163d03481e811d34"
#: How many molecules of MOSES's parts the corpus `moses` has; every eleventh of the training part is its valid split.
MOSES_TAKEN = {"train": 55_000, "test": 10_000}


def split_smiles(line: str) -> list[str]:
    """Split a SMILES string atom by atom: ``C[nH]Cl%12`` has the tokens ``C``, ``[nH]``, ``Cl``, ``%12``.

    The rules are the field's (Schwaller et al. 2018, Molecular Transformer), but any other character is a token of its
    own, so that the tokens put together are the string again.

    Args:
        line: The string, without blanks.
    """
    return _TOKEN.findall(line)


def without_name(line: str) -> str:
    """The SMILES string of a line, which ends at the first blank: in files of molecules a name may follow."""
    return next(iter(line.split(maxsplit=1)), "")


def derive_nci(folder: Path) -> dict[str, list[str]]:
    """Read the molecules of the NCI that rdkit brings along, as they stand there.

    Kept are the different strings of one molecule each (no dot) and of at most 60 tokens, all of whose tokens occur at
    least 20 times in the strings kept: few metals, and no long tail of charges.

    Args:
        folder: The data folder; not needed.

    Returns:
        ``train`` -> the strings, in the order of the file.

    Raises:
        MissingDataError: If rdkit is not installed, or came without its data.
    """
    file = require_package("rdkit", "chem", "the corpus nci") / "Data" / "NCI" / "first_5K.smi"
    if not file.is_file():
        raise MissingDataError(f"the rdkit that is installed came without its data ('{file}'): install it from PyPI")
    lines = [without_name(line) for line in file.read_text("utf-8").splitlines()]
    split = {line: tokens for line in lines if 0 < len(tokens := split_smiles(line)) <= _LONGEST and "." not in line}
    while True:
        counts = Counter(token for tokens in split.values() for token in tokens)
        kept = {line: tokens for line, tokens in split.items() if all(counts[token] >= _RAREST for token in tokens)}
        if len(kept) == len(split):
            return {"train": list(kept)}
        split = kept


def derive_moses(folder: Path) -> dict[str, list[str]]:
    """Read molecules of the MOSES benchmark (Polykovskiy et al. 2020) from the wheel of the package molsets.

    MOSES has 1,584,663 molecules to train on and 176,074 to test on. Those that are taken are spread evenly over its
    files, whose beginnings and ends differ a little.

    Args:
        folder: The data folder, in which the wheel must lie.

    Returns:
        ``train`` (50,000), ``valid`` (5,000, from MOSES's training part) and ``test`` (10,000) -> the strings.

    Raises:
        MissingDataError: If the wheel is not there; the sentence says how to get it.
        InputError: If it is another file.
    """
    wheel = folder / MOSES_WHEEL
    if not wheel.is_file():
        command = f"pip download --no-deps --dest '{folder}' molsets==0.3.1"
        raise MissingDataError(f"the corpus moses is read from '{MOSES_WHEEL}', which is not here: {command}")
    found = file_hash(wheel).sha256
    other = f"'{wheel}' is not the wheel that was published (SHA-256 {found}, expected {_MOSES_SHA256})"
    require(found == _MOSES_SHA256, f"{other}: remove it and download it again")
    parts: dict[str, list[str]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for part in ("train", "test"):
            packed = io.BytesIO(archive.read(f"moses/dataset/data/{part}.csv.gz"))
            with gzip.open(packed, "rt", encoding="utf-8", newline="") as file:
                parts[part] = [row[0] for row in csv.reader(file)][1:]  # the first line names the column
    taken = {
        part: [parts[part][len(parts[part]) * at // count] for at in range(count)]
        for part, count in MOSES_TAKEN.items()
    }
    learnt = [text for at, text in enumerate(taken["train"]) if at % 11]
    return {"train": learnt, "valid": taken["train"][::11], "test": taken["test"]}
