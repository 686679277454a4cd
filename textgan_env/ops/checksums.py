"""What tensors are known by: their SHA-256, and their type and shape in words."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a text and of each tensor's name, dtype, shape and bytes, in hexadecimal digits."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {shape_text(tensor)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def shape_text(tensor: Tensor) -> str:
    """Type and shape, e.g. "float32 (4, 3)"."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
