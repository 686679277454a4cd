"""Pictures that explain: docs/images/*.png, shown and told in docs/pictures.md.

For example ``python -m benchmarks.pictures credit --run runs/mle-coco-1``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.dynamics import Chase, Picture, Vanishing, fit_epoch, pair_judge, written
from benchmarks.results import command, image_path
from textgan_env.discriminators import DiscriminatorModule, discriminator_report
from textgan_env.envs import TextGANVectorEnv
from textgan_env.ops.plots import learning_curve, save_png
from textgan_env.ops.render import rgb_array, score_list
from textgan_env.ops.sampling import derived_seed
from textgan_env.policies import PolicyModule, UniformPolicy
from textgan_env.rewards import RolloutCredit, Texts
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.loading import load_policy
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import Task, fit_ngram
from textgan_env.utils.errors import require


@dataclass(frozen=True)
class Credit(Picture):
    """Texts of uniform words, of a bigram model and of the run, with what the environment pays each token."""

    rollouts: int = 256
    """Completions of each prefix, by the policy that wrote it."""

    def draw(self) -> Path:
        """Write the picture; returns its path."""
        policy, task = load_policy(self.run)
        uniform = UniformPolicy(task.vocab_size, start_token=task.start_token, forbidden=task.forbidden)
        writers = {
            "uniform words": uniform,
            "a bigram model": fit_ngram(task, order=2),
            "an LSTM after maximum likelihood": policy,
        }
        envs = TextGANVectorEnv(1, task, rollouts=self.rollouts)
        frames = []
        for title, writer in writers.items():
            envs.reset(seed=self.seed)
            batch = envs.collect(writer)
            words = words_of(task, batch.tokens_BT[0, : batch.lengths_B[0]])
            credit = batch.credit_BT[0, : len(words)].tolist()
            frames.append(rgb_array(words, credit, limits=(0.0, 1.0), size=(960, 300), title=title))
        save_png(np.concatenate(frames), self.path)
        return self.path


@dataclass(frozen=True)
class Curve:
    """Learning curves of several runs over the same axis, for example SeqGAN's and that of MLE for as long."""

    runs: tuple[Path, ...]
    """Run folders. A run whose --pretrained is another of them begins where that one ends."""
    names: tuple[str, ...] = ()
    """Of the lines, one a run; without any, the names of the folders."""
    measures: tuple[str, ...] = ("nll_valid", "nll_oracle")
    """What is drawn, a panel each, where it was logged: names in metrics.csv, in nats per token."""
    phase: str = ""
    """Draw this phase alone, counted from its own first round."""
    title: str = ""
    """Above the picture."""
    name: str = "curve"
    """Of the PNG file in docs/images."""

    def draw(self) -> Path:
        """Write the picture; returns its path."""
        rows = curve_rows(self.runs, self.measures, self.phase)
        names = self.names or tuple(run.name for run in self.runs)
        require(len(names) == len(self.runs), f"a name a run is needed, found {len(names)} for {len(self.runs)} runs")
        path = image_path(self.name)
        lines = {}
        for key in self.measures:
            unit = f"{key.replace('nll_', 'NLL-')} (nats per token)"
            lines[unit] = {f"{key} {number}": name for number, name in enumerate(names)}
        label = f"round of phase {self.phase}" if self.phase else "round (an epoch of MLE, or an adversarial round)"
        drawn = learning_curve(rows, path, lines=lines, x_label=label, title=self.title)
        logged = f"{', '.join(self.measures)} is logged in {', '.join(map(str, self.runs))}"
        require(drawn, f"none of {logged}: have these runs begun?")
        return path


def curve_rows(
    runs: Sequence[Path], measures: Sequence[str] = ("nll_valid", "nll_oracle"), phase: str = ""
) -> list[dict[str, Any]]:
    """Measures of runs as rows of one log: ``nll_valid 0`` is that of the first run.

    Args:
        runs: Run folders.
        measures: Names in their metrics.
        phase: Take this phase alone, counted from its own first round; "": the whole run, from where the run that it
            began from ends, if that is among them.

    Returns:
        The rows, with the phases of the first run that has several.

    Raises:
        InputError: If there is no run, or a folder is none.
    """
    require(bool(runs), "a curve needs at least one run folder")
    folders = [RunFolder.open(run) for run in runs]
    logs: list[list[dict[str, Any]]] = [[*read_metrics(folder.path)] for folder in folders]
    if phase:
        logs = [[row for row in log if row.get("phase") == phase] for log in logs]
        logs = [[{**row, "step": row["step"] - log[0]["step"] + 1} for row in log] for log in logs]
    last = {folder.path.name: log[-1]["step"] for folder, log in zip(folders, logs, strict=True) if log}
    phased = next((number for number, log in enumerate(logs) if len({row.get("phase") for row in log}) > 1), None)
    rows: list[dict[str, Any]] = []
    for number, (folder, log) in enumerate(zip(folders, logs, strict=True)):
        before = 0 if phase else last.get(Path(folder.about["config"].get("pretrained") or "").name, 0)
        for row in log:
            values = {f"{key} {number}": row[key] for key in measures if key in row}
            mark = {"phase": row["phase"]} if number == phased else {}
            rows.append({"step": before + row["step"], **mark, **values})
    return rows


