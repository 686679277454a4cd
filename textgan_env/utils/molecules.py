"""What rdkit knows of molecules that are written as SMILES. Needs rdkit, the extra ``chem``; loads no torch.

A string is a molecule if rdkit reads and sanitises it and it has an atom. (MOSES also counts the empty string.)
"""

import base64
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgan_env.utils.errors import MissingDataError, require, require_package
from textgan_env.utils.files import write_safely

#: An rdkit molecule, which carries no types.
Mol = Any
#: Numbers of molecules, or of pairs of them.
Floats = NDArray[np.float64]
_BITS, _RADIUS = 1024, 2  # of Morgan fingerprints, as in MOSES
_SIDE, _COLUMNS = 200, 4  # pixels of a drawing's side, drawings side by side
_TILE = 2048  # fingerprints that are compared at once


def require_rdkit(what: str) -> None:
    """Refuse to go on without rdkit.

    Args:
        what: What needs it, for the sentence.

    Raises:
        MissingDataError: If it is not installed.
    """
    require_package("rdkit", "chem", what)


def read_molecules(texts: Iterable[str]) -> list[Mol | None]:
    """The molecules of SMILES strings, None where a string is none; rdkit's own complaints are not printed."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        found = [Chem.MolFromSmiles(text) for text in texts]
    return [mol if mol is not None and mol.GetNumAtoms() > 0 else None for mol in found]


def read_molecule(text: str, name: str) -> Mol:
    """One molecule.

    Args:
        text: Its SMILES string.
        name: What it is, for the sentence.

    Raises:
        InputError: If it is none.
        MissingDataError: If rdkit is not installed.
    """
    require_rdkit(name)
    (mol,) = read_molecules([text])
    require(mol is not None, f"{name} must be a molecule as SMILES, found {text!r}, which rdkit cannot read")
    return mol


def unreadable(texts: Sequence[str]) -> list[str]:
    """Those of some strings that are no molecules, in order."""
    return [text for text, mol in zip(texts, read_molecules(texts), strict=True) if mol is None]


def said_of(texts: Sequence[str]) -> str:
    """How many of some strings are molecules, and which is the first that is none: for a person.

    Raises:
        MissingDataError: If rdkit is not installed.
    """
    require_rdkit("looking at molecules")
    bad = unreadable(texts)
    named = f", the first is {bad[0]!r}" if bad else ""
    return f"rdkit reads {len(texts) - len(bad):,} of {len(texts):,}{named and f' and not {len(bad):,}{named}'}"


def draw(texts: Iterable[str], file: Path) -> int:
    """Draw molecules side by side, four a row, as an SVG of lines and letters only (no script, nothing to fetch).

    Args:
        texts: SMILES strings; those that are no molecules are left out.
        file: Is replaced.

    Returns:
        How many were drawn.

    Raises:
        InputError: If none is a molecule.
        MissingDataError: If rdkit is not installed.
        OSError: If the file cannot be written.
    """
    require_rdkit("drawing molecules")
    mols = [mol for mol in read_molecules(texts) if mol is not None]
    require(bool(mols), "no text is a molecule as SMILES: is it a run on molecules?")
    write_safely(file, _drawing(mols))
    return len(mols)


def picture(text: str) -> str | None:
    """One molecule as `draw` draws it, the text of an SVG; None where the string is none, or rdkit is not installed."""
    if importlib.util.find_spec("rdkit") is None:
        return None
    (mol,) = read_molecules([text])
    return None if mol is None else _drawing([mol])


def picture_address(text: str) -> str | None:
    """`picture` as the address of an image that a page holds itself, where no script runs; None where there is none."""
    drawn = picture(text)
    return None if drawn is None else f"data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode()}"


def _drawing(mols: Sequence[Mol]) -> str:
    """An SVG of some molecules, four a row, each with its QED below."""
    from rdkit.Chem.Draw import rdMolDraw2D

    columns = min(_COLUMNS, len(mols))
    canvas = rdMolDraw2D.MolDraw2DSVG(columns * _SIDE, -(-len(mols) // columns) * _SIDE, _SIDE, _SIDE)
    canvas.DrawMolecules(mols, legends=[f"QED {qed(mol):.2f}" for mol in mols])
    canvas.FinishDrawing()
    return str(canvas.GetDrawingText())


def canonical(mol: Mol) -> str:
    """The one SMILES string that rdkit writes of a molecule, however it was written before."""
    from rdkit import Chem

    return str(Chem.MolToSmiles(mol))


def random_smiles(text: str, seed: int) -> str | None:
    """The same molecule written from another atom on and along other branches: one of its many SMILES strings.

    Rings are written as they were: by aromatic atoms (``c1ccccc1``) or by single and double bonds (``C1=CC=CC=C1``).

    Args:
        text: A SMILES string.
        seed: At least 1; the same seed gives the same string.

    Returns:
        The new string, which can be the old one; None where rdkit cannot read it.
    """
    from rdkit import Chem, rdBase

    (mol,) = read_molecules([text])
    if mol is None:
        return None
    with rdBase.BlockLogs():
        aromatic = any(atom.GetIsAromatic() for atom in Chem.MolFromSmiles(text, sanitize=False).GetAtoms())
    if not aromatic:
        Chem.Kekulize(mol, clearAromaticFlags=True)
    return str(Chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed, kekuleSmiles=not aromatic)[0])


def scaffold(mol: Mol) -> str:
    """The Bemis-Murcko scaffold as canonical SMILES; "" where it has fewer than two rings, which MOSES leaves out."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    core = MurckoScaffold.GetScaffoldForMol(mol)
    return canonical(core) if core.GetRingInfo().NumRings() >= 2 else ""


