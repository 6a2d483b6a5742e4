"""A user's network from photos to vectors: what it gets, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tsdf_ray.errors import UserError
from tsdf_ray.judges import load_embedding


class Means(nn.Module):
    """Six numbers: the mean of each channel, twice; with weights, so that there is something to freeze."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2] == 24
        assert x.shape[3] == 24
        means = x.mean(dim=(2, 3))
        return torch.cat([means, means * self.gain], 1)


class Maps(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, :4, :4]


class Undefined(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) / 0.0


def saved(module: nn.Module, path: Path) -> str:
    torch.jit.save(torch.jit.script(module), str(path))
    return str(path)


def test_photos_are_resized_and_keep_their_range(tmp_path: Path) -> None:
    network = load_embedding(saved(Means(), tmp_path / "arcface.v2.pt"), 24, "evaluation.identity")
    assert (network.name, network.side, network.width) == ("arcface.v2", 24, 6)
    x = torch.full((3, 3, 64, 64), -1.0)
    x[1, 0], x[2] = 1.0, 0.25
    wanted = torch.tensor([[-1.0, -1, -1], [1, -1, -1], [0.25, 0.25, 0.25]])
    torch.testing.assert_close(network.embed(x), torch.cat([wanted, 2 * wanted], 1))
    # Antialiased, as for the judge: a checkerboard at half the size is grey.
    board = torch.ones(1, 3, 48, 48)
    board[..., ::2, 1::2] = board[..., 1::2, ::2] = -1.0
    assert network.embed(board).abs().max() < 0.1


@pytest.mark.parametrize(
    ("module", "side", "message"),
    [
        (Maps(), 24, r"one vector per photo, \[2, D\], not shape \[2, 3, 4, 4\]"),
        (Undefined(), 24, "not finite"),
        (Means(), 32, "fails on photos of 32 px"),
    ],
)
def test_what_gives_no_vectors_is_refused(module: nn.Module, side: int, message: str, tmp_path: Path) -> None:
    file = saved(module, tmp_path / "net.pt")
    with pytest.raises(UserError, match=rf"evaluation\.feature_network: .*net\.pt: .*{message}"):
        load_embedding(file, side, "evaluation.feature_network")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_embedding(str(tmp_path / "none.pt"), 24, "evaluation.identity")
    (tmp_path / "text.pt").write_text("hello")
    torch.save(Means().state_dict(), tmp_path / "state.pt")
    for name in ("text.pt", "state.pt"):
        with pytest.raises(UserError, match=rf"evaluation\.identity: .*{name}: not a TorchScript file"):
            load_embedding(str(tmp_path / name), 24, "evaluation.identity")