@dataclass(frozen=True)
class Rollouts(Picture):
    """One text of a run with each token's Q, and the completions behind some of these numbers.

    The run generates the text and its completions, and D is fitted to tell its texts from real ones.
    """

    rollouts: int = 6
    """Completions of each prefix (N); all are shown."""
    shown: int = 3
    """Tokens whose completions are listed: those at which Q changes most."""
    d_epochs: int = 10
    """Passes of D over the training texts."""

    def draw(self) -> Path:
        """Write the picture; returns its path."""
        words, rests = self.measure()
        q = [sum(scores) / len(scores) for scores in ([score for _, score in rest] for rest in rests)]
        furthest = max(abs(score - 0.5) for rest in rests for _, score in rest)
        limits = (0.5 - furthest, 0.5 + furthest)
        title = f"Q of each token: the mean D of {self.rollouts} completions; at the last token, D of the text"
        frames = [rgb_array(words, q, limits=limits, size=(960, 250), title=title)]
        for at in largest_changes(q[:-1], self.shown):
            ordered = sorted(rests[at], key=lambda rest: rest[1])
            given = ("… " if at > 4 else "") + " ".join(words[max(0, at - 4) : at + 1])
            title = f"{given} …   Q = {q[at]:.2f} (one token before: {q[at - 1]:.2f}), the mean of"
            texts, scores = [f"… {text}" for text, _ in ordered], [score for _, score in ordered]
            frames.append(score_list(texts, scores, limits=limits, title=title))
        save_png(np.concatenate(frames), self.path)
        return self.path

    def measure(self) -> tuple[list[str], list[list[tuple[str, float]]]]:
        """The words of the text, and the `completions` of each prefix that ends with one of them."""
        policy, task = load_policy(self.run)
        judge = pair_judge(task, self.seed)
        optimizer = judge.make_optimizer()
        for epoch in range(self.d_epochs):
            fit_epoch(judge, optimizer, policy, task, task.writable("train"), derived_seed(self.seed, "epoch", epoch))
        held_out_BT = task.writable("valid")
        fresh = written(policy, task, len(held_out_BT), derived_seed(self.seed, "held out"))
        print(f"AUC of D on texts it has not seen: {discriminator_report(judge, held_out_BT, fresh.tokens_BT).auc:.3f}")
        texts = written(policy, task, 1, self.seed)
        words = words_of(task, texts.tokens_BT[0, : texts.lengths_B[0]])
        return words, completions(policy, judge, task, texts, self.rollouts)


def completions(
    policy: PolicyModule, judge: DiscriminatorModule, task: Task, texts: Texts, rollouts: int
) -> list[list[tuple[str, float]]]:
    """Where the Q of each token of one text comes from, with the draws that the environment makes.

    Returns:
        For each token, the texts that are completions of the prefix which ends with it: what stands behind that
        prefix, and D of the whole. For the last token: nothing, and D of the text.
    """
    length = int(texts.lengths_B[0])
    estimate = RolloutCredit(policy, judge, rollouts=rollouts).estimate(texts, texts.mask_BT)
    done = estimate.completions
    found: list[list[tuple[str, float]]] = [[] for _ in range(length)]
    rows = done.prefix_R.tolist(), done.tokens_RT.tolist(), estimate.reward_R.tolist()
    for prefix, tokens, score in zip(*rows, strict=True):
        found[prefix - 1].append((task.text(tokens[prefix:]), score))
    found[-1].append(("", float(estimate.q_BT[0, length - 1])))
    return found


def largest_changes(values: Sequence[float], count: int) -> list[int]:
    """The places, in order, at which a value differs most from the one before."""
    places = sorted(range(1, len(values)), key=lambda at: -abs(values[at] - values[at - 1]))
    return sorted(places[:count])


def words_of(task: Task, tokens_T: Tensor) -> list[str]:
    """One word a token of a written text, its end token included."""
    words = task.words(tokens_T.tolist())
    return words + ["<eos>"] * (len(tokens_T) - len(words))


@command
def main(options: Credit | Vanishing | Chase | Curve | Rollouts) -> None:
    """The command."""
    print(options.draw())


if __name__ == "__main__":
    main()
