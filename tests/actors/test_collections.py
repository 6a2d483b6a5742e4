"""Jobs over collections, by a real Ray: what they write equals what the plain code computes, and a restart goes on."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from actors.collections import tasks as jobs
from actors.collections.collection import Collection
from actors.collections.data import Job, run
from actors.collections.measure import Measure
from actors.collections.sources import open_source
from tsdf_ray.attackers import prepare
from tsdf_ray.detectors import load_detector
from tsdf_ray.errors import Stopped, UserError
from tsdf_ray.faces import FaceSet, decode, load_photo
from tsdf_ray.faces.parquet import ParquetSource
from tsdf_ray.faces.sample import SAMPLE
from tsdf_ray.faces.source import Tally
from tsdf_ray.game.networks import feature_network
from tsdf_ray.generators import load_family
from tsdf_ray.judges import load_judge
from tsdf_ray.metrics import Evaluator, Stage
from tsdf_ray.photos import LOCATORS
from tsdf_ray.protection import protect as plain_protect
from tsdf_ray.scenario import Scenario

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def faces(count: int) -> pa.Table:
    """Packaged faces with their labels."""
    return pq.ParquetFile(SAMPLE).read_row_group(0).slice(0, count)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos of which one is no photo and one has no face, one larger than the others."""
    root = tmp_path_factory.mktemp("photos") / "in"
    (root / "more").mkdir(parents=True)
    pixels = [decode(cell.as_py(), "sample") for cell in faces(4)["image"]]
    for name, image in zip(("a.png", "b.png", "more/c.png"), pixels, strict=False):
        Image.fromarray(image).save(root / name)
    Image.fromarray(pixels[3]).resize((300, 300)).save(root / "large.jpg", quality=95)
    Image.new("RGB", (150, 100), "grey").save(root / "nobody.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8 not a photo")
    return root


