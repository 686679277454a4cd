"""What happens on the page of `textgan play`: the policies of runs generate, each token on the colour of its Q.

`Player` needs no page: it gives rows of tokens with their values, and `play_html` shows them.
"""

import math
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from textgan_env.discriminators import Discriminator
from textgan_env.envs import default_discriminator
from textgan_env.evaluation import generate_texts, template_of
from textgan_env.ops.templates import given_cells
from textgan_env.rewards import RolloutCredit
from textgan_env.runs.folder import RunFolder, runs_in
from textgan_env.show.saved import SavedRun
from textgan_env.tasks import BLANK_MARK
from textgan_env.text.vocabulary import EOS
from textgan_env.utils import molecules
from textgan_env.utils.errors import InputError, require

_ITS_OWN = "its own, which this run trained"


@dataclass(frozen=True)
class Request:
    """What the page asks for.

    Attributes:
        prefix: What every text begins with; with ``___`` in it a template, a whole text with blanks.
        texts: How many.
        seed: Of the draws.
        temperature: What logits are divided by.
        top_k: Write one of the k most probable tokens only; None: of all.
        top_p: Write one of the most probable tokens that together reach this probability only; None: of all.
        rollouts: N, completions of each prefix.
        own_discriminator: Score by the run's own discriminator, where it has one.
    """

    prefix: str = ""
    texts: Annotated[int, Field(ge=1, le=10)] = 3
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    rollouts: Annotated[int, Field(ge=1, le=32)] = 8
    own_discriminator: bool = True

    def command(self, run: Path) -> str:
        """What writes the same texts on the command line."""
        words = ["textgan", "sample", str(run), "-n", str(self.texts), "--seed", str(self.seed)]
        words += ["--temperature", f"{self.temperature:g}"]
        given = "--template" if BLANK_MARK in self.prefix else "--prefix"
        for option, value in (("--top-k", self.top_k), ("--top-p", self.top_p), (given, self.prefix)):
            words += [] if value in (None, "") else [option, str(value)]
        return shlex.join(words)

    def decoding(self) -> list[str]:
        """How tokens are drawn, in words."""
        said = [f"temperature {self.temperature:g}"]
        said += [] if self.top_k is None else [f"top-k {self.top_k}"]
        said += [] if self.top_p is None else [f"top-p {self.top_p:g}"]
        return [*said, f"seed {self.seed}"]


@dataclass(frozen=True)
class Token:
    """A token that has been generated.

    Attributes:
        word: What it stands for; `EOS` for the end token.
        q: The mean probability that the text is real, over its completions from here; NaN where the token was given.
    """

    word: str
    q: float


@dataclass(frozen=True)
class Page:
    """One side of the page at one moment.

    Attributes:
        name: Of the run.
        badges: How its tokens are drawn.
        control: The control that it was trained with; "": none.
        texts: Each as far as it is shown.
        pictures: Of texts that are whole and molecules, the address of a drawing; None of others, or none at all.
        note: Which discriminator scores, or what is being waited for.
        command: What writes the same texts on the command line.
        joined: Whether words stand side by side without blanks.
        own: Whether the discriminator is the run's own.
        one_sided: Whether the policy fills blanks without seeing what stands behind them.
        error: Why nothing can be generated, if so.
    """

    name: str = ""
    badges: Sequence[str] = ()
    control: str = ""
    texts: Sequence[Sequence[Token]] = ()
    pictures: Sequence[str | None] = ()
    note: str = ""
    command: str = ""
    joined: bool = False
    own: bool = False
    one_sided: bool = False
    error: str = ""


