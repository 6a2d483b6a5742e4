"""The built-in attacker, in all its modes, against the contract a plug-in author uses."""

from __future__ import annotations

from typing import Any, ClassVar

from tsdf_ray.attackers import AttackerConfig
from tsdf_ray.testing.attacker_contract import TINY_TRAINING, AttackerContract


class BuiltIn(AttackerContract):
    """Keys of the config under test."""

    keys: ClassVar[dict[str, Any]] = {}
    retrain: ClassVar[dict[str, Any]] = {}

    def config(self) -> AttackerConfig:
        return AttackerConfig.model_validate(self.keys | {"retrain": {"train": TINY_TRAINING} | self.retrain})


class TestPlain(BuiltIn):
    pass


class TestDetecting(BuiltIn):
    keys = {"prepare": {"detectors": ["bright"], "crop": "box"}}


class TestCenterCropping(BuiltIn):
    keys = {"prepare": {"detectors": ["bright"], "crop": "box", "on_miss": "center_crop"}}


class TestKnownBoxes(BuiltIn):
    keys = {"prepare": {"detectors": ["bright"], "crop": "box", "known_boxes": True, "flip": True}}


class TestPurifying(BuiltIn):
    denoise: ClassVar[dict[str, Any]] = {"kind": "denoise", "steps": 3, "batch": 2}
    keys = {
        "collect": {"own": 4},
        "prepare": {"detectors": ["bright"]},
        "purify": {
            "prepare": [{"kind": "subtract"}, {"kind": "jpeg", "quality": 75}],
            "train": [denoise],
            "inference": [denoise],
        },
    }


class TestFromScratch(BuiltIn):
    retrain = {"mode": "scratch"}


class TestAdversarial(BuiltIn):
    retrain = {"mode": "adversarial", "adversarial": {"steps": 1}}


class TestNotRetraining(BuiltIn):
    retrain = {"mode": "none"}
