"""Networks from photos to vectors that the user brings: features for distances of sets, embeddings of identity.

No Inception and no face recognition network can be packaged here, so each is a file: TorchScript, made with
`torch.jit.script` or `torch.jit.trace` and saved with `torch.jit.save`. A TorchScript file is a program: load only
what you made or trust.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Self

import torch
from torch.nn import functional as F

from tsdf_ray.digest import file_digest
from tsdf_ray.errors import UserError


class Embedding:
    """A frozen network that takes float32 [B, 3, side, side] in [-1, 1], RGB, and gives [B, D]."""

    def __init__(self, network: torch.nn.Module, name: str, side: int, width: int, digest: str = "") -> None:
        self._network = network
        self.name = name
        self.side = side
        self.width = width
        """D: how many numbers it gives."""
        self.digest = digest

    def to(self, device: str | torch.device) -> Self:
        """Move the network to a device. Returns itself."""
        self._network.to(device)
        return self

    @torch.inference_mode()
    def embed(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Float32 [B, D] of photos [B, 3, H, W] in [-1, 1] of any size (resized to `side`, antialiased).

        Raises UserError when the network fails on them or gives something else.
        """
        x_BCHW = x_BCHW.float()
        size = (self.side, self.side)
        if x_BCHW.shape[-2:] != size:
            x_BCHW = F.interpolate(x_BCHW, size=size, mode="bilinear", antialias=True, align_corners=False)
        try:
            found = self._network.to(x_BCHW.device)(x_BCHW)
        except (RuntimeError, torch.jit.Error) as error:
            last = str(error).strip().splitlines()[-1]
            raise UserError(f"network {self.name}: fails on photos of {self.side} px: {last}") from error
        if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != len(x_BCHW):
            what = f"shape {list(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise UserError(f"network {self.name}: must give one vector per photo, [{len(x_BCHW)}, D], not {what}")
        if not torch.isfinite(found).all():
            raise UserError(f"network {self.name}: gives numbers that are not finite")
        return found.float()


def load_embedding(file: str, side: int, key: str) -> Embedding:
    """The network in a TorchScript file, tried on two photos; `key` names the scenario's key in errors.

    The name is the file's stem. Raises UserError: no such file, no TorchScript, an output that is not [B, D].
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(f"{key}: {file}: no such file; give a TorchScript file (torch.jit.save)")
    try:
        with warnings.catch_warnings():
            # Recent versions of torch call TorchScript deprecated; nothing else reads a network without its class.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{key}: {file}: not a TorchScript file (torch.jit.save writes them)") from error
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    network = Embedding(network, path.stem, side, 0, file_digest(path))
    try:
        # Random photos: some networks divide by a norm that is zero on black ones.
        photos = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
        network.width = network.embed(photos).shape[1]
    except UserError as error:
        raise UserError(f"{key}: {file}: {error}") from error
    return network
