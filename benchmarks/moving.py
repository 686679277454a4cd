"""The moving picture of the README: texts that are generated token by token, with what each token is worth."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.dynamics import credited_texts
from benchmarks.pictures import Moving
from textgan_env.ops.render import rgb_array
from textgan_env.utils.files import write_safely

#: A frame, uint8 (height, width, 3), and for how many milliseconds it stands.
Frame = tuple[np.ndarray, int]

_SIZE = (760, 240)
_TOKEN, _TEXT = 450, 2200  # milliseconds


def draw_moving(options: Moving) -> Path:
    """Draw it and write it; returns the path."""
    save_gif([frame for told in credited_texts(options) for frame in frames(*told)], options.path)
    return options.path


def frames(title: str, words: Sequence[str], credit: Sequence[float]) -> Iterator[Frame]:
    """A frame for each token of a text; the last one stands longer.

    Args:
        title: Above each frame.
        words: One a token.
        credit: What each is worth.
    """
    for length in range(1, len(words) + 1):
        shown = rgb_array(words[:length], credit[:length], limits=(0.0, 1.0), size=_SIZE, title=title)
        yield shown, _TEXT if length == len(words) else _TOKEN


def save_gif(shown: Sequence[Frame], path: Path) -> None:
    """Write frames as a GIF that repeats for ever; all share one palette of 128 colours.

    Args:
        shown: The frames, of one size.
        path: The file to write.

    Raises:
        OSError: If the file cannot be written; an older picture stays as it was.
    """
    from PIL import Image

    pictures = [Image.fromarray(pixels_HWC) for pixels_HWC, _ in shown]
    palette = Image.fromarray(np.concatenate([pixels for pixels, _ in shown])).quantize(128)
    first, *others = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    file = io.BytesIO()
    times = [milliseconds for _, milliseconds in shown]
    first.save(file, "gif", save_all=True, append_images=others, duration=times, loop=0, optimize=True)
    write_safely(path, file.getvalue())
