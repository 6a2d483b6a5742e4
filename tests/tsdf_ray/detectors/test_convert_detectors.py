"""The converter's layouts, against the source layouts' own arithmetic (runs where the extra `convert` is installed)."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tsdf_ray.detectors.centerface import CenterFace

pytest.importorskip("joblib")
pytest.importorskip("onnx")
SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "convert_detectors.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="convert_detectors")


def test_mtcnn_layouts(script: dict[str, Any]) -> None:
    """R-Net's third convolution and its dense layer in Keras terms: NHWC, flattened after Permute((2, 1, 3))."""
    rng = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(3, 3, 3, 28), (28,), (1, 1, 28), (3, 3, 28, 48), (48,), (1, 1, 48)]
    shapes += [(2, 2, 48, 64), (64,), (1, 1, 64), (576, 128), (128,), (128,), (128, 4), (4,), (128, 2), (2,)]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    tensors = {name: torch.from_numpy(value.copy()) for name, value in script["mtcnn_network"]("rnet", arrays)}
    kernel, bias, dense = arrays[6], arrays[7], arrays[9]
    x_HWC = rng.standard_normal((4, 4, 48))
    conv_HWC = np.zeros((3, 3, 64))
    for i in range(3):
        for j in range(3):
            conv_HWC[i, j] = np.einsum("abc,abco->o", x_HWC[i : i + 2, j : j + 2], kernel) + bias
    answer = conv_HWC.transpose(1, 0, 2).reshape(-1) @ dense
    x = torch.from_numpy(x_HWC.copy()).permute(2, 0, 1)[None]
    ours = torch.nn.functional.conv2d(x, tensors["rnet.conv3.weight"], tensors["rnet.conv3.bias"]).flatten(1)
    torch.testing.assert_close((ours @ tensors["rnet.fc.weight"].T)[0], torch.from_numpy(answer))
    assert torch.equal(tensors["rnet.prelu_fc.weight"], torch.from_numpy(arrays[11]))
    assert torch.equal(tensors["rnet.face.weight"], torch.from_numpy(arrays[14].T.copy()))


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("/fx/stage1/stage1.0/stage1.0.0/Conv", "body.stage1.0.0"),
        ("/fx/stage2/stage2.3/stage2.3.1/stage2.3.1.0/Conv", "body.stage2.3.3"),
        ("/fx/stage3/stage3.0/stage3.0.0/stage3.0.0.0/Conv", "body.stage3.0.0"),
        ("/fpn/output3/output3.0/Conv", "fpn.output3.0"),
        ("/ssh2/conv7x7_3/conv7x7_3.0/Conv", "ssh2.conv7x7_3.0"),
        ("/bbox_head/bbox_head.2/Conv", "BboxHead.2.conv1x1"),
    ],
)
def test_retinaface_names(script: dict[str, Any], node: str, name: str) -> None:
    assert script["official_name"](node) == name


def test_centerface_names_are_the_modules_of_ours(script: dict[str, Any]) -> None:
    names = script["centerface_names"]()
    ours = [name for name, module in CenterFace().named_modules() if isinstance(module, torch.nn.Conv2d)]
    assert sorted(names) == sorted(ours)
    assert len(set(names)) == len(names)


def test_a_folded_norm_changes_nothing(script: dict[str, Any]) -> None:
    rng = torch.Generator().manual_seed(0)
    layer = torch.nn.ConvTranspose2d(3, 5, 2, stride=2, bias=False).double()
    norm = torch.nn.BatchNorm2d(5, eps=0.001).double().eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        assert tensor is not None
        tensor.copy_(torch.rand(5, generator=rng) + 0.5)
    x = torch.randn(1, 3, 4, 4, generator=rng).double()
    arrays = [t.detach().numpy() for t in (layer.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var)]
    weight, bias = (torch.from_numpy(array) for array in script["folded"](*arrays, norm.eps))
    torch.testing.assert_close(torch.nn.functional.conv_transpose2d(x, weight, bias, stride=2), norm(layer(x)))


def test_an_unknown_file_is_refused(script: dict[str, Any], tmp_path: Path) -> None:
    import zipfile

    member = "mtcnn/assets/weights/pnet.lz4"
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr(member, b"another pickle")
    with pytest.raises(SystemExit, match="expected ea6b0c3e685e"):
        script["read"](tmp_path / "x.whl", member)
