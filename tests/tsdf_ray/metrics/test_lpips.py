"""LPIPS against torchmetrics' own network around the same AlexNet, whose weights are random here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchmetrics.functional.image import lpips as reference

from tsdf_ray.errors import UserError
from tsdf_ray.metrics.lpips import load_lpips


def alexnet_features() -> nn.Sequential:
    """torchvision's `alexnet().features`, written anew: names and layers of the published file."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip


def state(features: nn.Sequential) -> dict[str, torch.Tensor]:
    """As the published file names it; its classifier, which is not needed, in small."""
    return {f"features.{name}": value for name, value in features.state_dict().items()} | {
        "classifier.1.weight": torch.zeros(2, 2)
    }


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_it_is_torchmetrics_lpips(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = alexnet_features()
    path = tmp_path / f"alexnet{suffix}"
    save: Callable[..., object] = torch.save if suffix == ".pth" else save_file
    save(state(features), path)
    monkeypatch.setattr(reference, "_get_tv_model_features", lambda *_, **__: features)
    network = reference._LPIPS(net="alex", pnet_rand=True)
    x = torch.rand(3, 3, 96, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = (x + torch.tensor([0.02, 0.1, 0.5])[:, None, None, None] * torch.randn_like(x)).clamp(-1, 1)
    with torch.inference_mode():
        wanted = network(x, y)[:, 0, 0, 0]
    found = load_lpips(str(path)).distance(x, y)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, wanted.double(), rtol=1e-4, atol=1e-7)
    assert found[0] < found[1] < found[2]
    assert (load_lpips(str(path)).distance(x, x) == 0).all()


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation\.lpips: .*no such"):
        load_lpips(str(tmp_path / "none.pth"))
    wrong = state(alexnet_features())
    wrong["features.3.weight"] = torch.zeros(192, 64, 3, 3)
    torch.save(wrong, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"'features\.3\.weight': expected shape \(192, 64, 5, 5\), found"):
        load_lpips(str(tmp_path / "other.pth"))
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"'features\.0\.bias'.*found None.*alexnet-owt-7be5be79"):
        load_lpips(str(tmp_path / "part.pth"))
