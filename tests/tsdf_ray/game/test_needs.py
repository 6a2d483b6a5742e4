"""What a scenario needs beyond the package, and the refusal that names all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tsdf_ray.cli import app
from tsdf_ray.errors import UserError
from tsdf_ray.files import FOLDER, located
from tsdf_ray.game.needs import CELEBA, generator_weights, needs_of, ready
from tsdf_ray.game.plan import Supply, plan
from tsdf_ray.generators.catalogue import family_of, releases_like
from tsdf_ray.generators.weights import locate
from tsdf_ray.scenario import Scenario

BIG = (
    "generator=weights/stargan/200000-G.ckpt",
    "judge=mine.safetensors",
    "faces={source: celeba, path: celeba, size: 256, counts: {defender: 16, attacker: 32, evaluation: 12}}",
    "defenders.tsdf.knowledge=surrogate",
    "defenders.tsdf.surrogate=weights/hisd/gen_00600000.pt",
    "attackers.mtcnn.prepare={detectors: [s3fd]}",
    "evaluation.detectors=[retinaface, dsfd]",
    "detector_weights={dsfd: weights/dsfd.pth}",
)
KEYS = [
    "generator",
    "defenders.tsdf.surrogate",
    "judge",
    "detector_weights.s3fd",
    "detector_weights.dsfd",
    "faces.path",
]
RICH = Supply(64, 8)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(FOLDER, raising=False)


def missing(scenario: Scenario) -> list[str]:
    return [need.key for need in needs_of(scenario) if need.problem is not None]


def test_packaged_things_are_no_needs() -> None:
    assert needs_of(Scenario.load("quickstart")) == []


def test_every_generator_is_named_with_its_key() -> None:
    assert list(generator_weights(Scenario.load("smoke", BIG))) == [
        ("generator", "weights/stargan/200000-G.ckpt"),
        ("defenders.tsdf.surrogate", "weights/hisd/gen_00600000.pt"),
    ]


def test_play_names_everything_that_is_missing_at_once(tmp_path: Path) -> None:
    scenario = tmp_path / "big.yaml"
    scenario.write_text(Scenario.load("smoke", (*BIG, "resources.gpus_per_match=64")).as_yaml())
    out = tmp_path / "run"
    result = CliRunner().invoke(app, ["play", str(scenario), "--out", str(out), "--executor", "inprocess"])
    assert result.exit_code == 2
    lines = [line.strip() for line in result.stderr.splitlines()]
    assert lines[0] == "error: not at hand:"
    assert [line.split(":")[0] for line in lines[1:7]] == KEYS
    for line, words in zip(
        lines[1:],
        (
            ["weights/stargan/200000-G.ckpt", "github.com/yunjey/stargan"],
            ["weights/hisd/gen_00600000.pt", "github.com/imlixinyang/HiSD"],
            ["mine.safetensors", "judge-128"],
            ["not packaged", "sfd_face.pth", "github.com/"],
            ["weights/dsfd.pth", "dsfd_vgg_0.880.pth"],
            ["celeba", "mmlab.ie.cuhk.edu.hk"],
            ["resources.gpus_per_match: 64 asked for"],
            ["current folder", "$TSDF_FILES"],
        ),
        strict=True,
    ):
        for word in words:
            assert word in line
    assert result.stdout == ""
    assert not out.exists()


def test_check_and_one_missing_thing() -> None:
    with pytest.raises(UserError) as error:
        ready(Scenario.load("smoke", ("generator=/no/gen_00600000.pt",)), RICH, plan)
    assert str(error.value) == (
        "generator: no such file or folder: /no/gen_00600000.pt; the official file, from github.com/imlixinyang/HiSD"
    )


def test_files_are_found_in_the_current_folder_and_below_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = Scenario.load("smoke", BIG)
    assert missing(scenario) == KEYS
    mine = tmp_path / "mine"
    for file in ("weights/stargan/200000-G.ckpt", "weights/hisd/gen_00600000.pt", "weights/dsfd.pth"):
        (mine / file).parent.mkdir(parents=True, exist_ok=True)
        (mine / file).write_bytes(b"")
    monkeypatch.setenv(FOLDER, str(mine))
    assert missing(scenario) == ["judge", "detector_weights.s3fd", "faces.path"]
    assert locate("weights/stargan/200000-G.ckpt") == mine / "weights/stargan/200000-G.ckpt"
    assert scenario.weights_of("dsfd") == mine / "weights/dsfd.pth"
    # The current folder comes first, and an absolute path is meant as it is.
    here = tmp_path / "weights" / "dsfd.pth"
    here.parent.mkdir()
    here.write_bytes(b"")
    assert located("weights/dsfd.pth").resolve() == here.resolve()
    assert located("/weights/dsfd.pth") == Path("/weights/dsfd.pth")
    (mine / "celeba").mkdir()
    for name in CELEBA[:-1]:
        (mine / "celeba" / name).mkdir()
    problem = next(need.problem for need in needs_of(scenario) if need.key == "faces.path")
    assert problem == f"{mine / 'celeba'} holds no identity_CelebA.txt"


def test_ready_gives_the_plan() -> None:
    assert ready(Scenario.load("quickstart"), Supply(2, 0), plan).parallel_matches == 2


@pytest.mark.parametrize(
    ("path", "families"),
    [
        ("200000-G.ckpt", ["stargan", "attentiongan"]),
        ("weights/attentiongan/200000-G.ckpt", ["attentiongan"]),
        ("weights.199.pth", ["attgan"]),
        ("attgan/weights.N.pth", ["attgan"]),
        ("gen_00600000.pt", ["hisd"]),
        ("weights.best.pth", []),
        ("200000-D.ckpt", []),
    ],
)
def test_official_files_are_known_by_name(path: str, families: list[Any]) -> None:
    assert [release.family for release in releases_like(path)] == families
    assert family_of(path) == (families[0] if families else None)


def test_the_family_of_packaged_weights() -> None:
    assert family_of("editor-128") == "editor"
