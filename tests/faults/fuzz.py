"""Coverage-guided fuzzing of everything that reads a stranger's file: `make fuzz`.

    python tests/faults/fuzz.py PARSER [-max_total_time=60 -rss_limit_mb=2048 ...] [FOLDER]

Each parser may answer with a result or an `InputError`; anything else, and taking over 2 GB or 20 s, is a finding,
whose input is written to the current folder. The words after the parser's name are libFuzzer's. What was found stands
as a small test beside the parser's others.
"""

import contextlib
import functools
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import atheris  # noqa: E402  before what it is to watch

with atheris.instrument_imports(include=["textgan_env", "zipfile", "pickletools", "json"]):
    import torch

    from textgan_env.policies import LSTMPolicy
    from textgan_env.runs.checkpoints import load_checkpoint, save_checkpoint
    from textgan_env.runs.folder import RunFolder
    from textgan_env.runs.logs import MetricLog, read_metrics
    from textgan_env.tasks import CorpusTask, saved_task
    from textgan_env.text.corpus import load_corpus
    from textgan_env.text.oracle_weights import read_oracle_weights
    from textgan_env.text.vocabulary import MODES, Vocabulary, tokenize
    from textgan_env.utils.errors import InputError

from faults import corruptions  # noqa: E402
from faults.test_hostile_oracles import HOSTILE, _npz  # noqa: E402

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))


def checkpoint(content: bytes) -> None:
    """The bytes of a file."""
    (FOLDER / "x.safetensors").write_bytes(content)
    load_checkpoint(FOLDER / "x.safetensors").build_policy()


@functools.cache
def _tensors() -> dict[str, torch.Tensor]:
    return corruptions.taken_apart(_good_checkpoint())[1]


def document(content: bytes) -> None:
    """The JSON of a checkpoint, under a right checksum."""
    text = content.decode("utf-8", "replace")
    (FOLDER / "y.safetensors").write_bytes(corruptions.packed(text, _tensors()))
    read = load_checkpoint(FOLDER / "y.safetensors")
    _ = read.vocabulary
    policy = read.build_policy()
    read.restore_optimizer("policy", torch.optim.Adam(policy.parameters()))


def task(content: bytes) -> None:
    """What a file says of a task."""
    saved_task(json.loads(content), "the task")


def oracle(content: bytes) -> None:
    """Weights, .npz or pickle."""
    (FOLDER / "oracle.pkl").write_bytes(content)
    read_oracle_weights(FOLDER / "oracle.pkl")


def vocabulary(content: bytes) -> None:
    """JSON of a vocabulary, and what it makes of the same text."""
    text = content.decode("utf-8", "surrogatepass")
    words = Vocabulary.from_json(text)
    words.decode(words.encode([token for token in words.tokenize(text) if token in words.words]))


