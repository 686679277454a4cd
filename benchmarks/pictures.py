"""The pictures of the docs: docs/images/*.png (one .gif), most of them shown and told in docs/pictures.md.

For example ``python -m benchmarks.pictures credit --run runs/mle-coco-1``.
"""

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.results import command, image_path
from textgan_env.utils.errors import require


def called(names: Sequence[str], own: Sequence[str], one: str, several: str) -> Sequence[str]:
    """What things are called in a picture: by the names that are given, one each, or by their own."""
    found = names or own
    require(len(found) == len(own), f"a name a {one} is needed, found {len(found)} for {len(own)} {several}")
    return found


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of the docs."""

    drawn_by: ClassVar[str]
    """Module and function that draw it, loaded when they do."""
    name: str = ""
    """Of the PNG file in docs/images [that of the picture]."""

    @property
    def path(self) -> Path:
        """Where it is written."""
        return image_path(self.name or type(self).__name__.lower())

    def draw(self) -> Path:
        """Draw it and write it; returns its path (of several: the last)."""
        path: Path = pkgutil.resolve_name(self.drawn_by)(self)
        return path


@dataclass(frozen=True)
class OfRun(Picture):
    """A picture from a finished run."""

    run: Path
    """The finished run."""
    seed: int = 0
    """Of everything random."""


@dataclass(frozen=True)
class Credit(OfRun):
    """Texts of uniform words, of a bigram model and of the run, with what the environment pays each token."""

    rollouts: int = 256
    """Completions of each prefix, by the policy that wrote it."""

    drawn_by = "benchmarks.dynamics:draw_credit"


@dataclass(frozen=True)
class Moving(Credit):
    """The same as a moving picture (NAME.gif): the texts grow token by token."""

    drawn_by = "benchmarks.moving:draw_moving"

    @property
    def path(self) -> Path:
        """Where it is written."""
        return super().path.with_suffix(".gif")


@dataclass(frozen=True)
class Rollouts(OfRun):
    """One text of a run with each token's Q, and the completions behind some of these numbers.

    The run generates the text and its completions, and D is fitted to tell its texts from real ones.
    """

    rollouts: int = 6
    """Completions of each prefix (N); all are shown."""
    shown: int = 3
    """Tokens whose completions are listed: those at which Q changes most."""
    d_epochs: int = 10
    """Passes of D over the training texts."""

    drawn_by = "benchmarks.dynamics:draw_rollouts"


@dataclass(frozen=True)
class Vanishing(OfRun):
    """A D that learns its real texts by heart, and what five rewards make of the policy gradient meanwhile.

    G, the policy of the run, stands still. D, the pair discriminator without its weight decay, is fitted epoch after
    epoch to the same real texts and as many fresh ones of G. Each reward is the whole text's, given to each token.
    """

    texts: int = 2000
    """Real texts that D learns."""
    epochs: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    """Passes of D over them, after each of which the gradient is looked at."""
    batches: int = 48
    """Batches of texts of G; each gives one estimate of the gradient."""
    batch_size: int = 64
    """Texts in a batch (B)."""

    drawn_by = "benchmarks.dynamics:draw_vanishing"


@dataclass(frozen=True)
class Chase(OfRun):
    """SeqGAN from a finished run of agents/mle.py; then D of each round judges the texts of G of every round."""

    rounds: int = 6
    """Adversarial rounds."""
    g_steps: int = 10
    """g-steps in a round, of 128 texts each."""
    rollouts: int = 0
    """Completions of each prefix (N); 0: each token gets the whole text's reward, which is much faster."""
    d_epochs: int = 1
    """Passes of D over fresh texts in a round."""
    learning_rate: float = 5e-3
    """Learning rate of G."""
    kl: float = 0.0
    """Weight of the KL divergence to the run."""
    transform: str = "logit"
    """What the reward makes of D's judgement."""
    texts: int = 1000
    """Texts of each G that are judged; no D was fitted to them."""

    drawn_by = "benchmarks.dynamics:draw_chase"


