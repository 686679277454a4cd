"""Objectives of molecules: of a SMILES string, 0 where it is none. They need rdkit, the extra ``chem``."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from textgan_env.objectives.base import Floats, Objective
from textgan_env.utils import molecules
from textgan_env.utils.errors import InputError, require

#: Fingerprint bits of `similarity`, as in the benchmarks of goal-directed generation (GuacaMol, MolOpt).
_BITS = 2048
#: Outside its window the desirability of log P falls to 0 within so many units.
_FALL = 2.0


def valid(argument: str) -> Objective:
    """Whether rdkit reads the text as a molecule."""
    return _of_molecules("smiles", argument, _one)


def qed(argument: str) -> Objective:
    """Drug-likeness, QED (Bickerton et al. 2012)."""
    return _of_molecules("qed", argument, molecules.qed)


def easy_to_make(argument: str) -> Objective:
    """Synthetic accessibility (Ertl and Schuffenhauer 2009), turned round: 1 is the easiest, (10 - SA) / 9."""
    return _of_molecules("sa", argument, _ease)


def log_p(argument: str) -> Objective:
    """``logp:1:4``: 1 where Crippen's log P lies in the window, falling to 0 two units outside of it."""
    expected = "objective logp needs a window, the lowest and the highest value, such as logp:1:4"
    try:
        low, high = map(float, argument.split(":"))
    except ValueError:
        raise InputError(f"{expected}, found '{argument}'") from None
    require(-math.inf < low <= high < math.inf, f"{expected}, found '{argument}'")
    return Objective(f"logp:{argument}", partial(_scores, partial(_in_window, low, high)), group=scaffold_of)


def similarity(argument: str) -> Objective:
    """``similarity:SMILES``: Tanimoto similarity to a molecule, Morgan fingerprints of radius 2 and 2,048 bits."""
    molecules.read_molecule(argument, "the target of objective similarity")
    return Objective(f"similarity:{argument}", partial(_similarities, argument), group=scaffold_of)


def scaffold_of(text: str) -> str:
    """What counts as the same molecule once more: the Bemis-Murcko scaffold; the text itself where it has none."""
    (mol,) = molecules.read_molecules([text])
    return text if mol is None else molecules.scaffold(mol) or molecules.canonical(mol)


def _of_molecules(name: str, argument: str, measure: Callable[[molecules.Mol], float]) -> Objective:
    """An objective that takes no argument."""
    require(not argument, f"objective {name} takes no argument, found '{argument}'")
    molecules.require_rdkit(f"objective {name}")
    return Objective(name, partial(_scores, measure), group=scaffold_of)


def _scores(measure: Callable[[molecules.Mol], float], texts: Sequence[str]) -> Floats:
    """What is measured of each molecule, 0 where a text is none: float64 (B,)."""
    found = molecules.read_molecules(texts)
    return np.array([0.0 if mol is None else measure(mol) for mol in found], dtype=np.float64)


def _similarities(target: str, texts: Sequence[str]) -> Floats:
    """Similarity of each molecule to one, float64 (B,)."""
    aim, *found = molecules.read_molecules([target, *texts])
    rows = [row for row, mol in enumerate(found) if mol is not None]
    score_B = np.zeros(len(found))
    if rows:
        mine = molecules.fingerprints([found[row] for row in rows], _BITS)
        score_B[rows] = molecules.tanimoto(mine, molecules.fingerprints([aim], _BITS))[:, 0]
    return score_B


def _one(mol: molecules.Mol) -> float:
    return 1.0


def _ease(mol: molecules.Mol) -> float:
    return (10 - molecules.synthetic_accessibility(mol)) / 9


def _in_window(low: float, high: float, mol: molecules.Mol) -> float:
    value = molecules.log_p(mol)
    return max(0.0, 1 - max(low - value, value - high, 0.0) / _FALL)
