"""Measures of generated molecules by the definitions of MOSES (Polykovskiy et al. 2020), and means of their properties.

Computed from the formulas of the paper and the code in its wheel (molsets 0.3.1). We differ in four places: the empty
string is no molecule; training molecules are made canonical before `novel` looks for them; QED, SA and log P are means,
where MOSES gives distances between distributions; ``scaffolds``, the share of different ones, is ours.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from textgan_env.ops import metrics
from textgan_env.ops.sampling import seeded
from textgan_env.tasks import Task, fill_once
from textgan_env.utils import molecules
from textgan_env.utils.errors import MissingDataError, require_package

#: Mean over valid molecules -> its function.
PROPERTIES: dict[str, Callable[[molecules.Mol], float]] = {
    "qed": molecules.qed, "sa": molecules.synthetic_accessibility, "logp": molecules.log_p,
}  # fmt: skip
#: What needs a molecule, in the order of tables.
OF_VALID = (
    "unique_1k", "unique_10k", "novel", "internal_diversity", "scaffolds", "scaffold_similarity", "snn", "fcd",
    *PROPERTIES,
)  # fmt: skip
_NO_MOLECULE = "no text is a molecule"
_CHEMNET_LENGTH, _CHEMNET_FEATURES, _CHEMNET_TILE = 350, 512, 256  # characters it reads


def valid_molecules(texts: Sequence[str]) -> list[bool]:
    """Which strings are molecules.

    Raises:
        MissingDataError: If rdkit is not installed.
    """
    molecules.require_rdkit("the share of valid molecules")
    return [mol is not None for mol in molecules.read_molecules(texts)]


def molecule_values(
    texts: Sequence[str], task: Task, split: Literal["valid", "test"]
) -> tuple[dict[str, float], dict[str, str]]:
    """Measure strings as molecules.

    Args:
        texts: B SMILES strings, at least 2.
        task: Gives molecules to compare with.
        split: Which of them `snn`, `scaffold_similarity` and `fcd` compare with; `novel` looks at the training split.

    Returns:
        Name -> number, and name -> why there is none.
    """
    try:
        molecules.require_rdkit("they are measured by rdkit and")
    except MissingDataError as error:
        return {}, dict.fromkeys(("valid", *OF_VALID), str(error))
    mols = [mol for mol in molecules.read_molecules(texts) if mol is not None]
    values = {"valid": len(mols) / len(texts)}
    if not mols:
        return values, dict.fromkeys(OF_VALID, _NO_MOLECULE)
    names = list(map(molecules.canonical, mols))
    values |= {"unique_1k": unique_at(names, 1_000), "unique_10k": unique_at(names, 10_000)}
    values["novel"] = novel_share(names, _canonical_training(task))
    values |= _similarities(mols, _references(task, split))
    values |= {name: float(np.mean([measure(mol) for mol in mols])) for name, measure in PROPERTIES.items()}
    distance, why = _frechet_chemnet(names, task, split)
    return values | distance, why


def unique_at(names: Sequence[str], most: int) -> float:
    """Share of different ones among the first molecules, given by their canonical strings: MOSES's unique@k.

    Where there are fewer valid molecules than k, it is the share among those that there are, as in MOSES.
    """
    return len(set(names[:most])) / len(names[:most])


def novel_share(names: Sequence[str], training: frozenset[str]) -> float:
    """Share of the different molecules that are not in the training split, all given by canonical strings."""
    different = set(names)
    return len(different - training) / len(different)


def scaffold_cosine(counts: Counter[str], reference: Counter[str]) -> float:
    """Cosine between how often each scaffold occurs in two sets; NaN where one has none."""
    shared = sum(count * reference[name] for name, count in counts.items())
    norms = [np.sqrt(sum(count**2 for count in each.values())) for each in (counts, reference)]
    return float(shared / (norms[0] * norms[1])) if all(norms) else float("nan")


@dataclass(frozen=True, eq=False)
class _References:
    """What is compared with: fingerprints, float32 (B, F), and scaffolds with how often they occur."""

    prints_BF: NDArray[np.float32]
    scaffolds: Counter[str]


def _similarities(mols: Sequence[molecules.Mol], references: _References) -> dict[str, float]:
    """Internal diversity, similarity to the nearest reference, and scaffolds."""
    own, real_BF = _described(mols), references.prints_BF
    nearest_B = molecules.similarities(own.prints_BF, real_BF, np.max) if len(real_BF) else np.full(1, np.nan)
    return {
        "internal_diversity": 1 - float(molecules.similarities(own.prints_BF, own.prints_BF, np.mean).mean()),
        "scaffolds": len(own.scaffolds) / max(1, own.scaffolds.total()),
        "scaffold_similarity": scaffold_cosine(own.scaffolds, references.scaffolds),
        "snn": float(nearest_B.mean()),
    }


def _described(mols: Sequence[molecules.Mol]) -> _References:
    """Fingerprints and scaffolds of some molecules; those of fewer than two rings have no scaffold."""
    scaffolds = Counter(name for name in map(molecules.scaffold, mols) if name)
    return _References(molecules.fingerprints(mols), scaffolds)


@lru_cache(maxsize=4)
def _references(task: Task, split: Literal["valid", "test"]) -> _References:
    """What the molecules of a split are, once in the life of the process."""
    return _described([mol for mol in molecules.read_molecules(_texts(task, split)) if mol is not None])


@lru_cache(maxsize=2)
def _canonical_training(task: Task) -> frozenset[str]:
    """The training molecules as rdkit writes them, once in the life of the process."""
    mols = molecules.read_molecules(_texts(task, "train"))
    return frozenset(molecules.canonical(mol) for mol in mols if mol is not None)


def _texts(task: Task, split: Literal["train", "valid", "test"]) -> list[str]:
    """The texts of a split."""
    return [task.text(tokens) for tokens in task.split(split).tokens_BT.tolist()]


def _frechet_chemnet(
    names: Sequence[str], task: Task, split: Literal["valid", "test"]
) -> tuple[dict[str, float], dict[str, str]]:
    """Frechet ChemNet distance (Preuer et al. 2018) of molecules given by canonical strings, or why there is none."""
    if len(names) < 2:
        return {}, {"fcd": "it takes two molecules"}
    try:
        require_package("fcd_torch", "chem", "FCD")
    except MissingDataError as error:
        return {}, {"fcd": str(error)}
    real = _chemnet_moments(task, split)
    if real is None:
        return {}, {"fcd": f"the {split} split has fewer than two molecules"}
    return {"fcd": metrics.frechet_between(metrics.moments(chemnet_features(names)), real)}, {}


@lru_cache(maxsize=4)
def _chemnet_moments(task: Task, split: Literal["valid", "test"]) -> tuple[metrics.Floats, metrics.Floats] | None:
    """Mean and root of the covariance of ChemNet's features of a split, once on a machine; None of no two molecules."""
    size = _CHEMNET_FEATURES
    kept = {"mean": torch.zeros(size, dtype=torch.float64), "root": torch.zeros(size, size, dtype=torch.float64)}
    mols = [mol for mol in molecules.read_molecules(_texts(task, split)) if mol is not None]
    names = list(map(molecules.canonical, mols))
    if len(names) < 2:
        return None

    def fill() -> None:
        """Read them all."""
        mean_F, root_FF = metrics.moments(chemnet_features(names))
        kept["mean"].copy_(torch.from_numpy(mean_F))
        kept["root"][: len(root_FF)].copy_(torch.from_numpy(root_FF))

    fill_once(kept, f"ChemNet's features of the {split} split", "chemnet 0.13\n" + "\n".join(names), fill)
    return kept["mean"].numpy(), kept["root"].numpy()


def chemnet_features(names: Sequence[str]) -> metrics.Floats:
    """What ChemNet, which was trained on the bioactivity of molecules, sees in them: float64 (B, 512).

    Args:
        names: Canonical SMILES strings; what is longer than 349 characters is cut off.
    """
    from fcd_torch.utils import get_one_hot

    found = []
    for first in range(0, len(names), _CHEMNET_TILE):
        rows = [get_one_hot(name, _CHEMNET_LENGTH) for name in names[first : first + _CHEMNET_TILE]]
        read_BTV = torch.from_numpy(np.stack(rows) / rows[0].shape[1]).float()
        with torch.no_grad():
            found.append(_chemnet()(read_BTV.transpose(1, 2)).double().numpy())
    return np.concatenate(found)


@cache
def _chemnet() -> Any:
    """The network; its file is read as tensors and numbers, nothing in it is executed."""
    from fcd_torch.utils import load_imported_model

    file = require_package("fcd_torch", "chem", "FCD") / "ChemNet_v0.13_pretrained.pt"
    with seeded(0):  # its layers draw weights before they get their own
        return load_imported_model(torch.load(file, weights_only=True)).eval()
