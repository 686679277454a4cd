"""Two pictures of LeakGAN: how texts of several policies move through D's features, and the goals of one text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.dynamics import words_of
from benchmarks.measure import written
from benchmarks.pictures import Leak
from benchmarks.policies import policy_of
from benchmarks.results import image_path
from textgan_env.discriminators import score_features
from textgan_env.ops.colours import INK
from textgan_env.ops.plots import LINE_COLOURS, diverging_map, new_figure, plain_axes, save_figure
from textgan_env.policies import LeakedPolicy
from textgan_env.policies.manager_worker import block_sum, manager_cosines, sliding_sum
from textgan_env.rewards import Texts
from textgan_env.runs.loading import load_policy
from textgan_env.show.traces import Plane
from textgan_env.tasks import Task
from textgan_env.utils.errors import InputError, require


def draw_leak(options: Leak) -> Path:
    """Write both pictures; prints the path of the first and returns that of the second."""
    leaked, task = load_leaked(options.run)
    runs = (*options.others, options.run)
    names = options.names or tuple(run.name for run in runs)
    require(len(names) == len(runs), f"a name a run is needed, found {len(names)} for {len(runs)} runs")
    policies = {name: policy_of(run, task) for name, run in zip(names, runs, strict=True)}
    texts = {name: written(policy, task, options.written, options.seed) for name, policy in policies.items()}
    real_BT = task.writable("valid")[: options.real]
    real_B2, paths = plane(leaked, real_BT, {name: some.tokens_BT for name, some in texts.items()})
    lengths = {name: some.lengths_B.tolist() for name, some in texts.items()}
    own = texts[names[-1]]
    longest_T = own.tokens_BT[own.lengths_B.argmax(), : own.lengths_B.max()]
    heard_tk, cosine_t = goal_trace(leaked, longest_T[None])
    mean_t = mean_cosine(leaked, written(leaked, task, options.followed, options.seed), len(longest_T))
    paths_file, goals_file = (image_path(f"{options.name or 'leak'}_{part}") for part in ("paths", "goals"))
    save_figure(_paths_figure(real_B2, paths, lengths), paths_file)
    cosines = {"this text": cosine_t, f"mean of {options.followed:,} texts": mean_t}
    save_figure(_goals_figure(words_of(task, longest_T.tolist()), heard_tk, cosines, leaked.goal_steps), goals_file)
    print(paths_file)
    return goals_file


def load_leaked(run: Path) -> tuple[LeakedPolicy, Task]:
    """The policy and the task of a run of agents/leakgan.py.

    Raises:
        InputError: If it is a run of another agent.
    """
    policy, task = load_policy(run)
    if not isinstance(policy, LeakedPolicy):
        raise InputError(f"'{run}' is no run of agents/leakgan.py: nothing leaks there")
    return policy, task


def plane(
    policy: LeakedPolicy, real_BT: Tensor, written: Mapping[str, Tensor]
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """D's features on the two directions in which real texts differ most (PCA of whole real texts).

    Args:
        policy: Brings D.
        real_BT: int64; whole real texts.
        written: Name -> texts, int64 (B, T).

    Returns:
        The real texts, float (B, 2), and by name every prefix of the written ones, float (B, T + 1, 2).
    """
    features_BF = score_features(policy.discriminator, real_BT)
    onto = Plane.through(features_BF)
    paths = {name: onto.project(policy.prefix_features(tokens)).numpy() for name, tokens in written.items()}
    return onto.project(features_BF).numpy(), paths


def goal_trace(policy: LeakedPolicy, tokens_1t: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """What the Worker hears before each token of a text, and how well each goal was reached.

    Args:
        policy: The generator.
        tokens_1t: int64 (1, t); one text without PAD.

    Returns:
        Heard goals, float (t, k), and cos(f_{s+c} - f_s, g_s), float (t,), NaN where the text ends before s + c.
    """
    length, steps = tokens_1t.shape[1], policy.goal_steps
    room = policy.discriminator.max_length - length
    with torch.no_grad():
        features_1SF = policy.prefix_features(functional.pad(tokens_1t, (0, room), value=policy.vocab_size))
        goals_1TF = policy.goals(features_1SF)
        summed = sliding_sum if policy.variant == "paper" else block_sum
        heard_1Tk = summed(policy.worker.goal_embedding(goals_1TF), policy.worker.first(), steps)
        cosine_1K = manager_cosines(features_1SF, goals_1TF, steps)[:, : max(0, length - steps + 1)]
        cosine_1t = functional.pad(cosine_1K, (0, length - cosine_1K.shape[1]), value=float("nan"))
    return heard_1Tk[0, :length].numpy(), cosine_1t[0].numpy()


def mean_cosine(policy: LeakedPolicy, texts: Texts, length: int) -> NDArray[Any]:
    """How well goals are reached on average: `goal_trace`'s cosines at each position, over the texts that have one.

    Args:
        policy: The generator.
        texts: Finished texts.
        length: Positions that are wanted (t).

    Returns:
        float (t,), NaN where no text goes on for as long as a goal does.
    """
    total_t, count_t = np.zeros(length), np.zeros(length)
    for tokens_T, own in zip(texts.tokens_BT, texts.lengths_B.tolist(), strict=True):
        cosine_t = goal_trace(policy, tokens_T[None, :own])[1][:length]
        known_t = np.isfinite(cosine_t)
        total_t[: len(cosine_t)][known_t] += cosine_t[known_t]
        count_t[: len(cosine_t)] += known_t
    mean_t: NDArray[Any] = np.divide(total_t, count_t, out=np.full(length, np.nan), where=count_t > 0)
    return mean_t


def _paths_figure(real_B2: NDArray[Any], paths: Mapping[str, NDArray[Any]], lengths: Mapping[str, list[int]]) -> Figure:
    """A panel a policy: real end points in grey, each text's way from the empty prefix to its end."""
    figure, ink = new_figure(0.6 + 4.2 * len(paths), 4.4), tuple(part / 255 for part in INK)
    panels = figure.subplots(1, len(paths), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (name, path_BS2) in zip(panels, paths.items(), strict=True):
        panel.scatter(*real_B2.T, s=5, color="#b9bcc0", linewidths=0, label="real texts, whole")
        for row, length in enumerate(lengths[name]):
            way = path_BS2[row, : length + 1].T
            panel.plot(*way, color=LINE_COLOURS[1], linewidth=0.8, alpha=0.6)
            panel.scatter(*way[:, -1:], s=16, color=ink, zorder=3, label=None if row else "written texts, end")
        panel.scatter(*path_BS2[0, 0], s=40, marker="s", color=LINE_COLOURS[0], zorder=4, label="the empty prefix")
        plain_axes(panel)
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("first principal component of D's features")
    panels[0].set_ylabel("second")
    panels[-1].legend(fontsize=8, frameon=False)
    return figure


def _goals_figure(words: list[str], heard_tk: NDArray[Any], cosines: Mapping[str, NDArray[Any]], steps: int) -> Figure:
    """Above what the Worker is given, white where it is 0; below how well the goals were reached, over the words."""
    figure = new_figure(1.8 + 0.42 * len(words), 4.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    largest = float(abs(heard_tk).max()) or 1.0
    image = above.imshow(heard_tk.T, aspect="auto", cmap=diverging_map(), vmin=-largest, vmax=largest)
    figure.colorbar(image, ax=above, label="what the Worker is given")
    above.set(yticks=[], ylabel="numbers 1 to k")
    for number, (name, cosine_t) in enumerate(cosines.items()):
        look = {"marker": "os"[number], "linestyle": ("-", "--")[number], "label": name}
        below.plot(range(len(words)), cosine_t, color=LINE_COLOURS[number], markersize=3.5, **look)
    below.axhline(0, color="#b9bcc0", linewidth=0.8)
    below.set(ylabel=f"cosine of the goal set here\nand the move of the next {steps}", ylim=(-1.05, 1.05))
    below.legend(fontsize=8, frameon=False)
    plain_axes(below)
    below.set_xticks(range(len(words)), words, rotation=60, ha="right", fontsize=9)
    return figure
