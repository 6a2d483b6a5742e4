"""Every mistake in a scenario is one message that names file, line or key, and the remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tsdf_ray.errors import UserError
from tsdf_ray.scenario import Scenario

GOOD = """\
name: mine
rounds: 2
faces:
  source: sample
  counts: {defender: 8, attacker: 16, evaluation: 8}
publish: {kind: jpeg, quality: 90}
defenders:
  found:
    kind: found
    epsilon: 0.05
  tsdf:
    kind: tsdf
    detectors: [retinaface]
attackers:
  plain:
    prepare: {detectors: [mtcnn]}
    purify: {train: [{kind: blur, sigma: 1.0}]}
evaluation:
  detectors: [retinaface]
"""


def message(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        Scenario.load(path)
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_the_scenario_the_mistakes_are_made_in_is_good(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD, encoding="utf-8")
    scenario = Scenario.load(path)
    assert scenario.rounds == 2
    assert scenario.defenders["tsdf"].config.detectors == ("retinaface",)


CASES = {
    "a number for a section": ("rounds: 2", "resources: {workers: 2}", 2, ["workers: must be a section", "attacker"]),
    "an empty list": ("rounds: 2", "seeds: []", 2, ["seeds: must have at least 1 item, not 0"]),
    "unknown key": ("rounds: 2", "roundz: 2", 2, ["roundz", "unknown key", "'rounds'", "seeds"]),
    "unknown key in a section": ("source: sample", "sauce: sample", 4, ["faces.sauce", "'source'", "on_bad"]),
    "unknown key of a defender": ("    epsilon: 0.05", "    epsilom: 0.05", 10, ["epsilom", "'epsilon'", "epochs"]),
    "unknown key of an attacker": ("prepare: {det", "prepared: {det", 16, ["attackers.plain.prepared", "'prepare'"]),
    "unknown key of a channel": ("quality: 90", "qualty: 90", 6, ["publish.qualty", "'quality'"]),
    "unknown key in a list": ("sigma: 1.0", "sigmo: 1.0", 17, ["attackers.plain.purify.train.0.sigmo", "'sigma'"]),
    "a place of purification that is none": ("{train:", "{training:", 17, ["purify.training", "'train'", "inference"]),
    "a purification that is none": ("kind: blur, sigma: 1.0", "kind: denoize", 17, ["Did you mean 'denoise'", "tv"]),
    "a denoiser without photos to learn on": (
        "kind: blur, sigma: 1.0",
        "kind: denoise",
        17,
        ["attackers.plain.purify", "collect.own"],
    ),
    "a denoiser inside a subtraction without photos": (
        "kind: blur, sigma: 1.0",
        "kind: subtract, denoised: {kind: denoise}",
        17,
        ["attackers.plain.purify", "collect.own"],
    ),
    "subtraction after a crop": (
        "[mtcnn]}\n    purify: {train: [{kind: blur, sigma: 1.0}]}",
        "[mtcnn], crop: box}\n    purify: {train: [{kind: subtract}]}",
        17,
        ["attackers.plain.purify.train", "purify.prepare"],
    ),
    "key of another kind": ("    epsilon: 0.05", "    beta: 5", 10, ["defenders.found.beta", "unknown key"]),
    "wrong type": ("rounds: 2", "rounds: two", 2, ["rounds", "integer", "'two'"]),
    "text where a section belongs": ("{defender: 8, attacker: 16, evaluation: 8}", "many", 5, ["faces.counts", "many"]),
    "decay that falls": ("evaluation:\n", "evaluation:\n  decay: [0, 1, 0.5]\n", 19, ["evaluation.decay", "rise"]),
    "a seed twice": ("rounds: 2", "seeds: [1, 1]", 2, ["seeds", "twice"]),
    "odd share of a GPU": ("rounds: 2", "resources: {gpus_per_match: 0.3}", 2, ["resources.gpus_per_match", "0.25"]),
    "out of range": ("rounds: 2", "rounds: 0", 2, ["rounds", "greater than or equal to 1", "0"]),
    "negative epsilon": ("epsilon: 0.05", "epsilon: -0.05", 10, ["defenders.found.epsilon", "or equal to 0", "-0.05"]),
    "epsilon not a number": ("epsilon: 0.05", "epsilon: .nan", 10, ["defenders.found.epsilon", "nan"]),
    "duplicate key": ("rounds: 2", "rounds: 2\nrounds: 3", 3, ["'rounds'", "twice", "keep one"]),
    "duplicate defender": ("  tsdf:\n    kind: tsdf", "  found:\n    kind: tsdf", 11, ["'found'", "twice"]),
    "unknown defender": (
        "kind: found",
        "kind: fond",
        9,
        ["defenders.found.kind", "'fond'", "anti_forgery, cmua, face_poison, found, noise, none, pgd, tsdf"],
    ),
    "unknown detector of a defender": (
        "[retinaface]\natt",
        "[retina]\natt",
        13,
        ["tsdf.detectors", "'retina'", "mtcnn, retinaface"],
    ),
    "unknown detector of an attacker": ("[mtcnn]", "[mtcn]", 16, ["attackers.plain.prepare", "'mtcn'", "mtcnn"]),
    "unknown detector of the evaluation": (
        "evaluation:\n  detectors: [retinaface]",
        "evaluation:\n  detectors: [face]",
        19,
        ["evaluation.detectors", "'face'", "mtcnn, retinaface"],
    ),
    "unknown channel": ("kind: jpeg", "kind: jpg", 6, ["publish.kind", "'jpg'", "Did you mean 'jpeg'", "blur"]),
    "kind left out": ("kind: jpeg, ", "", 6, ["publish.kind", "missing"]),
    "defender without a kind": ("    kind: found\n", "", 8, ["defenders.found", "`kind`", "tsdf"]),
    "surrogate not named": (
        "    epsilon: 0.05",
        "    knowledge: surrogate",
        8,
        ["defenders.found", "needs `surrogate`"],
    ),
    "surrogate that does not count": (
        "    epsilon: 0.05",
        "    surrogate: other.safetensors",
        10,
        ["defenders.found.surrogate", "knowledge: surrogate"],
    ),
    "unknown level of knowledge": (
        "    epsilon: 0.05",
        "    knowledge: all",
        10,
        ["defenders.found.knowledge", "'last_round', 'initial' or 'surrogate'"],
    ),
    "unknown channel to learn through": (
        "    epsilon: 0.05",
        "    eot: [{kind: jpg}]",
        10,
        ["defenders.found.eot.0.kind", "'jpg'", "Did you mean 'jpeg'"],
    ),
    "a name that is no folder name": ("  plain:", "  ../plain:", 15, ["letters, digits"]),
    "a required key left out": ("name: mine\n", "", None, ["name", "missing"]),
}


@pytest.mark.parametrize("case", CASES)
def test_mistake(case: str, tmp_path: Path) -> None:
    old, new, line, words = CASES[case]
    found = message(tmp_path, changed(old, new))
    where = f"{tmp_path / 'mine.yaml'}:{line}:" if line else str(tmp_path / "mine.yaml")
    assert where in found, found
    for word in words:
        assert word in found, found
    assert "pydantic" not in found


def test_photos_enlarged_beyond_what_detectors_take(tmp_path: Path) -> None:
    text = changed("  source: sample", "  size: 256").replace("[mtcnn]}", "[mtcnn], enlarge: 5}")
    found = message(tmp_path, text)
    assert "mine.yaml:16: attackers.plain.prepare.enlarge: 5.0 makes 256 px photos larger than the 1024 px" in found


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    found = message(
        tmp_path, GOOD.replace("rounds: 2", "rounds: 0").replace("epsilon: 0.05", "epsilon: 7\n    batch: 0")
    )
    lines = found.splitlines()
    assert len(lines) == 3
    for line, key in zip(lines, ["rounds", "defenders.found.epsilon", "defenders.found.batch"], strict=True):
        assert key in line


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_empty_file(text: str, tmp_path: Path) -> None:
    assert re.search(r"mine\.yaml: is empty.*quickstart", message(tmp_path, text))


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "17\n"])
def test_a_file_that_is_no_mapping(text: str, tmp_path: Path) -> None:
    assert "mapping" in message(tmp_path, text)


def test_missing_file_names_what_exists(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: cannot be read"):
        Scenario.load(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match=r"Did you mean 'quickstart'"):
        Scenario.load("quickstrat")
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    with pytest.raises(UserError, match="not a file"):
        Scenario.load(folder)


def test_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "photo.yaml"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="not UTF-8"):
        Scenario.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("rounds", ["dotted.key=value"]),
        ("=3", ["dotted.key=value"]),
        ("rounds=many", ["--set rounds=many: rounds", "integer"]),
        ("roundz=3", ["--set roundz=3: roundz", "Did you mean 'rounds'"]),
        ("rounds.deep=3", ["--set rounds.deep=3", "rounds is not a section"]),
        ("seeds=[1", ["--set seeds=[1", "not valid YAML"]),
        ("defenders.found.epsilon=-1", ["--set defenders.found.epsilon=-1: defenders.found.epsilon"]),
    ],
)
def test_mistakes_in_a_change(change: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        Scenario.load("quickstart", (change,))
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_changes_are_applied_in_order() -> None:
    scenario = Scenario.load(
        "quickstart", ("rounds=2", "rounds=1", "defenders.found.epsilon=0.03", "publish={kind: jpeg, quality: 75}")
    )
    assert scenario.rounds == 1
    assert scenario.defenders["found"].config.epsilon == 0.03
    assert scenario.publish.model_dump() == {"kind": "jpeg", "quality": 75}
