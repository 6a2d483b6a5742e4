"""The scenario: everything that decides a race, and nothing that does not.

Sections that belong to a room are that room's config classes; here stand only the race itself and its measurement.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from tsdf_ray.channels import ChannelConfig, NoChannel
from tsdf_ray.detectors import DETECTORS
from tsdf_ray.detectors.base import MAX_SIDE
from tsdf_ray.errors import UserError
from tsdf_ray.faces import FacesConfig
from tsdf_ray.files import located
from tsdf_ray.registry import look_up
from tsdf_ray.scenario.entries import AttackerEntry, DefenderEntry
from tsdf_ray.scenario.resources import Resources
from tsdf_ray.scenario.search import SearchConfig
from tsdf_ray.scenario.strict import Strict


def _role_name(name: str) -> str:
    # Names become folder names and parts of match ids: `DEFENDER-vs-ATTACKER-sSEED`.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.]{0,39}", name):
        raise PydanticCustomError(
            "name",
            "name {name!r}: use letters, digits, '_' and '.', at most 40, first a letter or digit",
            {"name": name},
        )
    return name


RoleName = Annotated[str, AfterValidator(_role_name)]


def _known(room: str, name: str, table: Mapping[str, Any]) -> None:
    try:
        look_up(f"{room}s", name, table)
    except UserError as error:
        raise PydanticCustomError(room, "{message}", {"message": str(error), "path": [f"{room}s"]}) from error


class Evaluation(Strict):
    """What is measured, and how sure we want to be."""

    detectors: tuple[str, ...] = Field(
        ("retinaface", "mtcnn"), description="detectors that judge every published photo"
    )
    generators: tuple[str, ...] = Field(
        (), description="further generators on which every w is judged: packaged weights or files, never retrained"
    )
    decay: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.0, 0.1, 0.25, 0.5, 1.0), description="shares of a round's retraining steps at which w_r is judged"
    )
    references: tuple[str, ...] = Field(
        ("none", "noise"), description="defences that need no learning, judged against every G_r beside the defender"
    )
    resamples: int = Field(1000, ge=100, le=100_000, description="bootstrap resamples of every interval")
    samples: int = Field(4, ge=1, le=32, description="photos shown in the report")
    feature_network: str | None = Field(
        None,
        description="TorchScript file whose features compare sets of forgeries (an Inception for FID, KID); it takes "
        "float32 [B, 3, S, S] in [-1, 1], RGB, and gives [B, D]; default: the judge's features",
    )
    feature_side: int = Field(299, ge=8, le=2048, description="S of the feature network, in pixels")
    identity: str | None = Field(
        None, description="TorchScript file of a face recognition network, same input: identity of forgery and photo"
    )
    identity_side: int = Field(112, ge=8, le=2048, description="S of the identity network, in pixels")
    lpips: str | None = Field(
        None, description="torchvision's alexnet-owt-7be5be79.pth: LPIPS of published against clean photos"
    )

    @model_validator(mode="after")
    def _check(self) -> Evaluation:
        for name in self.detectors:
            _known("detector", name, DETECTORS)
        for name in self.references:
            if name not in {"none", "noise"}:
                raise PydanticCustomError(
                    "reference", "unknown name {name}; valid names: none, noise", {"name": name, "path": ["references"]}
                )
        if self.feature_network is not None and Path(self.feature_network).stem == "judge":
            text = "its metrics would be called as the judge's own; rename the file"
            raise PydanticCustomError("network", "{text}", {"text": text, "path": ["feature_network"]})
        if list(self.decay) != sorted(set(self.decay)) or self.decay[:1] != (0.0,) or self.decay[-1] != 1.0:
            raise PydanticCustomError("decay", "must rise from 0 to 1", {"path": ["decay"]})
        return self


class Scenario(Strict):
    """A race: every defender plays every attacker, once per seed, over some rounds."""

    name: str = Field(min_length=1, max_length=200, description="shown in the report")
    title: str = Field("", max_length=500, description="one line on what the scenario asks")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field((0,), min_length=1, description="one race each")
    rounds: int = Field(3, ge=1, le=1000, description="of every match: learn, publish, collect, retrain, judge")
    threads: int = Field(1, ge=1, le=256, description="CPU threads of every role; part of the result on a CPU")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of generator passes; bfloat16 (autocast) is faster, and turns some signs of large networks' "
        "gradients: `bench ensemble` says how many",
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="photos of a learning or training batch that are computed at once (their gradients are added in "
        "order); workers of a role share a batch's micro-batches; none: the batch undivided",
    )
    faces: FacesConfig = Field(default_factory=FacesConfig, description="photos, and who gets how many")
    publish: ChannelConfig = Field(default_factory=NoChannel, description="what publication does to a photo")
    generator: str = Field("editor-128", description="packaged weights or a file; every attacker starts from it")
    judge: str = Field("judge-128", description="packaged weights or a file; no player loads it")
    detector_weights: dict[str, str] = Field(
        default_factory=dict, description="detector to a file of yours, in place of packaged weights or where none are"
    )
    defenders: dict[RoleName, DefenderEntry] = Field(min_length=1, description="protections by name")
    attackers: dict[RoleName, AttackerEntry] = Field(min_length=1, description="deepfake makers by name")
    evaluation: Evaluation = Field(Evaluation(), description="what is measured")
    resources: Resources = Field(Resources(), description="what one match may take")
    search: SearchConfig | None = Field(None, description="what `tsdf-ray tune` searches; `play` leaves it alone")

    @model_serializer(mode="wrap")
    def _without_what_is_none(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A scenario without a search or micro-batches says nothing of them, and keeps its digest."""
        content: dict[str, Any] = plain(self)
        for name in ("search", "micro_batch"):
            if getattr(self, name) is None:
                content.pop(name, None)
        return content

    @model_validator(mode="after")
    def _names_and_seeds(self) -> Scenario:
        if len(set(self.seeds)) != len(self.seeds):
            raise PydanticCustomError("seeds", "a seed is given twice; keep one", {"path": ["seeds"]})
        errors: list[InitErrorDetails] = []
        searched = self.search.texts if self.search is not None else set()
        for detector in sorted(set(self.detector_weights) - set(self.detectors) - searched):
            kind = PydanticCustomError("detector", "no player and no evaluation names this detector; remove it")
            errors.append(InitErrorDetails(type=kind, loc=("detector_weights", detector), input=detector))
        for name, entry in self.defenders.items():
            if entry.surrogate == self.generator:
                text = "is the attackers' own `generator`; for that, use `knowledge: initial`"
                kind = PydanticCustomError("surrogate", "{text}", {"text": text})
                where = ("defenders", name, "surrogate")
                errors.append(InitErrorDetails(type=kind, loc=where, input=entry.surrogate))
        players = [("defenders", name, entry.config.detectors) for name, entry in self.defenders.items()]
        players += [("attackers", name, attacker.prepare.detectors) for name, attacker in self.attackers.items()]
        for section, name, detectors in players:
            for detector in detectors:
                try:
                    look_up("detectors", detector, DETECTORS)
                except UserError as error:
                    kind = PydanticCustomError("detector", "{message}", {"message": str(error)})
                    where = (section, name, *(("prepare",) if section == "attackers" else ()), "detectors")
                    errors.append(InitErrorDetails(type=kind, loc=where, input=detector))
        for name, attacker in self.attackers.items():
            enlarge = attacker.prepare.enlarge
            if attacker.prepare.detectors and round(enlarge * self.faces.size) > MAX_SIDE:
                kind = PydanticCustomError(
                    "enlarge",
                    "{enlarge} makes {size} px photos larger than the {most} px detectors take; lower it",
                    {"enlarge": enlarge, "size": self.faces.size, "most": MAX_SIDE},
                )
                errors.append(InitErrorDetails(type=kind, loc=("attackers", name, "prepare", "enlarge"), input=enlarge))
        if not errors and self.search is not None:
            # It builds scenarios with other values, so it cannot be known here before a scenario is.
            from tsdf_ray.scenario.search_checks import check_search

            errors = check_search(self)
        if errors:
            raise ValidationError.from_exception_data("Scenario", errors)
        return self

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every (defender, attacker), in the order of the file."""
        return [(defender, attacker) for defender in self.defenders for attacker in self.attackers]

    @property
    def detectors(self) -> list[str]:
        """Every detector a defender knows, an attacker prepares with or the evaluator looks with, once each."""
        named = [*(entry.config.detectors for entry in self.defenders.values())]
        named += [attacker.prepare.detectors for attacker in self.attackers.values()]
        return list(dict.fromkeys(name for names in (*named, self.evaluation.detectors) for name in names))

    def weights_of(self, detector: str) -> Path | None:
        """The user's file for a detector, None for its packaged weights."""
        given = self.detector_weights.get(detector)
        return None if given is None else located(given)

    def as_json(self) -> str:
        """Canonical JSON with all defaults filled: what roles are built from and the digest is taken of."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def as_yaml(self) -> str:
        """The scenario as played, defaults filled; loads to an equal scenario."""
        # Escapes for all but ASCII: PyYAML writes U+0085 as it is and reads it back as a line break.
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()

    @staticmethod
    def load(source: str | Path, changes: tuple[str, ...] = ()) -> Scenario:
        """A packaged scenario by name, or a file; `changes` are `dotted.key=value` (values are YAML).

        Raises UserError naming file, line, key and the remedy.
        """
        from tsdf_ray.scenario.load import load_scenario

        return load_scenario(source, changes)
