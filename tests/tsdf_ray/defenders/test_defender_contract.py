"""Every built-in defence against the contract a plug-in author uses."""

from __future__ import annotations

from tsdf_ray.defenders import Defender, make_defender
from tsdf_ray.testing.defender_contract import DefenderContract


class TestNone(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        return make_defender("none", {"epsilon": epsilon})


class TestNoise(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        return make_defender("noise", {"epsilon": epsilon})


class TestFound(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        return make_defender("found", {"epsilon": epsilon, "batch": 3})


class TestFoundSummed(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        return make_defender("found", {"epsilon": epsilon, "feature_loss": "summed", "epochs": 2})


class TestFoundPerImage(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        return make_defender("found", {"epsilon": epsilon, "per_image": True, "per_image_steps": 3, "batch": 2})


class TestPgd(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        return make_defender("pgd", {"epsilon": epsilon, "steps": 4, "batch": 2})


class TestCmua(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        return make_defender("cmua", {"epsilon": epsilon, "steps": 2, "batch": 4, "factors": {"second": 2.0}})


class TestAntiForgery(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        return make_defender("anti_forgery", {"epsilon": epsilon, "steps": 5, "lr": 0.01})


class TestFacePoison(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        config = {"steps": 3, "masks": 4, "spectra": 2, "batch": 2}
        return make_defender("face_poison", {"epsilon": epsilon, "detectors": ["bright"], **config})


class TestTsdf(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        share = {"fraction": 0.5}
        return make_defender("tsdf", {"epsilon": epsilon, "detectors": ["bright"], "share": share, "batch": 3})


class TestTsdfAsThePaper(DefenderContract):
    """Dense w, universal poison, eq. 13's own form with features."""

    def make(self, epsilon: float) -> Defender:
        poison = {"universal": True, "score_form": "squared", "lambda_f": 1.0, "steps": 4}
        return make_defender("tsdf", {"epsilon": epsilon, "detectors": ["bright"], "poison": poison})


class TestTsdfWeakest(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        share = {"fraction": 0.3, "choice": "weakest"}
        poison = {"objective": "fabricate", "rule": "sign", "steps": 4}
        config = {"epsilon": epsilon, "detectors": ["bright"], "share": share, "poison": poison}
        return make_defender("tsdf", config)


EOT = [{"kind": "blur", "sigma": 1.0}, {"kind": "jpeg", "quality": 75}, {"kind": "resize", "size": 24}]


class TestFoundThroughChannels(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        return make_defender("found", {"epsilon": epsilon, "batch": 3, "eot": EOT})


class TestPgdThroughChannels(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        return make_defender("pgd", {"epsilon": epsilon, "steps": 4, "batch": 2, "eot": EOT})


class TestFacePoisonThroughChannels(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        config = {"steps": 4, "masks": 2, "spectra": 2, "batch": 2, "eot": EOT}
        return make_defender("face_poison", {"epsilon": epsilon, "detectors": ["bright"], **config})


class TestTsdfThroughChannels(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        share, poison = {"fraction": 0.5}, {"steps": 4}
        config = {"detectors": ["bright"], "share": share, "poison": poison, "eot": EOT}
        return make_defender("tsdf", {"epsilon": epsilon, **config})
