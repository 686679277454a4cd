"""Gradients of batches that are cut into three shards: a digest of each, as one of torchrun's processes has it.

``python -m torch.distributed.run --nproc-per-node N tests/shared_gradients.py OUT MEMORY`` writes it to OUT/<rank>;
MEMORY is the folder of what processes share on one machine. With it stands what is left of the group afterwards.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from textgan_env.ops import torchrun
from textgan_env.ops.parallel import Sum, backward, sharded
from textgan_env.ops.sampling import derived_generator, seeded


def digests() -> list[str]:
    """Of gradients, means and halves: of batches in growing sizes, and of one that has fewer rows than shards."""
    torch.set_num_threads(1)
    generator, found = derived_generator(0, "digests"), []
    for size, rows, halves in ((5, 7, False), (300, 12, True), (40, 4, False), (300, 4, True), (300, 2, True)):
        table_BS = torch.randn(rows, size, generator=generator)
        weight_SS = nn.Parameter(torch.randn(size, size, generator=generator))
        bias_S, same_S, unused = (nn.Parameter(torch.randn(size, generator=generator)) for _ in range(3))

        def objective(
            some_bS: Tensor, weight_SS: Tensor = weight_SS, bias_S: Tensor = bias_S, same_S: Tensor = same_S
        ) -> dict[str, Sum]:
            hidden_bS = nn.functional.dropout(some_bS @ weight_SS + bias_S + same_S, 0.2).tanh()
            return {"loss": (hidden_bS.sum(), len(some_bS)), "square": (hidden_bS.square().sum(), some_bS.numel())}

        parameters = [weight_SS, bias_S, same_S, unused]
        for _ in range(2):  # the second time in memory that is there
            with seeded(1), sharded(3):
                means, halves_P = backward(parameters, (table_BS,), objective, halves=halves, dropout=True)
            parts = [part.grad for part in parameters if part.grad is not None] + [*means.values(), *halves_P]
            assert len(parts) == 5 + 2 * halves
            found.append(hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest())
    return found


if __name__ == "__main__":
    torchrun._SHARED_MEMORY = sys.argv[2]
    with torchrun.process_group():
        told = {"digests": digests(), "shared": bool(torchrun._kept and torchrun._kept[1])}
        file = Path(sys.argv[1], str(torchrun.rank_and_size()[0]))
        import torch.distributed.nn  # so does torch, when an optimizer is made
    threads = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
    file.write_text(json.dumps(told | {"threads of gloo": sum("gloo" in name for name in threads)}))
