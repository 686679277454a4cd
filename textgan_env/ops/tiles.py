"""How many rows are worked on at once."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tile:
    """Rows worked on at once, by device; it changes memory and speed only.

    On a CPU so few that what is worked on stays in its cache. On a GPU, where starting a kernel costs more than the
    cache saves, as many as fit well into its memory; these numbers were chosen by their size and never timed.

    Attributes:
        cpu: Rows, at least 1.
        gpu: Likewise, on any device but a CPU.
    """

    cpu: int
    gpu: int

    def on(self, device: torch.device) -> int:
        """The rows for a device."""
        return self.cpu if device.type == "cpu" else self.gpu
