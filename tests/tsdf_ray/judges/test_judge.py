"""The judge: edit semantics, safe loading, accuracy, and that no player can reach it."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import tsdf_ray
from tsdf_ray.digest import array_digest
from tsdf_ray.errors import UserError
from tsdf_ray.faces.edits import all_edits
from tsdf_ray.faces.sample import SAMPLE
from tsdf_ray.judges import JUDGED, AttributeScores, Judge, JudgeNet, attackers_judge, load_judge, save_judge
from tsdf_ray.judges.judge import PACKAGED

CARD = json.loads((PACKAGED / "judge-128.json").read_text())


class Painted(JudgeNet):
    """Reads its logits off the first pixels of the red channel, so that a test decides what the judge sees."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return 10 * x_BCHW[:, 0, 0, : len(JUDGED)]


def painted(*logits: tuple[float, float, float, float]) -> torch.Tensor:
    x = torch.zeros(len(logits), 3, 8, 8)
    x[:, 0, 0, :4] = torch.tensor(logits)
    return x


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


def test_hair_edit_succeeds_for_the_likeliest_colour_and_other_edits_by_presence() -> None:
    judge = Judge(Painted())
    # The judge sees a blond woman, a brown-haired man, a black-haired woman; all were black-haired men before.
    seen = painted((0.1, 0.9, 0.2, -0.5), (0.3, 0.2, 0.9, 0.5), (0.9, 0.8, 0.1, -0.1))
    edits = all_edits(torch.tensor([[1.0, 0.0, 0.0, 1.0]] * 3), JUDGED)
    asked = [JUDGED[a] for a in edits.attribute_P.tolist()]
    assert asked == ["Blond_Hair", "Brown_Hair", "Male"] * 3
    success = judge.succeeds(seen[edits.photo_P], edits.attribute_P, edits.target_PA)
    assert success.tolist() == [True, False, True, False, True, False, False, False, True]


def test_hair_score_alone_does_not_make_success() -> None:
    judge = Judge(Painted())
    brown = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    assert judge.succeeds(painted((0.0, 0.0, 0.01, 0.0)), torch.tensor([2]), brown).item()
    assert not judge.succeeds(painted((0.0, 0.92, 0.9, 0.0)), torch.tensor([2]), brown).item()


def test_attributes_in_the_order_of_the_photos() -> None:
    judge = Judge(Painted(), ("Male", "Brown_Hair"))
    seen = painted((0.0, 0.1, 0.9, -0.9))
    assert judge.succeeds(seen, torch.tensor([1]), torch.tensor([[1.0, 1.0]])).item()
    assert not judge.succeeds(seen, torch.tensor([0]), torch.tensor([[1.0, 0.0]])).item()


def test_scores_are_probabilities_at_any_size(judge: Judge) -> None:
    rng = torch.Generator().manual_seed(3)
    for size in (64, 96, 128, 200):
        scores = judge.predict(torch.rand(2, 3, size, size, generator=rng) * 2 - 1)
        assert isinstance(scores, AttributeScores)
        torch.testing.assert_close(scores.hair_BH.sum(1), torch.ones(2))
        assert ((scores.male_B >= 0) & (scores.male_B <= 1)).all()
        assert (scores.labels()[:, :3].sum(1) == 1).all()


def test_packaged_judge_is_the_one_of_its_card(judge: Judge) -> None:
    assert judge.digest == CARD["digest"]
    assert not any(p.requires_grad for p in judge.parameters())
    assert (PACKAGED / "judge-128.safetensors").stat().st_size <= 3 << 20


def test_saved_judge_comes_back(tmp_path: Path) -> None:
    network = JudgeNet()
    save_judge(tmp_path / "j.safetensors", network)
    again = load_judge(str(tmp_path / "j.safetensors"))
    assert again.digest == array_digest(network.state_dict())


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    tensors = load_file(PACKAGED / "judge-128.safetensors")
    path = tmp_path / "j.safetensors"
    save_file(tensors, path, {"kind": "judge", "digest": CARD["digest"]})
    assert load_judge(str(path)).digest == CARD["digest"]
    tensors["head.1.bias"][0] += 1e-3
    save_file(tensors, path, {"kind": "judge", "digest": CARD["digest"]})
    with pytest.raises(UserError, match="changed or damaged"):
        load_judge(str(path))


