"""Every built-in detector against the contract a plug-in author uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from tsdf_ray.detectors import DETECTORS, Detector, RawOutput, load_detector
from tsdf_ray.detectors.dsfd import DSFD
from tsdf_ray.detectors.mtcnn import MTCNN
from tsdf_ray.detectors.s3fd import S3FD
from tsdf_ray.detectors.vgg import VGGDetector
from tsdf_ray.testing.detector_contract import DetectorContract
from tsdf_ray.testing.linear import BrightCells, dark_photos_with_a_bright_cell


class TestRetinaFace(DetectorContract):
    def make(self) -> Detector:
        return load_detector("retinaface")


class TestCenterFace(DetectorContract):
    def make(self) -> Detector:
        return load_detector("centerface")


class TestMTCNN(DetectorContract):
    def make(self) -> Detector:
        return load_detector("mtcnn")

    def held(self, detector: Detector, x_BCHW: torch.Tensor) -> Callable[[torch.Tensor], RawOutput]:
        assert isinstance(detector, MTCNN)
        return partial(detector.raw, crops=detector.crops(x_BCHW))


def narrow(kind: type[VGGDetector]) -> VGGDetector:
    """An eighth of the width, random weights under which activations keep their size and some anchors are sure."""
    rng = torch.Generator().manual_seed(3)
    detector = kind(width=1 / 8)
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, nn.Conv2d):
                scale = (2 / module.weight[0].numel()) ** 0.5
                module.weight.copy_(torch.randn(module.weight.shape, generator=rng) * scale)
                assert module.bias is not None
                module.bias.fill_(0.1)
        detector.vgg[0].weight.div_(60)
    return detector.eval().requires_grad_(False)


class TestS3FD(DetectorContract):
    def make(self) -> Detector:
        return narrow(S3FD)


class TestDSFD(DetectorContract):
    def make(self) -> Detector:
        return narrow(DSFD)


class TestBrightCells(DetectorContract):
    """The detector that defenders are tested with."""

    def make(self) -> Detector:
        return BrightCells().eval()

    def photos(self) -> torch.Tensor:
        return dark_photos_with_a_bright_cell(4, size=64).images()


@pytest.mark.parametrize("name", DETECTORS)
def test_every_built_in_detector_is_here(name: str) -> None:
    assert DETECTORS[name].name == name
    assert f"Test{DETECTORS[name].__name__}" in globals()
