"""Molecules: SMILES as tokens, the corpora, what rdkit says of them, and the measures by the definitions of MOSES."""

import gzip
import importlib.util
import pickle
import zipfile
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import textgan_env
from agents import cli
from agents.mle import MLE, MLEConfig
from conftest import assert_refused, assert_same_training, interrupted
from textgan_env.evaluation import evaluate, nll, score_texts
from textgan_env.evaluation.molecules import (
    OF_VALID,
    chemnet_features,
    molecule_values,
    novel_share,
    scaffold_cosine,
    unique_at,
)
from textgan_env.objectives import Objective, chem, named_objective
from textgan_env.ops.metric_table import evaluated
from textgan_env.ops.metrics import frechet_between, moments
from textgan_env.policies import UniformPolicy
from textgan_env.tasks import CorpusTask, ToyTask, make_task
from textgan_env.text import smiles
from textgan_env.text.corpus import load_corpus
from textgan_env.text.published import named_corpus
from textgan_env.text.smiles import split_smiles
from textgan_env.text.vocabulary import Vocabulary, tokenize
from textgan_env.training import random_smiles
from textgan_env.training.launch import launch
from textgan_env.training.random_smiles import RandomSmiles
from textgan_env.utils import molecules
from textgan_env.utils.errors import InputError, MissingDataError
from textgan_env.utils.reading import file_hash

NEEDS_RDKIT = pytest.mark.skipif(find_spec("rdkit") is None, reason="rdkit is not installed (extra chem)")
NEEDS_CHEMNET = pytest.mark.skipif(find_spec("fcd_torch") is None, reason="fcd-torch is not installed (extra chem)")

ASPIRIN, CAFFEINE = "CC(=O)Oc1ccccc1C(=O)O", "Cn1cnc2c1c(=O)n(C)c(=O)n2C"
BENZANILIDE = "O=C(Nc1ccccc1)c1ccccc1"
# One scaffold, and no token that stands in a single one.
KNOWN = [f"O=C(Nc1ccccc1{one})c1ccccc1{other}" for one in ("", "C", "O") for other in ("", "C", "O", "N")]


def task() -> CorpusTask:
    """Twelve molecules, one of them split off for each of valid and test."""
    return CorpusTask(load_corpus(texts=KNOWN, mode="smiles"))


def absent(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A machine without a package."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == name else found(asked))


# -- Tokens -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("line", "tokens"), [
    ("CC(=O)Cl", ["C", "C", "(", "=", "O", ")", "Cl"]),
    ("BrC1=CC=C1", ["Br", "C", "1", "=", "C", "C", "=", "C", "1"]),
    ("c1cc[nH]c1", ["c", "1", "c", "c", "[nH]", "c", "1"]),
    ("C[C@@H](N)C", ["C", "[C@@H]", "(", "N", ")", "C"]),
    ("C%12CC%(123)", ["C", "%12", "C", "C", "%(123)"]),
    ("[13CH4].[Na+]", ["[13CH4]", ".", "[Na+]"]),
    ("[C", ["[", "C"]),
    ("", []),
])  # fmt: skip
def test_a_token_is_an_atom_a_bond_a_bracket_or_the_number_of_a_ring(line: str, tokens: list[str]) -> None:
    assert split_smiles(line) == tokens == tokenize(line, "smiles")


@settings(max_examples=30)
@given(st.text())
def test_tokens_put_together_are_the_string_again(line: str) -> None:
    assert "".join(split_smiles(line)) == line


def test_case_tells_atoms_apart_and_a_name_behind_a_molecule_is_left_out_and_counted() -> None:
    corpus = load_corpus(texts=["CCO ethanol", "c1ccccc1\tbenzene", "CN"], mode="smiles", valid_share=0, test_share=0)
    assert set(corpus.vocabulary.words) == {"C", "O", "c", "1", "N"}
    assert corpus.report.changed == {"names behind molecules left out": 2}
    assert corpus.vocabulary.join(["C", "Cl"]) == "CCl"
    assert Vocabulary.from_json(corpus.vocabulary.to_json()) == corpus.vocabulary
    assert corpus.vocabulary.tokenize("CCO ethanol") == ["C", "C", "O"]
    assert_refused("tells atoms apart by their case", load_corpus, texts=["CC", "CN"], mode="smiles", lower=True)