def test_files_that_are_no_judge(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'nobody'.*packaged: .*judge-128"):
        load_judge("nobody")
    html = tmp_path / "j.safetensors"
    html.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_judge(str(html))
    save_file({"w": torch.zeros(2)}, html, {"family": "editor"})
    with pytest.raises(UserError, match="not a judge's file"):
        load_judge(str(html))
    save_file({"w": torch.zeros(2)}, html, {"kind": "judge", "digest": ""})
    with pytest.raises(UserError, match=r"tensor 'head\.1\.bias': expected shape \(4,\), found None"):
        load_judge(str(html))


def test_accuracy_on_the_sample_is_what_the_card_states(judge: Judge) -> None:
    """A little slack: image codecs and CPUs round differently."""
    table = pq.read_table(SAMPLE, filters=[("split", "=", "evaluation")]).to_pydict()
    photos = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in table["image"]])
    x = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 127.5 - 1
    right = judge.predict(x).labels().numpy() == np.array([table[name] for name in JUDGED], dtype=np.uint8).T
    stated = CARD["sample_evaluation"]
    assert len(right) == stated["photos"]
    assert right[:, :3].all(1).mean() >= stated["hair"] - 0.01
    assert right[:, 3].mean() >= stated["Male"] - 0.01


@pytest.mark.assets
def test_accuracy_on_held_out_celeba_photos(judge: Judge, assets: Path) -> None:
    """200 photos of CelebA's test partition: within three standard errors of what the card states for all 800."""
    folder = assets / "celeba-8k"
    part = dict(line.split() for line in (folder / "list_eval_partition.txt").read_text().splitlines())
    lines = (folder / "list_attr_celeba.txt").read_text().splitlines()
    columns = [lines[1].split().index(name) + 1 for name in JUDGED]
    rows = [line.split() for line in lines[2:]]
    rows = [row for row in rows if part[row[0]] == "2"][::4]
    labels = np.array([[row[c] == "1" for c in columns] for row in rows], dtype=np.uint8)
    photos = []
    for row in rows:
        with Image.open(folder / "img_align_celeba" / row[0]) as photo:
            photos.append(np.asarray(photo.convert("RGB").resize((128, 128), 1, box=(0, 20, 178, 198))))
    x = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float() / 127.5 - 1
    right = judge.predict(x).labels().numpy() == labels
    assert len(right) == 200
    for name, rate in (("hair", right[:, :3].all(1).mean()), ("Male", right[:, 3].mean())):
        stated = CARD["celeba_test"][name]
        assert rate >= stated - 3 * (stated * (1 - stated) / 200) ** 0.5


def imported(path: Path) -> set[str]:
    """Absolute names of what a module imports (the project has no relative imports of its judges)."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_no_player_reaches_the_judge() -> None:
    """Transitively: nothing that defenders, attackers, generators or detectors import leads to tsdf_ray.judges."""
    root = Path(tsdf_ray.__file__).parent
    modules = {}
    for path in root.rglob("*.py"):
        parts = ("tsdf_ray", *path.relative_to(root).with_suffix("").parts)
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    players = ("tsdf_ray.defenders", "tsdf_ray.attackers", "tsdf_ray.generators", "tsdf_ray.detectors")
    pending = [name for name in modules if name.startswith(players)]
    assert len(pending) > 15
    reached: set[str] = set()
    while pending:
        name = pending.pop()
        if name in reached:
            continue
        reached.add(name)
        pending += [other for other in imported(modules[name]) if other in modules]
    assert "tsdf_ray.faces.faceset" in reached, "the walk follows imports"
    assert not [name for name in reached if name.startswith("tsdf_ray.judges")]
    assert "tsdf_ray.judges" in imported(modules["tsdf_ray.game.evaluator"]), "the evaluator alone loads it"


def test_it_says_which_edits_it_cannot_judge() -> None:
    judge = Judge(Painted(), ("Young", "Male"))
    assert judge.knows(torch.tensor([0, 1, 0])).tolist() == [False, True, False]
    seen, target_PA = painted((0.9, 0.1, 0.1, 0.5), (0.9, 0.1, 0.1, 0.5)), torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert judge.succeeds(seen, torch.tensor([0, 1]), target_PA).tolist() == [False, True]


def test_an_attackers_generator_that_cannot_be_judged_is_refused() -> None:
    assert attackers_judge("judge-128", ("Young", "Male")).attributes == ("Young", "Male")
    with pytest.raises(UserError, match=r"judge judge-128: knows Black_Hair.*the generator edits Eyeglasses"):
        attackers_judge("judge-128", ("Eyeglasses",))