@pytest.fixture(scope="module")
def protected(folder: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """The folder, protected in three parts."""
    out = tmp_path_factory.mktemp("out") / "protected"
    result = jobs.protect(str(folder), str(out), defender="noise", part=2, workers=1)
    assert (result.progress.parts, result.progress.computed, result.progress.photos) == (3, 3, 6)
    assert result.counts == {"protected": 4, "without_face": 1, "bad": 1}
    return out


def rows(out: Path) -> list[dict[str, Any]]:
    parts = sorted(out.glob("part-*.parquet"))
    return pa.concat_tables(pq.read_table(part) for part in parts).to_pylist()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_pixels_and_figures_equal_those_of_the_plain_command(folder: Path, protected: Path, tmp_path: Path) -> None:
    plain = plain_protect(folder, tmp_path / "plain", defender="noise", on_bad="skip")
    expected = {row["photo"]: row for row in plain.table.to_pylist()}
    found = rows(protected)
    assert [row["id"] for row in found] == ["a.png", "b.png", "broken.jpg", "large.jpg", "more/c.png", "nobody.png"]
    for row in found:
        other = expected[row["id"]]
        assert (row["image"] is None) == (other["output"] is None)
        if row["image"] is not None:
            assert (pixels(row["image"]) == load_photo(Path(other["output"]))).all()
            assert (pixels(row["image"]) != load_photo(folder / row["id"])).any()
        for name in ("width", "height", "faces", "psnr", "ssim", "max_delta", "max_steps", "note"):
            assert row[name] == other[name], (row["id"], name)


def test_a_restart_computes_what_is_missing_and_nothing_else(folder: Path, protected: Path, tmp_path: Path) -> None:
    before = rows(protected)
    kept = {path: path.stat().st_mtime_ns for path in protected.iterdir() if path.name != "part-000001.parquet"}
    (protected / "part-000001.parquet").unlink()
    (protected / ".part-000001.parquet.0123.part").write_bytes(b"half a part")
    again = jobs.protect(str(folder), str(protected), defender="noise", part=2, workers=1)
    assert again.progress.computed == 1
    assert rows(protected) == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert jobs.protect(str(folder), str(protected), defender="noise", part=2).progress.computed == 0


@pytest.mark.slow
def test_stopped_in_the_middle_and_taken_up(folder: Path, protected: Path, tmp_path: Path) -> None:
    """On a cluster that is not ours the stopped job may still finish a part while the next one runs."""
    calls = []

    def stop(what: str, done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 3:  # the first is before Ray is asked, the others while it works
            raise Stopped("now")

    settings: dict[str, Any] = {"defender": "noise", "part": 2, "workers": 1}
    with pytest.raises(Stopped):
        jobs.protect(str(folder), str(tmp_path / "out"), **settings, tell=stop)
    again = jobs.protect(str(folder), str(tmp_path / "out"), **settings)
    assert again.counts == {"protected": 4, "without_face": 1, "bad": 1}
    assert rows(tmp_path / "out") == rows(protected)


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"epsilon": 0.1}, "epsilon"), ({"part": 3}, "part: 2 then, 3 now"), ({"faces": "whole"}, "faces")],
)
def test_other_settings_are_refused(folder: Path, protected: Path, changed: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        jobs.protect(str(folder), str(protected), **({"defender": "noise", "part": 2} | changed))


def test_a_changed_source_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(faces(2).select(["id", "image"]), source)

    def stop(what: str, done: int, total: int) -> None:
        raise Stopped("now")

    with pytest.raises(Stopped):
        jobs.protect(str(source), str(tmp_path / "out"), defender="noise", tell=stop)
    pq.write_table(faces(3).select(["id", "image"]), source)
    with pytest.raises(UserError, match=r"content: .* then, .* now"):
        jobs.protect(str(source), str(tmp_path / "out"), defender="noise")


def test_prepare_equals_an_attackers_own(protected: Path, tmp_path: Path) -> None:
    game = Scenario.load("quickstart", ("attackers.mtcnn.prepare.crop=box",))
    out = tmp_path / "crops"
    result = jobs.prepare(str(protected), str(out), scenario=game, attacker="mtcnn", part=2, workers=1)
    assert result.counts["bad"] == 2, "what was not published cannot be prepared"
    published = [row for row in rows(protected) if row["image"] is not None]
    squares = [Image.fromarray(pixels(row["image"])).resize((128, 128), Image.Resampling.BICUBIC) for row in published]
    stacked = np.stack([np.asarray(square) for square in squares]).transpose(0, 3, 1, 2)
    ids = tuple(row["id"] for row in published)
    photos = FaceSet(np.ascontiguousarray(stacked), np.zeros((len(ids), 0), np.uint8), (), ids)
    own = prepare(game.attackers["mtcnn"].prepare, {"mtcnn": load_detector("mtcnn")}, photos)
    found = {row["id"]: row for row in rows(out)}
    assert len(found) == 6
    assert result.counts["usable"] == len(own.used_U) > 0
    for n, name in enumerate(ids):
        assert found[name]["found"] == own.found_N[n]
        box = [found[name][corner] for corner in ("x1", "y1", "x2", "y2")]
        assert box == pytest.approx(own.boxes_N4[n].tolist(), abs=1e-3)
        assert found[name]["score"] == pytest.approx(own.scores_N[n], abs=1e-5)
    for u, n in enumerate(own.used_U):
        crop = pixels(found[ids[n]]["image"]).transpose(2, 0, 1)
        assert np.abs(crop.astype(int) - own.photos.pixels_BCHW[u]).max() <= 1


def test_measure_equals_the_evaluator(tmp_path: Path, ray_cluster: None) -> None:
    """On Parquet with labels: they are carried along, and forgeries are judged."""
    source, out = tmp_path / "clean.parquet", tmp_path / "protected.parquet"
    pq.write_table(faces(6), source, row_group_size=4)
    jobs.protect(str(source), str(out), defender="noise", epsilon=0.1, part=3, workers=1)
    carried = pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("part-*.parquet")))
    labels = [name for name in faces(1).column_names if name not in {"id", "image"}]
    assert carried.select(["id", *labels]).equals(faces(6).select(["id", *labels]).combine_chunks())
    game = Scenario.load("quickstart", ("precision=float32",))
    measured = jobs.measure(
        str(source), str(out), str(tmp_path / "rows"), forgeries=game, workers=1, detectors=LOCATORS
    )
    family = load_family(game.generator).freeze()
    sets = [face_set(path, family.attributes) for path in (source, out)]
    judge = load_judge("judge-128", family.attributes)
    evaluator = Evaluator(judge, {name: load_detector(name) for name in LOCATORS}, sets[0], family)
    tables = [
        evaluator.detection_rows(Stage(1, 1, "detection"), sets[1]),
        evaluator.visibility_rows(Stage(1, 1, "visibility"), sets[1]),
        evaluator.forgery_rows(Stage(1, 0, "transfer"), family, sets[1]),
    ]
    expected = pa.concat_tables(tables).to_pandas()
    keys = ["phase", "model", "metric", "photo", "edit"]
    found = pa.concat_tables(pq.read_table(path) for path in sorted((tmp_path / "rows").glob("part-*.parquet")))
    frame = found.to_pandas()
    assert frame[frame["metric"] == "measured"]["value"].tolist() == [1.0] * 6
    frame = frame[frame["metric"] != "measured"]
    a, b = (table.sort_values(keys).reset_index(drop=True) for table in (frame, expected))
    assert a[keys].equals(b[keys])
    np.testing.assert_allclose(a[["value", "weight"]], b[["value", "weight"]], atol=1e-5)
    summary = {(row["phase"], row["model"], row["metric"]): row for row in measured.summary}
    for key, group in expected.groupby(["phase", "model", "metric"]):
        if group["weight"].sum():
            assert summary[key]["value"] == pytest.approx(group["value"].sum() / group["weight"].sum(), abs=1e-5)
    assert json.loads((tmp_path / "rows" / "_summary.json").read_text()) == measured.summary
    for kind in ("frechet", "kernel"):
        row = summary["transfer", family.name, f"{kind}_judge"]
        assert row["value"] is None
        assert row["reason"].startswith("too few forgeries: a ")