@dataclass
class Player:
    """Runs that generate when asked; each is loaded when first needed.

    Args:
        runs: Run folders by the names that the page shows.
    """

    runs: Mapping[str, Path]
    _saved: dict[str, SavedRun] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def load(self, name: str) -> SavedRun:
        """The run of a name.

        Raises:
            InputError: If it cannot be loaded, see `textgan_env.load`.
        """
        with self._lock:
            if name not in self._saved:
                self._saved[name] = SavedRun.load(self.runs[name])
            return self._saved[name]

    def discriminator(self, name: str, own: bool) -> tuple[Discriminator, str]:
        """What scores the texts of a run, and in words which discriminator that is.

        Args:
            name: The run.
            own: Its own discriminator, where it has one that has learnt; otherwise the default one of its text.
        """
        saved = self.load(name)
        trained = saved.discriminator if own else None
        if trained is not None:
            return trained, _ITS_OWN
        with self._lock:  # fitting seeds global generators for a while
            default = default_discriminator(saved.task, 0)
        why = " (this run trained none)" if own else ""
        return default, f"the default one of the task{why}: it knows usual words and pairs of near words, no more"

    def write(self, name: str, request: Request) -> Iterator[Page]:
        """Generate texts with a run, and show them token by token, all of them side by side.

        A token's Q is what the environment would pay for it: the mean over N completions by the same policy of the
        probability that D gives the whole text to be real; at the last token, that of the text itself. The texts
        are those of `SavedRun.sample`.

        Args:
            name: The run.
            request: What to generate.

        Returns:
            The page after each token; one with an error where something is refused.
        """
        yield Page(name=name, note="Loading the run and its discriminator ...")
        try:
            yield from self._pages(name, request)
        except InputError as error:
            yield Page(name=name, error=str(error))

    def side_by_side(self, names: Sequence[str], request: Request) -> Iterator[list[Page]]:
        """Let several runs generate at once, as `write` does: the pages after each token."""
        last: list[Page] = [Page()] * len(names)
        for pages in zip_longest(*(self.write(name, request) for name in names)):
            last = [page or before for page, before in zip(pages, last, strict=True)]
            yield last

    def _pages(self, name: str, request: Request) -> Iterator[Page]:
        """The pages after each token; Q of all tokens is computed in one pass before the first."""
        saved, blanks = self.load(name), BLANK_MARK in request.prefix
        task = saved.task
        policy = saved.decoded(temperature=request.temperature, top_k=request.top_k, top_p=request.top_p)
        template_BT = template_of(task, request.prefix) if blanks else None
        prefix = [] if blanks else task.encode_writable(request.prefix)
        writer = policy if template_BT is None else policy.given(template_BT, task.end_token)
        texts = generate_texts(writer, task, request.texts, request.seed, prefix)
        known_BT = torch.arange(task.max_length)[None] < len(prefix)
        if template_BT is not None:
            known_BT = given_cells(template_BT, task.vocab_size)
        discriminator, which = self.discriminator(name, request.own_discriminator)
        # The end token of a template is given, too, but its Q is the score of the text.
        asked_BT = texts.mask_BT & (~known_BT | texts.last_BT)
        credit_BT = RolloutCredit(writer, discriminator, rollouts=request.rollouts).credit(texts, asked_BT)
        credit_BT = credit_BT.masked_fill(~asked_BT, math.nan)
        rows = zip(texts.tokens_BT.tolist(), texts.lengths_B.tolist(), credit_BT.tolist(), strict=True)
        # A text that fills T has a word for every token; one that ends earlier has an end token, which is no word.
        whole = [tuple(map(Token, [*task.words(tokens), EOS][:end], credit)) for tokens, end, credit in rows]
        drawn: list[str | None] = [None] * len(whole)
        if task.language == "molecules":
            drawn = [molecules.picture_address(task.text(tokens)) for tokens in texts.tokens_BT.tolist()]
        page = Page(
            name=name, badges=request.decoding(), control=str(saved.folder.about["config"].get("control") or ""),
            note=f"Discriminator: {which}.", own=which == _ITS_OWN, command=request.command(saved.folder.path),
            joined=task.vocabulary is not None and task.vocabulary.glue == "",
            one_sided=template_BT is not None and policy.reading(template_BT) is policy,
        )  # fmt: skip
        for position in range(int((~known_BT[0]).long().argmax()), int(texts.lengths_B.max())):
            pictures = [one if position + 1 >= len(tokens) else None for tokens, one in zip(whole, drawn, strict=True)]
            yield replace(page, texts=[tokens[: position + 1] for tokens in whole], pictures=pictures)


def find_runs(paths: Sequence[Path]) -> dict[str, Path]:
    """Run folders by the shortest names that tell them apart; of a folder of runs the newest first.

    Args:
        paths: Run folders, or folders of them.

    Raises:
        InputError: If a path is not there or holds no run; the sentence names it.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if (path / "config.json").exists() or not path.is_dir():
            found[RunFolder.open(path).path] = None
            continue
        written = {
            folder: RunFolder(folder).last_checkpoint.stat().st_mtime
            for folder in runs_in(path)
            if RunFolder(folder).last_checkpoint.is_file()
        }
        inside = sorted(written, key=written.__getitem__, reverse=True)
        require(bool(inside), f"no run in '{path}': train one first, with textgan train mle --corpus FILE")
        found |= dict.fromkeys(inside)
    names = [path.name for path in found]
    return {path.name if names.count(path.name) == 1 else str(path): path for path in found}
