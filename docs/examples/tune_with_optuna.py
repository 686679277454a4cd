"""Search options of maximum likelihood with Optuna: `python docs/examples/tune_with_optuna.py --corpus my.txt`.

A trial is chosen by the texts of the valid split; the test split stays for the end. Stop it when you like: finished
trials stay, and the same command goes on. Needs `pip install optuna`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend

from agents.mle import MLE, PRESETS
from textgan_env.runs.logs import read_metrics
from textgan_env.training.launch import launch


def search(task: str, corpus: str | None, preset: str, folder: Path, trials: int, seed: int = 0) -> optuna.Study:
    """Trains with options that the study proposes until it has so many trials; returns the study."""
    folder.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.log")))
    study = optuna.create_study(storage=storage, study_name="mle", load_if_exists=True, direction="minimize")

    def objective(trial: optuna.Trial) -> float:
        """The lowest NLL of the valid split, nats per token."""
        config = replace(
            PRESETS[preset](task),
            corpus=corpus,
            seed=seed,  # the same texts and first weights for all
            runs=folder,
            learning_rate=trial.suggest_float("learning_rate", 1e-3, 3e-2, log=True),
            dropout=trial.suggest_float("dropout", 0.0, 0.6, step=0.1),
            weight_decay=trial.suggest_float("weight_decay", 1e-3, 1.0, log=True),
        )
        run = launch(config, MLE)
        trial.set_user_attr("run", str(run.path))
        return min(float(row["nll_valid"]) for row in read_metrics(run.path) if "nll_valid" in row)

    finished = len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE]))
    study.sampler = optuna.samplers.TPESampler(seed=seed + finished)
    study.optimize(objective, n_trials=max(0, trials - finished))
    return study


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", help="your text, one a line")
    parser.add_argument("--task", help="a named task, where you give no text")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--folder", type=Path, default=Path("runs/tune"))
    parser.add_argument("--trials", type=int, default=20)
    given = parser.parse_args()
    task = given.task or ("corpus" if given.corpus else "toy")
    study = search(task, given.corpus, given.preset, given.folder, given.trials)
    print(f"best of {len(study.trials)}: NLL of the valid split {study.best_value:.3f} by {study.best_params}")
    print(f"its run: {study.best_trial.user_attrs['run']}")


if __name__ == "__main__":
    main()
