"""What a match takes of a machine or a cluster: nothing of it decides a result."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from tsdf_ray.scenario.strict import Strict


class Workers(Strict):
    """How many workers each role has: more than one form a group that shares the role's work."""

    defender: int = Field(1, ge=1, le=1024, description="share micro-batches, generators of an ensemble, and photos")
    attacker: int = Field(1, ge=1, le=1024, description="share the micro-batches of a training step")
    evaluator: int = Field(1, ge=1, le=1024, description="share the evaluation photos")


class Resources(Strict):
    """What one match takes from the machine or cluster; its three roles share it."""

    cpus_per_match: float = Field(1.0, gt=0, le=1024, description="CPUs reserved by one match")
    gpus_per_match: float = Field(0.0, ge=0, le=64, description="GPUs reserved by one match: 0, 1/4, 1/2, or whole")
    parallel_matches: int | None = Field(
        None, ge=1, description="at most so many matches at once; default: all that fit"
    )
    workers: Workers = Field(Workers(), description="workers of each role of a match")
    placement: Literal["colocated", "spread"] = Field(
        "colocated",
        description="colocated: the roles of a match are kept close and take turns on its GPUs; spread: defender and "
        "attacker sit on nodes of their own",
    )
    wait_seconds: float = Field(600.0, gt=0, le=1e6, description="longest wait for a cluster's resources, in seconds")
    step_seconds: float | None = Field(
        None,
        gt=0,
        le=1e7,
        description="a step that takes longer counts as hung: its role is built anew; none: no limit",
    )

    @model_serializer(mode="wrap")
    def _without_defaults(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that came later are left out at their defaults, and scenarios without them keep their digests."""
        content: dict[str, Any] = plain(self)
        for name in ("workers", "placement", "wait_seconds", "step_seconds"):
            if getattr(self, name) == type(self).model_fields[name].default:
                content.pop(name, None)
        return content

    @model_validator(mode="after")
    def _gpu_share(self) -> Resources:
        gpus = self.gpus_per_match
        if gpus not in {0.0, 0.25, 0.5} and gpus != int(gpus):
            raise PydanticCustomError(
                "gpus", "must be 0, 0.25, 0.5 or a whole number, not {g}", {"g": gpus, "path": ["gpus_per_match"]}
            )
        return self
