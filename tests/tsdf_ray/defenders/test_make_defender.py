"""Configs are checked where they are made, and say what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tsdf_ray.defenders import DEFENDERS, FoundConfig, TsdfConfig, make_defender
from tsdf_ray.errors import UserError


@pytest.mark.parametrize(
    ("kind", "config", "says"),
    [
        (
            "foundd",
            {},
            "unknown name 'foundd'; valid names: anti_forgery, cmua, face_poison, found, noise, none, pgd, tsdf",
        ),
        ("found", {"epsilon": -0.1}, r"found\.epsilon"),
        ("found", {"step": 1}, r"found\.step"),
        ("found", {"feature_loss": "mean"}, r"found\.feature_loss"),
        ("tsdf", {"detectors": ["bright"], "poison": {"objective": "hide"}}, r"tsdf\.poison\.objective"),
        ("tsdf", {"detectors": ["bright"], "share": {"fraction": 1.5}}, r"tsdf\.share\.fraction"),
        ("tsdf", {}, "detectors"),
        ("tsdf", {"detectors": ["bright"], "poison": {"detector_weights": {"other": 2}}}, "other"),
    ],
)
def test_mistakes_are_named(kind: str, config: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        make_defender(kind, config)


@pytest.mark.parametrize("kind", sorted(DEFENDERS))
def test_a_config_survives_json(kind: str) -> None:
    config = make_defender(kind, {"detectors": ["bright"]}).config
    again = type(config).model_validate_json(config.model_dump_json())
    assert again == config
    assert make_defender(kind, config).config == config


def test_defaults_follow_epsilon() -> None:
    assert FoundConfig(epsilon=0.08).step == pytest.approx(0.016)
    assert FoundConfig(step_size=0.001).step == 0.001
    assert TsdfConfig(epsilon=0.05, detectors=("d",)).threshold == pytest.approx(0.04)
    assert TsdfConfig(tau=0.0, detectors=("d",)).threshold == 0.0


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError):
        FoundConfig().epsilon = 0.5  # type: ignore[misc]