def test_lines_that_look_like_molecules_get_a_hint_and_words_get_none() -> None:
    hints = load_corpus(texts=KNOWN).report.hints
    assert [hint for hint in hints if "--mode smiles" in hint]
    for others in (
        ["so on", "no", "(b)", "I see"],
        ["10 2 3", "4444 5 6", "777 8 9"],
        ["c4 c4 e4", "c4 g4 c4", "c5 c4"],
    ):
        assert not [hint for hint in load_corpus(texts=others).report.hints if "smiles" in hint]


@pytest.mark.moves_global_rng  # the library that reads command lines does
@NEEDS_RDKIT
def test_objectives_of_molecules_have_names_and_a_text_that_is_none_gets_the_worst_value() -> None:
    names = ("smiles", "qed", "sa", "logp:-1:1", "similarity:CCO", "product:smiles;similarity:CCO")
    scores = {name: named_objective(name).score(["CCO", "C(("]) for name in names}
    assert {name: float(score_B[1]) for name, score_B in scores.items()} == dict.fromkeys(names, 0.0)
    assert [float(scores[name][0]) for name in names if name not in ("qed", "sa")] == [1.0] * 4
    assert 0.3 < scores["qed"][0] < 0.5 < scores["sa"][0] < 1
    assert_refused("takes no argument, found '1'", named_objective, "qed:1")


@NEEDS_RDKIT
@pytest.mark.moves_global_rng  # reading the words does
def test_what_rdkit_cannot_read_in_a_file_is_counted_and_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "own.smi").write_text("\n".join([*["CCO", "CCCO", "COC", "CCC", "OO"], "C1CC", "C1CO name"]))
    cli.main(["data", "inspect", str(file), "--mode", "smiles"])
    said, complaints = capfd.readouterr()
    assert "rdkit reads 5 of 7 and not 2, the first is " in said
    assert "2 of the first 7 lines are no molecules for rdkit, the first is 'C1CC'" in said
    assert complaints == ""
    assert molecules.said_of(KNOWN) == "rdkit reads 12 of 12"


# -- Corpora ----------------------------------------------------------------------------------------------------------
@NEEDS_RDKIT
def test_the_molecules_of_the_nci_are_what_the_checksum_says(tmp_path: Path) -> None:
    corpus = named_corpus("nci", data_dir=tmp_path)
    assert corpus.report.lines == 4_468
    assert corpus.vocabulary.mode == "smiles"
    assert all(len(split_smiles(line)) <= 60 for line in (tmp_path / "nci_molecules.txt").read_text().splitlines())
    assert molecules.unreadable(["CCO1=O=C1C2=CC=C(O2)C(C)(C)C"])  # the only one of them that rdkit cannot read