class Corners(torch.nn.Module):
    """A network of four features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).mean(1).flatten(1)


@pytest.mark.slow
@pytest.mark.timeout(900)  # five jobs, each with actors of its own
def test_sets_are_compared_as_by_the_evaluator(tmp_path: Path, ray_cluster: None) -> None:
    """Whatever the number of workers, and after a restart."""
    source, out, network = tmp_path / "clean.parquet", tmp_path / "protected.parquet", tmp_path / "corners.pt"
    pq.write_table(faces(70), source, row_group_size=50)
    torch.jit.save(torch.jit.script(Corners()), str(network))
    jobs.protect(str(source), str(out), defender="noise", epsilon=0.1, part=20, workers=2)
    game = Scenario.load(
        "quickstart",
        ("precision=float32", f"evaluation.feature_network={network}", "evaluation.feature_side=64"),
    )

    def measured(name: str, workers: int) -> jobs.Measured:
        return jobs.measure(
            str(source), str(out), str(tmp_path / name), forgeries=game, workers=workers, detectors=("mtcnn",)
        )

    one, two = measured("one", 1), measured("two", 2)
    assert one.summary == two.summary
    found = {row["metric"]: row for row in one.summary}
    family = load_family(game.generator).freeze()
    sets = [face_set(path, family.attributes) for path in (source, out)]
    judge, features = load_judge(game.judge, family.attributes), feature_network(game.evaluation)
    rows = Evaluator(judge, {}, sets[0], family, features=features).forgery_rows(Stage(1, 0, "before"), family, sets[1])
    frame = rows.to_pandas()
    for metric in ("frechet_corners", "kernel_corners"):
        pseudo = frame[frame["metric"] == metric]["value"]
        assert len(pseudo) == 70
        assert found[metric]["value"] == pytest.approx(pseudo.mean(), rel=1e-3)
        assert found[metric]["high"] - found[metric]["low"] == pytest.approx(3.92 * pseudo.sem(), rel=1e-3)
        assert found[metric]["n"] == 70
        assert found[metric]["value"] > 0
    assert found["frechet_corners"]["phase"] == "transfer"
    assert found["frechet_corners"]["model"] == found["sr_mask"]["model"] == family.name

    # A part that is not there is made again with what lies beside it; alone, that is missed.
    folder = tmp_path / "two"
    (folder / "part-000001.parquet").unlink()
    (folder / "_part-000001.safetensors").unlink()
    again = measured("two", 1)
    assert (again.progress.computed, again.progress.parts) == (1, 4)
    assert again.summary == one.summary
    (folder / "_part-000002.safetensors").unlink()
    with pytest.raises(UserError, match=r"_part-000002.safetensors: is missing; remove .*part-000002.parquet too"):
        measured("two", 1)


def face_set(path: Path, attributes: tuple[str, ...]) -> FaceSet:
    """All faces of a Parquet source, by the reader that games use."""
    source = ParquetSource(path, Tally("stop"))
    index = source.index(attributes)
    images = dict(source.read(index.ids))
    stacked = np.stack([decode(images[name](), name).transpose(2, 0, 1) for name in index.ids])
    return FaceSet(stacked, index.labels_NA, attributes, index.ids)


def test_a_worker_that_cannot_be_made_is_one_error(folder: Path, tmp_path: Path) -> None:
    """Not Ray's traceback: in a worker's process is where a file that is missing on its node shows."""
    source, out = open_source(str(folder), 10, frozenset()), Collection(str(tmp_path / "out"))
    with pytest.raises(UserError, match="unknown name 'nosuch'; valid names: ") as error:
        run(Job("measure", Measure, ({"nosuch": None}, 64, None)), source.readings, out, workers=1)
    assert "Traceback" not in str(error.value)


def test_a_mistake_claims_no_folder(folder: Path, protected: Path, tmp_path: Path) -> None:
    """The same command without the mistake would be refused there: other settings."""
    out = tmp_path / "out"
    for mistake in ({"epsilon": 5.0}, {"defender": "nosuch"}, {"attacker": "mtcnn"}):
        with pytest.raises(UserError, match="|".join(mistake)):
            jobs.protect(str(folder), str(out), **mistake)
    with pytest.raises(UserError, match=r"no column 'Black_Hair'.*leave --forgeries out"):
        jobs.measure(str(folder), str(protected), str(out), forgeries="quickstart")
    for detector in ("nosuch", "s3fd"):  # s3fd has no packaged weights
        with pytest.raises(UserError, match=detector):
            jobs.measure(str(folder), str(protected), str(out), detectors=(detector,))
    with pytest.raises(UserError, match="nosuch"):
        jobs.prepare(str(folder), str(out), attacker="nosuch")
    assert not out.exists()


def test_the_cluster_is_the_one_that_every_command_joins(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RAY_ADDRESS counts, `local` is a cluster of our own, and a wrong one shows before anything is written."""
    joined: list[str | None] = []
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("actors.cluster.check_listening", joined.append)
    monkeypatch.setattr(jobs, "open_source", lambda *words: (_ for _ in ()).throw(UserError("far enough")))
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    for address in (None, "other:6379", "local"):
        with pytest.raises(UserError, match="far enough"):
            jobs.prepare(str(folder), str(tmp_path / "out"), attacker="mtcnn", address=address)
    assert joined == ["head:6379", "other:6379"]
    with pytest.raises(UserError, match="is a dashboard"):
        jobs.prepare(str(folder), str(tmp_path / "out"), attacker="mtcnn", address="http://head:8265")


def test_a_folder_belongs_to_one_job(folder: Path, protected: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{protected}: holds what 'protect' wrote; give another folder"):
        jobs.measure(str(folder), str(protected), str(protected))
    with pytest.raises(UserError, match=f"^{protected}: holds a collection's Parquet"):
        plain_protect(folder, protected, defender="noise", on_bad="skip")
    assert not list(protected.glob("*.png"))


def test_more_workers_than_cpus(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--workers 99"):
        jobs.protect(str(folder), str(tmp_path / "other"), defender="noise", workers=99)
