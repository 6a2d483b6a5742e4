"""Protections: what a defender adds to photos before they are published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tsdf_ray.defenders.anti_forgery import AntiForgery, AntiForgeryConfig
from tsdf_ray.defenders.base import DefenceState, Defender, DefenderConfig, Knowledge, to_budget
from tsdf_ray.defenders.cmua import Cmua, CmuaConfig
from tsdf_ray.defenders.eot import GradientConfig
from tsdf_ray.defenders.face_poison import FacePoison, FacePoisonConfig
from tsdf_ray.defenders.found import Found, FoundConfig
from tsdf_ray.defenders.interruption import InterruptionConfig
from tsdf_ray.defenders.noise import Noise
from tsdf_ray.defenders.none import NoDefence
from tsdf_ray.defenders.pgd import Pgd, PgdConfig
from tsdf_ray.defenders.poisoning import PoisonConfig
from tsdf_ray.defenders.separation import ShareConfig, separation_mask
from tsdf_ray.defenders.tsdf import Tsdf, TsdfConfig
from tsdf_ray.errors import UserError
from tsdf_ray.registry import look_up

DEFENDERS: dict[str, type[Defender]] = {
    defence.name: defence for defence in (NoDefence, Noise, Pgd, Cmua, AntiForgery, FacePoison, Found, Tsdf)
}
"""Built-in defences by the name a scenario uses (`kind`)."""


def make_defender(kind: str, config: Mapping[str, Any] | DefenderConfig | None = None) -> Defender:
    """The defence called `kind` (built in, or a plug-in's) with its config, checked.

    Raises UserError for an unknown kind (listing the valid ones) and for a config that does not fit it.
    """
    defence = look_up("defenders", kind, DEFENDERS)
    given = config.model_dump() if isinstance(config, DefenderConfig) else dict(config or {})
    try:
        return defence(defence.config_class.model_validate(given))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([kind, *(str(part) for part in first["loc"])])
        raise UserError(f"defender {where}: {first['msg']}") from error


__all__ = [
    "DEFENDERS",
    "AntiForgery",
    "AntiForgeryConfig",
    "Cmua",
    "CmuaConfig",
    "DefenceState",
    "Defender",
    "DefenderConfig",
    "FacePoison",
    "FacePoisonConfig",
    "Found",
    "FoundConfig",
    "GradientConfig",
    "InterruptionConfig",
    "Knowledge",
    "NoDefence",
    "Noise",
    "Pgd",
    "PgdConfig",
    "PoisonConfig",
    "ShareConfig",
    "Tsdf",
    "TsdfConfig",
    "make_defender",
    "separation_mask",
    "to_budget",
]