def corpus(content: bytes) -> None:
    """A text file; its first byte says how it is read."""
    how = content[0] if content else 0
    (FOLDER / "text.txt").write_bytes(content[1:])
    longer = ("cut", "drop", "grow")[how // 3 % 3]
    limit = (None, 1, 2, 5)[how // 9 % 4]
    made = CorpusTask(load_corpus(FOLDER / "text.txt", mode=MODES[how % 3], longer=longer, max_length=limit))  # type: ignore[arg-type]
    for tokens in made.split("train").tokens_BT.tolist():
        tokenize(made.text(tokens), MODES[how % 3])  # type: ignore[arg-type]


def metrics(content: bytes) -> None:
    """metrics.jsonl, read and written again as a resumed run does."""
    (FOLDER / "metrics.jsonl").write_bytes(content)
    read_metrics(FOLDER)
    MetricLog(FOLDER, tensorboard=False, resume_at=5).close()


def config(content: bytes) -> None:
    """config.json of a run."""
    (FOLDER / "config.json").write_bytes(content)
    RunFolder.open(FOLDER)


def samples(content: bytes) -> None:
    """samples.txt, read and written again as a resumed run does."""
    (FOLDER / "samples.txt").write_bytes(content)
    RunFolder(FOLDER).rewind(5)


@functools.cache
def _good_checkpoint() -> bytes:
    policy = LSTMPolicy(3, start_token=3, embed_size=2, hidden_size=2)
    optimizer = torch.optim.Adam(policy.parameters())
    logits_BV, _ = policy.step(torch.tensor([3]), policy.begin(1))
    logits_BV.sum().backward()
    optimizer.step()
    about = {"module": "policy", "kind": "lstm", "config": policy.config()}
    save_checkpoint(
        FOLDER / "good.safetensors",
        modules={"policy": policy},
        optimizers={"policy": optimizer},
        document={"policy": about, "task": {"name": "toy"}, "state": {"done": 1}, "config": {}, "agent": "x"},
        vocabulary=Vocabulary(("a", "b", "c")),
    )
    return (FOLDER / "good.safetensors").read_bytes()


def _seeds(name: str) -> list[bytes]:
    """Inputs to begin with."""
    good = _good_checkpoint()
    rows = b'{"step": 1, "phase": "mle", "loss": 0.5, "nll_valid": null}\n{"step": 2, "phase": "mle", "loss": 1e-05}\n'
    text = "the cat sat.\na dog's bone, 3,000 of them\n\u5e8a\u524d\u660e\u6708\u5149 caf\u00e9\nthe cat ran\n".encode()
    forged = [corruptions.corrupted(number, good, good)[1] for number in range(50)] if name == "checkpoint" else []
    found: dict[str, list[bytes]] = {
        "checkpoint": [good, *(bad for bad in forged if len(bad) < 10_000)],
        "document": [json.dumps(corruptions.taken_apart(good)[0]).encode()],
        "task": [json.dumps({"name": name}).encode() for name in ("toy", "oracle", "corpus")]
        + [b'{"name": "toy", "vocab_size": 3, "max_length": 2, "seed": 1, "spread": 0.5, "size": 9}'],
        "oracle": [_npz(), *(made for made in HOSTILE.values() if isinstance(made, bytes) and len(made) < 5000)],
        "vocabulary": [Vocabulary(("a", "b", "<eos>"), eos=2).to_json().encode()],
        "corpus": [bytes([how]) + text for how in range(12)],
        "metrics": [rows],
        "config": [b'{"name": "mle-toy", "config": {"task": "toy", "seed": 0}, "task": {"name": "toy"}}'],
        "samples": [b"step 1\n  a text\n  another\n\nstep 2\n  more\n\n"],
    }
    return found[name]


PARSERS: dict[str, Callable[[bytes], None]] = {
    parser.__name__: parser
    for parser in (checkpoint, document, task, oracle, vocabulary, corpus, metrics, config, samples)
}


def main() -> None:
    """Fuzz the parser that the command line names."""
    if len(sys.argv) < 2 or sys.argv[1] not in PARSERS:
        sys.exit(f"usage: python tests/faults/fuzz.py PARSER [libFuzzer's words]; parsers: {', '.join(PARSERS)}")
    name = sys.argv.pop(1)
    parser = PARSERS[name]
    json_only = name == "task"

    def one(content: bytes) -> None:
        if json_only:
            with contextlib.suppress(ValueError, RecursionError):
                json.loads(content)
                with contextlib.suppress(InputError):
                    parser(content)
            return
        with contextlib.suppress(InputError, UnicodeDecodeError if name == "vocabulary" else InputError):
            parser(content)

    seeds = FOLDER / "seeds"
    seeds.mkdir()
    random.seed(0)
    for number, content in enumerate(_seeds(name)):
        (seeds / f"{number}").write_bytes(content)
    atheris.Setup([*sys.argv, str(seeds), "-rss_limit_mb=2048", "-timeout=20"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