def small_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel of 22 and 4 molecules in the place of that of molsets."""
    with zipfile.ZipFile(folder / smiles.MOSES_WHEEL, "w") as archive:
        for part, count in (("train", 22), ("test", 4)):
            lines = "".join(f"{'C' * (1 + at)}\n" for at in range(count))
            archive.writestr(f"moses/dataset/data/{part}.csv.gz", gzip.compress(f"SMILES\n{lines}".encode()))
    monkeypatch.setattr(smiles, "_MOSES_SHA256", file_hash(folder / smiles.MOSES_WHEEL).sha256)
    monkeypatch.setattr(smiles, "MOSES_TAKEN", {"train": 11, "test": 2})


def test_moses_is_taken_evenly_from_its_wheel_which_is_read_as_a_zip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_wheel(tmp_path, monkeypatch)
    found = {split: list(map(len, texts)) for split, texts in smiles.derive_moses(tmp_path).items()}
    assert found == {"train": [3, 5, 7, 9, 11, 13, 15, 17, 19, 21], "valid": [1], "test": [1, 3]}


def test_without_the_wheel_or_with_another_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"pip download --no-deps --dest '.*' molsets==0\.3\.1"):
        named_corpus("moses", data_dir=tmp_path)
    (tmp_path / smiles.MOSES_WHEEL).write_bytes(b"another")
    with pytest.raises(InputError, match="is not the wheel that was published"):
        named_corpus("moses", data_dir=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [smiles.MOSES_WHEEL]


def test_without_rdkit_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent(monkeypatch, "rdkit")
    install = r"pip install 'textgan-env\[chem\]'"
    with pytest.raises(MissingDataError, match=f"the corpus nci needs the package rdkit: {install}"):
        named_corpus("nci", data_dir=tmp_path)
    for make in (lambda: chem.qed(""), lambda: chem.similarity("CC"), lambda: molecules.draw(["C"], tmp_path / "a")):
        with pytest.raises(MissingDataError, match=install):
            make()
    values, missing = molecule_values(KNOWN, task(), "test")
    assert (values, set(missing)) == ({}, {"valid", *OF_VALID})


# -- What rdkit says --------------------------------------------------------------------------------------------------
@NEEDS_RDKIT
def test_a_molecule_is_what_rdkit_reads_and_has_an_atom(capfd: pytest.CaptureFixture[str]) -> None:
    texts = ["CCO", "", "C1CC", "c1cc", "C.C", "*", "F(F)F", "OCC"]
    assert [mol is not None for mol in molecules.read_molecules(texts)] == [True, *[False] * 3, True, True, False, True]
    assert capfd.readouterr() == ("", "")
    ethanol, same = molecules.read_molecules(["CCO", "OCC"])
    assert molecules.canonical(ethanol) == molecules.canonical(same) == "CCO"


@NEEDS_RDKIT
@pytest.mark.parametrize(("text", "qed", "log_p", "ease", "core"), [
    (ASPIRIN, 0.5501, 1.3101, 1.5800, ""),
    (CAFFEINE, 0.5385, -1.0293, 2.2980, "O=c1[nH]c(=O)c2[nH]cnc2[nH]1"),
    (BENZANILIDE, 0.7875, 2.9389, 1.0574, BENZANILIDE),
])  # fmt: skip
def test_properties_of_known_molecules(text: str, qed: float, log_p: float, ease: float, core: str) -> None:
    (mol,) = molecules.read_molecules([text])
    found = (molecules.qed(mol), molecules.log_p(mol), molecules.synthetic_accessibility(mol))
    assert found == pytest.approx((qed, log_p, ease), abs=1e-4)
    assert molecules.scaffold(mol) == core


@NEEDS_RDKIT
def test_fingerprints_are_compared_as_rdkit_does() -> None:
    from rdkit import DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    mols = molecules.read_molecules([*KNOWN, ASPIRIN])
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    theirs = [morgan.GetFingerprint(mol) for mol in mols]
    expected = [DataStructs.BulkTanimotoSimilarity(one, theirs) for one in theirs]
    prints_BF = molecules.fingerprints(mols)
    assert molecules.tanimoto(prints_BF, prints_BF) == pytest.approx(np.array(expected))
    assert molecules.similarities(prints_BF, prints_BF, np.mean) == pytest.approx(np.mean(expected, axis=1))


def test_tanimoto_is_common_bits_over_bits_of_either() -> None:
    one, other = np.array([[1, 1, 0], [0, 0, 0]], np.float32), np.array([[1, 0, 1], [0, 0, 0]], np.float32)
    assert molecules.tanimoto(one, other).tolist() == [[1 / 3, 0], [0, 1]]


@NEEDS_RDKIT
def test_a_drawing_has_every_molecule_and_no_script(tmp_path: Path) -> None:
    assert molecules.draw([ASPIRIN, "no molecule", "<script>", CAFFEINE], tmp_path / "two.svg") == 2
    drawn = (tmp_path / "two.svg").read_text()
    assert "width='400px' height='200px'" in drawn
    assert "<script" not in drawn
    with pytest.raises(InputError, match="no text is a molecule"):
        molecules.draw(["no"], tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


# -- Measures ---------------------------------------------------------------------------------------------------------
def test_shares_and_cosines_by_hand() -> None:
    names = ["a", "a", "b", "c"]
    assert (unique_at(names, 3), unique_at(names, 1000)) == (2 / 3, 3 / 4)
    assert novel_share(names, frozenset("ax")) == 2 / 3
    assert scaffold_cosine(Counter(a=3, b=4), Counter(a=2)) == pytest.approx(0.6)
    assert scaffold_cosine(Counter(a=1), Counter(b=1)) == 0
    assert np.isnan(scaffold_cosine(Counter(), Counter(b=1)))


@NEEDS_RDKIT
def test_molecules_are_measured_by_the_definitions_of_moses() -> None:
    corpus = task()
    (kept,) = [corpus.text(tokens) for tokens in corpus.split("test").tokens_BT.tolist()]
    trained = corpus.text(corpus.split("train").tokens_BT[0].tolist())
    # The first is the test molecule, the second a training one, the third the second written from its other end.
    (mol,) = molecules.read_molecules([trained])
    from rdkit import Chem

    again = Chem.MolToSmiles(mol, canonical=False, rootedAtAtom=5)
    assert again != trained
    values, _ = molecule_values([kept, trained, again, "C1CC"], corpus, "test")
    one, two = (molecules.fingerprints(molecules.read_molecules([text])) for text in (kept, trained))
    alike = float(molecules.tanimoto(one, two)[0, 0])
    assert values["valid"] == 3 / 4
    assert values["unique_1k"] == values["unique_10k"] == 2 / 3
    assert values["novel"] == 1 / 2
    assert values["internal_diversity"] == pytest.approx(1 - (1 + 4 + 4 * alike) / 9)  # of 3 x 3 pairs 5 are the same
    assert values["snn"] == pytest.approx((1 + 2 * alike) / 3)
    assert values["scaffolds"] == 1 / 3
    assert values["scaffold_similarity"] == pytest.approx(1)
    expected = np.mean([molecules.qed(one) for one in molecules.read_molecules([kept, trained, trained])])
    assert values["qed"] == pytest.approx(expected)


@NEEDS_CHEMNET
@NEEDS_RDKIT
def test_the_frechet_chemnet_distance_is_that_of_its_package() -> None:
    texts = [*KNOWN, ASPIRIN, CAFFEINE, "CCO", "CCN", "C1CCCCC1"]
    one, other = chemnet_features(texts[:8]), chemnet_features(texts[8:])
    assert one.shape == (8, 512)
    # By the covariances, as fcd-torch has it, where ours goes by their roots.
    means, covariances = [each.mean(0) for each in (one, other)], [np.cov(each.T) for each in (one, other)]
    root = np.sqrt(np.maximum(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0)).sum()
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root
    assert frechet_between(moments(one), moments(other)) == pytest.approx(expected, rel=1e-4)
    # Batches make no difference, nor does what stands beside a molecule.
    assert chemnet_features([texts[3]])[0] == pytest.approx(one[3], abs=1e-6)


@NEEDS_CHEMNET
@NEEDS_RDKIT
@pytest.mark.slow  # ChemNet reads all test molecules
def test_an_evaluation_of_molecules_has_every_metric_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path))
    nci = make_task("nci")
    result = evaluate(UniformPolicy(nci.vocab_size, start_token=nci.start_token), nci, samples=300, bleu_samples=10)
    assert {*result.values, *result.missing} == set(evaluated("test", "molecules"))
    assert 0 < result.values["valid"] < 0.5
    real = [nci.text(tokens) for tokens in nci.split("valid").tokens_BT.tolist()]
    values = score_texts(real, nci).values
    assert values["novel"] == 1
    assert values["fcd"] < result.values["fcd"]
    assert values["fcd"] == score_texts(real, nci).values["fcd"]


@NEEDS_RDKIT
def test_where_the_references_are_no_molecules_nothing_is_compared_with_them() -> None:
    bad = CorpusTask(load_corpus(texts=["C1CC", "C1CO", "C1CN", "C1CCC", "O1CC", "N1CC"], mode="smiles"))
    result = score_texts(KNOWN, bad)
    assert {"snn", "scaffold_similarity", "fcd"} <= set(result.missing)
    assert result.values["novel"] == 1


def test_without_a_molecule_nothing_but_that_is_measured() -> None:
    pytest.importorskip("rdkit", reason="rdkit is not installed (extra chem)")
    values, missing = molecule_values(["C1CC", "(("], task(), "test")
    assert values == {"valid": 0}
    assert missing == dict.fromkeys(OF_VALID, "no text is a molecule")


# -- Randomised SMILES ------------------------------------------------------------------------------------------------
@NEEDS_RDKIT
def test_another_string_of_a_molecule_is_the_same_molecule_with_its_rings_as_they_were_written() -> None:
    kekulized, chiral = "CC(=O)OC1=CC=CC=C1C(=O)O", "C[C@H](N)C(=O)O"
    for text, small in ((ASPIRIN, True), (CAFFEINE, True), (kekulized, False), (chiral, False)):
        strings = {molecules.random_smiles(text, seed) for seed in range(1, 60)}
        assert len(strings) > 10
        assert {molecules.canonical(mol) for mol in molecules.read_molecules([text, *map(str, strings)])} == {
            molecules.canonical(*molecules.read_molecules([text]))
        }
        assert {any(letter in string for letter in "cno") for string in map(str, strings)} == {small}
        assert molecules.random_smiles(text, 7) == molecules.random_smiles(text, 7)
    assert molecules.random_smiles("C1CC", 1) is None


@NEEDS_RDKIT
def test_the_share_that_was_asked_for_is_written_anew_and_by_the_generator_alone() -> None:
    texts = [*KNOWN, ASPIRIN, CAFFEINE]  # with the ring number 2
    known = CorpusTask(load_corpus(texts=texts, mode="smiles", max_length=60, valid_share=0, test_share=0))
    tokens_BT = known.split("train").tokens_BT[torch.arange(600) % len(known.split("train"))]
    before_BT = tokens_BT.clone()
    written_BT = RandomSmiles(known, 0.5)(tokens_BT, torch.Generator().manual_seed(3))
    assert torch.equal(tokens_BT, before_BT)
    assert torch.equal(written_BT, RandomSmiles(known, 0.5)(tokens_BT, torch.Generator().manual_seed(3)))
    assert not torch.equal(written_BT, RandomSmiles(known, 0.5)(tokens_BT, torch.Generator().manual_seed(4)))
    old, new = ([known.text(row) for row in each.tolist()] for each in (tokens_BT, written_BT))
    # Of 600 coins 300 fall so, give or take 3 x 12; few of the new strings are the old one, or too long.
    assert 240 < sum(one != other for one, other in zip(old, new, strict=True)) < 336
    assert [molecules.canonical(mol) for mol in molecules.read_molecules(new)] == [
        molecules.canonical(mol) for mol in molecules.read_molecules(old)
    ]


@NEEDS_RDKIT
def test_a_string_that_does_not_fit_or_cannot_be_read_or_was_cut_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def left(texts: list[str], new: str, **options: Any) -> list[str]:
        """What becomes of texts where every molecule is written in one way."""
        monkeypatch.setattr(random_smiles, "random_smiles", lambda text, seed: new)
        corpus = CorpusTask(load_corpus(texts=texts, mode="smiles", valid_share=0, test_share=0, **options))
        rows_BT = corpus.split("train").tokens_BT
        written_BT = RandomSmiles(corpus, 1.0)(rows_BT, torch.Generator())
        assert written_BT.shape == rows_BT.shape
        return [corpus.text(row) for row in written_BT.tolist()]

    assert left(["CCO", "CN"], "OCC") == ["OCC", "OCC"]
    assert left(["CCO", "CN"], "OCCO") == ["CCO", "CN"]  # too long
    assert left(["CCO", "CN"], "OCS") == ["CCO", "CN"]  # S does not occur
    assert left(["CCO", "CCNCO"], "OC", longer="cut", max_length=4) == ["OC", "CCNC"]  # its end is not there
    assert left(["CCO", "CCN"], "OCC") == ["OCC", "OCC"]  # all of one length, without an end token
    assert left(["CCO", "CCN"], "OC") == ["CCO", "CCN"]
    monkeypatch.undo()
    corpus = CorpusTask(load_corpus(texts=["C1CC", "C1C"], mode="smiles", valid_share=0, test_share=0))
    rows_BT = corpus.split("train").tokens_BT
    assert torch.equal(RandomSmiles(corpus, 1.0)(rows_BT, torch.Generator()), rows_BT)


@NEEDS_RDKIT
@pytest.mark.slow  # three runs, each measured by ChemNet
def test_maximum_likelihood_learns_spellings_that_the_text_does_not_have_also_after_a_stop(tmp_path: Path) -> None:
    file = tmp_path / "own.smi"
    file.write_text("\n".join("C" * n + end for n in range(1, 9) for end in ("O", "N", "F", "S")) + "\n")
    options: dict[str, Any] = {"mode": "smiles", "batch_size": 8, "embed_size": 8, "hidden_size": 8, "epochs": 40}
    options |= {"eval_every": 40, "eval_samples": 9, "learning_rate": 2e-2, "threads": 1}
    config = MLEConfig(task="corpus", corpus=str(file), **options)
    anew = replace(config, random_smiles=1.0)
    plain, whole = (launch(replace(one, runs=tmp_path / name), MLE) for name, one in (("a", config), ("b", anew)))
    with interrupted(MLE, "mle_batch", lambda _, step: (step.round, step.batch) == (1, 2)):
        launch(replace(anew, runs=tmp_path / "c", checkpoint_every=0.0), MLE)
    assert_same_training(whole, launch(replace(anew, resume=tmp_path / "c" / "mle-own-1"), MLE))
    # The corpus writes the carbons first; "OCC" stands nowhere in it.
    nlls = []
    for run in (plain, whole):
        loaded = textgan_env.load(run.path)
        tokens_BT = torch.tensor([[*loaded.task.encode("OCC"), loaded.task.end_token]])
        nlls.append(nll(loaded.policy, tokens_BT, loaded.task.scored(tokens_BT))[0])
    assert nlls[1] < nlls[0] - 0.5


def test_randomised_strings_are_refused_where_they_make_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused("random_smiles must be 0 to 1, found 1.5", MLE, MLEConfig(random_smiles=1.5), task())
    assert_refused("random_smiles is for molecules", MLE, MLEConfig(random_smiles=0.5), ToyTask())
    absent(monkeypatch, "rdkit")
    with pytest.raises(MissingDataError, match="chem"):
        MLE(MLEConfig(random_smiles=0.5), task())


# -- Objectives -------------------------------------------------------------------------------------------------------
@NEEDS_RDKIT
def test_objectives_of_molecules_have_known_values_and_0_for_what_is_none() -> None:
    texts = [ASPIRIN, "C1CC", CAFFEINE, ""]
    expected: list[tuple[Objective, list[float]]] = [
        (chem.valid(""), [1, 0, 1, 0]),
        (chem.qed(""), [0.5501, 0, 0.5385, 0]),
        (chem.easy_to_make(""), [(10 - 1.58) / 9, 0, (10 - 2.298) / 9, 0]),
        (chem.log_p("1:4"), [1, 0, 0, 0]),  # caffeine: -1.0293 is more than two units below
        (chem.log_p("2:4"), [1 - (2 - 1.3101) / 2, 0, 0, 0]),
    ]
    for objective, scores in expected:
        assert objective.score(texts) == pytest.approx(np.array(scores), abs=1e-4)
        assert (objective.low, objective.high) == (0, 1)
        assert pickle.loads(pickle.dumps(objective.score))(texts[:1]) == pytest.approx(scores[:1], abs=1e-4)
    near = chem.similarity(ASPIRIN).score([ASPIRIN, "no", "O=C(O)c1ccccc1OC(C)=O", CAFFEINE])
    assert near[:3].tolist() == [1, 0, 1]
    assert 0 < near[3] < 0.3


@NEEDS_RDKIT
def test_molecules_come_again_by_their_scaffold() -> None:
    grouped = chem.qed("").group
    assert grouped is not None
    assert {grouped(text) for text in KNOWN} == {BENZANILIDE}
    assert [grouped("OCC"), grouped("C1CC")] == ["CCO", "C1CC"]


@NEEDS_RDKIT
def test_arguments_of_objectives_that_make_no_sense_are_refused() -> None:
    for argument in ("", "1", "4:1", "1:x", "nan:2", "0:inf"):
        assert_refused("objective logp needs a window", chem.log_p, argument)
    assert_refused("objective qed takes no argument, found '3'", chem.qed, "3")
    assert_refused("must be a molecule as SMILES, found 'C1CC'", chem.similarity, "C1CC")


def test_a_template_of_a_molecule_keeps_what_stands_behind_its_blanks() -> None:
    task = CorpusTask(load_corpus(texts=["CCO", "CCN", "CNC", "CON"] * 2, mode="smiles"))
    assert task.vocabulary is not None
    carbon, nitrogen = (task.vocabulary.ids[atom] for atom in "CN")
    assert task.encode_template("C___N") == [carbon, -1, nitrogen]
    assert task.encode_template("______C") == [-1, -1, carbon]
