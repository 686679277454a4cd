"""Forward and reverse score of runs that have other tokens than a task: by their texts, read in the task's words.

``python -m benchmarks.other_words --runs runs/smollm2-1 runs/lstm-1``: the scores of `benchmarks.text_scores`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import command, show
from textgan_env.utils.errors import require


@dataclass(frozen=True)
class Options:
    """Score the texts of runs in the words of a task."""

    runs: tuple[Path, ...]
    """Finished runs; an adapter's base is measured, too, as it was before it learnt."""
    task: str = "coco"
    """Whose words, and whose held-out texts."""
    samples: int = 500
    """Texts of each."""
    seed: int = 0
    """Of these texts."""
    name: str = "other_words"
    """Of the result files."""


@command
def main(options: Options) -> None:
    """The command."""
    notes = (
        f"{options.samples} texts of each (seed {options.seed}, temperature 1), read in the words of {options.task}: "
        "others are unknown there, and count for nothing. lstm_forward: an LSTM that has read the task's valid split "
        "reads these texts; lstm_reverse: an LSTM that has read these texts reads the test split; nats per word, lower "
        "is better. train texts: as many real ones that the first run has learnt from (all, where it has fewer)."
    )
    show(options.name, measure(options), notes=notes)


def measure(options: Options) -> list[dict[str, Any]]:
    """A row a policy.

    Raises:
        InputError: If no run is given.
    """
    import torch

    from textgan_env.evaluation import stream_texts
    from textgan_env.policies import AdaptedPolicy
    from textgan_env.runs.loading import load_policy
    from textgan_env.tasks import make_task

    torch.set_num_threads(1)
    require(len(options.runs) > 0, "give --runs, found none")
    task, rows = make_task(options.task), []
    for number, run in enumerate(options.runs):
        policy, own = load_policy(run)
        name = run.name.rpartition("-")[0]
        if number == 0:
            train = [own.text(tokens) for tokens in own.split("train").tokens_BT.tolist()][: options.samples]
            rows.append({"texts": "train texts", **_scores(task, train)})
        texts = list(stream_texts(policy, own, options.samples, options.seed))
        rows.append({"texts": name, **_scores(task, texts)})
        if isinstance(policy, AdaptedPolicy):
            for weight in policy.adapter.values():
                weight.data.zero_()
            texts = list(stream_texts(policy, own, options.samples, options.seed))
            rows.append({"texts": f"{name}, before it learnt", **_scores(task, texts)})
        print(rows[-1], flush=True)
    return rows


def _scores(task: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Both scores, and how many words the task does not know."""
    import torch

    from benchmarks.text_scores import lstm_scores

    rows = [task.vocabulary.encode(task.tokenize(text))[: task.max_length - 1] for text in texts]
    tokens_BT = torch.full((len(rows), task.max_length), task.vocab_size)
    for row, tokens in enumerate(rows):
        tokens_BT[row, : len(tokens) + 1] = torch.tensor([*tokens, task.end_token])
    unknown = sum(token in task.forbidden for tokens in rows for token in tokens) / max(1, sum(map(len, rows)))
    words = sum(map(len, rows)) / len(rows)
    return {**lstm_scores(task, tokens_BT, 10_000)[0], "words": words, "unknown": unknown, "different": len(set(texts))}


if __name__ == "__main__":
    main()