def fingerprints(mols: Sequence[Mol], bits: int = _BITS) -> NDArray[np.float32]:
    """Morgan fingerprints of radius 2, zeros and ones, float32 (B, F)."""
    from rdkit.Chem import rdFingerprintGenerator

    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=_RADIUS, fpSize=bits)
    found = np.zeros((len(mols), bits), dtype=np.float32)
    for row, mol in enumerate(mols):
        found[row] = morgan.GetFingerprintAsNumPy(mol)
    return found


def tanimoto(one_BF: NDArray[np.float32], other_RF: NDArray[np.float32]) -> Floats:
    """Tanimoto similarity of fingerprints, 0..1: common bits over bits of either, float64 (B, R).

    Two fingerprints without a bit are alike, as in MOSES.
    """
    common_BR = (one_BF @ other_RF.T).astype(np.float64)  # whole numbers below 2^24: exact in float32
    either_BR = one_BF.sum(1, dtype=np.float64)[:, None] + other_RF.sum(1, dtype=np.float64) - common_BR
    alike_BR = np.ones_like(common_BR)
    np.divide(common_BR, either_BR, out=alike_BR, where=either_BR > 0)
    return alike_BR


def similarities(one_BF: NDArray[np.float32], other_RF: NDArray[np.float32], join: Callable[..., Floats]) -> Floats:
    """For each fingerprint its Tanimoto similarities to all others, made one number by ``join(..., axis=1)``: (B,)."""
    rows = range(0, len(one_BF), _TILE)
    return np.concatenate([join(tanimoto(one_BF[row : row + _TILE], other_RF), axis=1) for row in rows])


def qed(mol: Mol) -> float:
    """Quantitative estimate of drug-likeness (Bickerton et al. 2012, weights of the mean), 0..1."""
    from rdkit.Chem import QED

    return float(QED.qed(mol))


def log_p(mol: Mol) -> float:
    """Octanol-water partition coefficient by atoms (Wildman and Crippen 1999), a logarithm to base 10."""
    from rdkit.Chem import rdMolDescriptors

    return float(rdMolDescriptors.CalcCrippenDescriptors(mol)[0])


def synthetic_accessibility(mol: Mol) -> float:
    """How hard a molecule is to make: 1 easy to 10 hard (Ertl and Schuffenhauer 2009, the code beside rdkit)."""
    return float(_sa_scorer().calculateScore(mol))


@cache
def _sa_scorer() -> ModuleType:
    """The script of SA, which rdkit brings along but does not install as a module.

    Raises:
        MissingDataError: If it is not there.
    """
    from rdkit import RDConfig

    path = Path(RDConfig.RDContribDir) / "SA_Score" / "sascorer.py"
    if not path.is_file():
        raise MissingDataError(f"the rdkit that is installed came without '{path}': install it from PyPI")
    spec = importlib.util.spec_from_file_location("textgan_env_sascorer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
