"""The colours of credits, the same in pictures, terminals and pages.

Colours run from orange (low) over a pale middle to blue (high), which people with any common colour blindness
tell apart; how dark a colour is says how far from the middle its value lies. A value that is NaN (a token
that nobody has judged) is grey.
"""

import math
from collections.abc import Sequence

import numpy as np

from textgan_env.utils.errors import require

#: Red, green, blue, 0..255.
Colour = tuple[int, int, int]
#: The credits that get the two ends of the scale of colours.
Limits = tuple[float, float]

#: (9, 3) sRGB, low to high; lightness rises evenly to the middle and falls evenly after it.
SCALE = np.array(
    [(158, 66, 16), (205, 102, 38), (233, 147, 84), (246, 195, 149), (246, 240, 232), (176, 207, 232),
     (117, 168, 214), (64, 125, 186), (28, 81, 144)],
    dtype=np.float64,
)  # fmt: skip
#: The same on dark paper, where the middle is dark: what is near it shall not shine.
DARK_SCALE = np.array(
    [(244, 150, 84), (206, 118, 60), (158, 92, 52), (104, 70, 54), (52, 55, 60), (50, 78, 108), (62, 106, 152),
     (90, 142, 196), (134, 188, 240)],
    dtype=np.float64,
)  # fmt: skip
#: Of a value that is NaN.
NO_VALUE: Colour = (222, 222, 220)
#: Of text.
INK: Colour = (33, 37, 41)
#: Of text that says less.
FAINT: Colour = (120, 124, 130)
_PALE: Colour = (255, 255, 255)


def credit_limits(credit: Sequence[float], middle: float = 0.5) -> Limits:
    """Ends of the colour scale whose pale middle is where D does not know: never stretched to the range of the values.

    Args:
        credit: Values; what is not finite is left out.
        middle: The value of D = .5.

    Returns:
        (lowest, highest), as far from the middle as the furthest value, at least .5: of probabilities (0, 1).
    """
    furthest = max((abs(value - middle) for value in map(float, credit) if math.isfinite(value)), default=0.0)
    return (middle - max(furthest, 0.5), middle + max(furthest, 0.5))


def credit_colour(value: float, limits: Limits, *, dark: bool = False) -> Colour:
    """The colour of a credit.

    Args:
        value: The credit; beyond the limits it gets the colour of the nearer one.
        limits: The values of the two ends of the scale.
        dark: On dark paper.

    Returns:
        (red, green, blue), 0 to 255 each; grey for NaN.
    """
    if math.isnan(value):
        return NO_VALUE
    share = (value - limits[0]) / (limits[1] - limits[0])
    places = np.linspace(0, 1, len(SCALE))
    scale = DARK_SCALE if dark else SCALE
    red, green, blue = (round(float(np.interp(share, places, part))) for part in scale.T)
    return red, green, blue


def ink_on(colour: Colour) -> Colour:
    """The text colour that reads well on a background.

    White wherever its contrast ratio (WCAG 2.1) is 3.6 or more: on middling blues and browns it reads better
    than the dark ink, whose ratio there is no larger than 4.3.

    Args:
        colour: The background.

    Returns:
        (red, green, blue): white or nearly black.
    """
    return _PALE if contrast(_PALE, colour) >= 3.6 else INK


def checked_limits(words: Sequence[str], credit: Sequence[float], limits: Limits | None) -> Limits:
    """The limits of a scale for these values: those given, or `credit_limits`.

    Raises:
        InputError: If there are not as many values as words, or the limits are not a range.
    """
    values, named = len(credit), len(words)
    require(values == named, f"credit needs one value a word, got {values} values for {named} words")
    limits = credit_limits(credit) if limits is None else limits
    ordered = -math.inf < limits[0] < limits[1] < math.inf
    require(ordered, f"the limits of a colour scale must be two finite numbers, the lower first, got {limits}")
    return limits


def short(value: float) -> str:
    """A value in as few characters as a tile has room for."""
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.3g}"


def contrast(one: Colour, other: Colour) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.1)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2.1)."""
    shares = (part / 255 for part in colour)
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