@dataclass(frozen=True)
class Curve(Picture):
    """Learning curves of several runs over the same axis, for example SeqGAN's and that of MLE for as long."""

    runs: tuple[Path, ...]
    """Run folders. A run whose --pretrained is another of them begins where that one ends."""
    names: tuple[str, ...] = ()
    """Of the lines, one a run; without any, the names of the folders. Runs of one name are seeds of one setting: their
    mean, and a pale band from the lowest to the highest."""
    measures: tuple[str, ...] = ("nll_valid", "nll_oracle")
    """What is drawn, a panel each, where it was logged: names in metrics.csv, in nats per token."""
    phase: str = ""
    """Draw this phase alone, counted from its own first round."""
    title: str = ""
    """Above the picture."""

    drawn_by = "benchmarks.curves:draw_curve"


@dataclass(frozen=True)
class Differences(Picture):
    """What policies of kept results have more than the one they began from, over temperatures; prints the table, too.

    Seeds are paired. Below 0 is better than the start.
    """

    start: str
    """The policy that they began from."""
    results: tuple[str, ...]
    """Names in benchmarks/results; the picture has that of the first. A row that stands in several must be equal."""
    measures: tuple[str, ...] = ("cover", "fit")
    """Columns, in nats per token, the lower the better."""
    policies: tuple[str, ...] = ()
    """Those that are drawn, as they stand there; none: all but the start."""
    names: tuple[str, ...] = ()
    """What they are called in the picture; without any, as they stand there."""
    title: str = ""
    """A line above."""

    drawn_by = "benchmarks.differences:draw_differences"


@dataclass(frozen=True)
class Plane(Picture):
    """Policies of a kept result of the suite in the plane of cover and fit, a line a seed along its temperatures.

    Lower left is better. A mark is the policy at temperature 1; along the line to the right it is colder.
    """

    result: str
    """Name in benchmarks/results, of an oracle task alone."""
    policies: tuple[str, ...]
    """Arms that were measured at several temperatures."""
    names: tuple[str, ...] = ()
    """What they are called in the picture; without any, as they stand there."""
    title: str = ""
    """A line above."""

    drawn_by = "benchmarks.planes:draw_plane"


@dataclass(frozen=True)
class Again(Picture):
    """The picture of a kept result, drawn again from its numbers; nothing is measured.

    Those of benchmarks.bound, budget, gad, goals, regimes and throughput have one.
    """

    result: str
    """Name in benchmarks/results, and of the picture."""

    drawn_by = "benchmarks.results:draw_kept"


@dataclass(frozen=True)
class Leak(OfRun):
    """Two pictures of a run of agents/leakgan.py, whose D looks at all texts: NAME_paths.png and NAME_goals.png.

    How texts of several policies move through D's features, and the goals over the words of one text.
    """

    others: tuple[Path, ...] = ()
    """Further runs on the same task (MLE, SeqGAN), each with a panel beside it."""
    names: tuple[str, ...] = ()
    """Of the panels: of the others, then of the run; without any, the names of the folders."""
    real: int = 1000
    """Real texts of the valid split whose end points are drawn."""
    written: int = 12
    """Texts of each policy whose paths are drawn."""
    followed: int = 200
    """Texts over which the mean is taken of how well goals are reached."""

    drawn_by = "benchmarks.leak_pictures:draw_leak"


@dataclass(frozen=True)
class Reinforce(Picture):
    """REINFORCE (docs/examples/reinforce.py) on the toy task with and without what makes it work, in exact values."""

    steps: int = 200
    """Gradient steps of each."""
    seed: int = 2
    """Of the texts."""

    drawn_by = "benchmarks.curves:draw_reinforce"


@dataclass(frozen=True)
class Rooms(Picture):
    """The rooms (folders) of the project and who imports whom; arrows that follow from others are left out."""

    drawn_by = "benchmarks.rooms:draw_rooms"


@command
def main(
    options: Again
    | Credit
    | Moving
    | Rollouts
    | Vanishing
    | Chase
    | Curve
    | Differences
    | Leak
    | Plane
    | Reinforce
    | Rooms,
) -> None:
    """The command."""
    print(options.draw())


if __name__ == "__main__":
    main()
