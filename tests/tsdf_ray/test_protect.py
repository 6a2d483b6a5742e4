"""`protect`: the budget, the pixels outside, the files, and every way it can go wrong."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from typer.testing import CliRunner

from tsdf_ray import protection as module
from tsdf_ray.armour import Armour
from tsdf_ray.cli import app
from tsdf_ray.defenders.base import DefenceState, Defender, DefenderConfig, Knowledge
from tsdf_ray.detectors import Boxes
from tsdf_ray.errors import MatchFailed, Stopped, UserError
from tsdf_ray.faces import FaceSet, load_photo
from tsdf_ray.protection import protect
from tsdf_ray.regions import frame
from tsdf_ray.testing.tiny import tiny_editor, tiny_faces

SIZE = 32


class Sharp(Defender):
    """A fixed pattern far outside every budget: universal, or another one per photo."""

    name: ClassVar[str] = "sharp"
    config_class: ClassVar[type[DefenderConfig]] = DefenderConfig

    def learn(self, knowledge: Knowledge) -> DefenceState:
        return DefenceState(knowledge)

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        rng = torch.Generator().manual_seed(3)
        return torch.randn(1, 3, photos.size, photos.size, generator=rng) * 9


class SharpEach(Sharp):
    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        signs = torch.tensor([1.0 if int(name.split("#")[1]) % 2 == 0 else -1.0 for name in photos.ids])
        return signs[:, None, None, None] * torch.ones(len(photos), 3, photos.size, photos.size)


class Broken(Sharp):
    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        return torch.full((1, 3, photos.size, photos.size), torch.nan)


def armour(kind: type[Defender] = Sharp, epsilon: float = 0.05) -> Armour:
    family = tiny_editor(0)
    family.freeze()
    knowledge = Knowledge(0, 1, {family.name: family}, {}, tiny_faces(1), "float32")
    return Armour(kind(DefenderConfig(epsilon=epsilon)), DefenceState(knowledge), SIZE)


class Placed:
    """A detector that finds faces at given shares of the photo."""

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.boxes = torch.tensor(boxes).reshape(-1, 4)

    def detect(self, x_BCHW: torch.Tensor, score_threshold: float) -> list[Boxes]:
        height, width = x_BCHW.shape[-2:]
        assert min(height, width) >= 64
        assert max(height, width) <= 1024
        scale = torch.tensor([width, height, width, height])
        return [Boxes(self.boxes * scale, torch.ones(len(self.boxes)))] * len(x_BCHW)


ONE = (0.3, 0.3, 0.6, 0.6)


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the defence and the faces that are found."""

    def set_up(defence: Armour | None = None, *boxes: tuple[float, float, float, float]) -> None:
        monkeypatch.setattr(module, "packaged_armour", lambda name, epsilon: defence or armour(epsilon=epsilon))
        monkeypatch.setattr(module, "load_detector", lambda name: Placed(*(boxes or (ONE,))))

    return set_up


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "in" / "a.png", picture(90, 120))
    save(tmp_path / "in" / "holiday" / "b.jpg", picture(400, 300, 1), quality=95)
    save(tmp_path / "in" / "c.webp", picture(64, 70, 2), lossless=True)
    (tmp_path / "in" / "notes.txt").write_text("no photo")
    return tmp_path / "in"


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_same_stem_same_size_png(folder: Path, tmp_path: Path, ready: Callable[..., None]) -> None:
    ready()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = protect(folder, tmp_path / "out")
    assert names(tmp_path / "out") == ["a.png", "c.png", "holiday/b.png", "visibility.csv"]
    assert {path: path.read_bytes() for path in before} == before, "the photos themselves are left alone"
    for row in result.table.to_pylist():
        source, target = load_photo(folder / row["photo"]), Image.open(row["output"])
        assert target.format == "PNG"
        assert (row["height"], row["width"]) == source.shape[:2] == target.size[::-1]
        assert row["faces"] == 1
        assert row["max_steps"] == 6
        assert row["max_delta"] == pytest.approx(6 / 127.5)
        assert 28 < row["psnr"] < 40
        assert 0.3 < row["ssim"] < 1
    assert pa_csv.read_csv(result.table_path).column("photo").to_pylist() == result.table["photo"].to_pylist()


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(16, 200),
    width=st.integers(16, 200),
    epsilon=st.sampled_from([0.0, 0.0078, 1 / 127.5, 0.05, 6 / 127.5, 0.08, 1.0]),
    boxes=st.lists(st.tuples(*[st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.05, 0.5)]), min_size=1, max_size=3),
    kind=st.sampled_from([Sharp, SharpEach]),
)
def test_budget_and_the_pixels_outside(
    height: int, width: int, epsilon: float, boxes: list[tuple[float, ...]], kind: type[Defender]
) -> None:
    found = [frame((x * width, y * height, (x + s) * width, (y + s) * height), height, width) for x, y, s in boxes]
    image = picture(height, width)
    for region in found:
        assert 0 <= region.left <= width - region.side
        assert 0 <= region.top <= height - region.side
    defence = armour(kind, epsilon)
    frames = defence.face_set(
        np.zeros((len(found), 3, SIZE, SIZE), np.uint8), tuple(f"a#{k}" for k in range(len(found)))
    )
    steps = module.whole_steps(defence, frames)
    after = module.moved(image, found, steps, 0)
    difference = after.astype(np.int16) - image
    assert np.abs(difference).max() <= epsilon * 127.5 * (1 + 1e-6)
    inside = np.zeros(image.shape, dtype=bool)
    for region in found:
        region.cut(inside)[:] = True
    assert not difference[~inside].any()
    if epsilon == 0:
        assert (after == image).all()


def test_the_whole_budget_is_used(tmp_path: Path, ready: Callable[..., None]) -> None:
    ready()
    save(tmp_path / "in" / "a.png", np.full((100, 100, 3), 128, np.uint8))
    protect(tmp_path / "in", tmp_path / "out", epsilon=0.08)
    moved = np.asarray(Image.open(tmp_path / "out" / "a.png")).astype(int) - 128
    assert set(np.unique(np.abs(moved[moved != 0]))) <= set(range(1, 11))
    assert np.abs(moved).max() == 10
    assert (moved != 0).any(2).sum() == pytest.approx((30 / 0.72) ** 2, rel=0.1)


def test_faces_of_their_own_and_overlap(tmp_path: Path, ready: Callable[..., None]) -> None:
    # Two frames of unlike size that overlap: the larger keeps its own, no pixel is moved twice.
    ready(armour(SharpEach), (0.25, 0.25, 0.625, 0.625), (0.5, 0.375, 0.75, 0.625))
    save(tmp_path / "in" / "a.png", np.full((200, 200, 3), 100, np.uint8))
    result = protect(tmp_path / "in", tmp_path / "out")
    moved = np.asarray(Image.open(tmp_path / "out" / "a.png")).astype(int) - 100
    assert sorted(np.unique(moved)) == [-6, 0, 6]
    large, small = (frame(box, 200, 200) for box in ((50, 50, 125, 125), (100, 75, 150, 125)))
    assert (large.cut(moved) == 6).all()
    inside = np.zeros((200, 200), bool)
    large.cut(inside)[:] = True
    only_small = ~inside
    mask = np.zeros((200, 200), bool)
    small.cut(mask)[:] = True
    assert (moved[mask & only_small] == -6).all()
    assert result.table["faces"].to_pylist() == [2]


def test_photo_on_the_edge_of_the_range_stays_in_it(tmp_path: Path, ready: Callable[..., None]) -> None:
    ready()
    pixels = np.zeros((60, 60, 3), np.uint8)
    pixels[:, 30:] = 255
    save(tmp_path / "in" / "a.png", pixels)
    protect(tmp_path / "in", tmp_path / "out")
    moved = np.asarray(Image.open(tmp_path / "out" / "a.png")).astype(int) - pixels
    assert np.abs(moved).max() == 6


def test_orientation_profile_and_metadata(tmp_path: Path, ready: Callable[..., None]) -> None:
    ready()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "taken at home"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = save(tmp_path / "in" / "a.jpg", picture(60, 90), exif=exif.tobytes(), icc_profile=profile, quality=95)
    protect(tmp_path / "in", tmp_path / "out")
    with Image.open(tmp_path / "out" / "a.png") as written:
        assert written.size == (60, 90)
        assert written.info["icc_profile"] == profile
        assert not written.getexif()
        difference = np.asarray(written).astype(int) - load_photo(path)
    assert np.abs(difference).max() == 6
    assert b"taken at home" not in (tmp_path / "out" / "a.png").read_bytes()


def test_epsilon_zero_is_pixel_identical(folder: Path, tmp_path: Path, ready: Callable[..., None]) -> None:
    ready()
    result = protect(folder, tmp_path / "out", epsilon=0.0)
    for row in result.table.to_pylist():
        assert (load_photo(folder / row["photo"]) == np.asarray(Image.open(row["output"]))).all()
        assert row["psnr"] is None
        assert row["ssim"] == pytest.approx(1.0)
        assert row["max_steps"] == 0
        assert "infinite" in row["note"]


def test_photo_without_a_face(folder: Path, tmp_path: Path, ready: Callable[..., None], monkeypatch: Any) -> None:
    ready()
    monkeypatch.setattr(module, "load_detector", lambda name: Placed())
    skipped = protect(folder, tmp_path / "out")
    assert sorted(skipped.without_face) == ["a.png", "c.webp", "holiday/b.jpg"]
    assert names(tmp_path / "out") == ["visibility.csv"]
    assert all("left out" in row["note"] for row in skipped.table.to_pylist())
    whole = protect(folder, tmp_path / "whole", no_face="whole")
    assert len(whole.written) == 3
    a = np.asarray(Image.open(tmp_path / "whole" / "a.png")).astype(int) - load_photo(folder / "a.png")
    assert not a[:, :15].any()
    assert not a[:, 105:].any()
    assert a[:, 15:105].any()


def bad_folder(folder: Path) -> None:
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    good = io.BytesIO()
    Image.fromarray(picture(80, 80)).save(good, "JPEG")
    (folder / "cut.jpg").write_bytes(good.getvalue()[: len(good.getvalue()) // 2])
    save(folder / "tiny.png", picture(1, 1))


def test_bad_photos_stop_before_anything_is_written(folder: Path, tmp_path: Path, ready: Callable[..., None]) -> None:
    ready()
    bad_folder(folder)
    with pytest.raises(UserError) as caught:
        protect(folder, tmp_path / "out")
    for name in ("empty.jpg", "page.jpg", "cut.jpg", "tiny.png", "--on-bad skip", "4 bad"):
        assert name in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_bad_photos_are_skipped_and_listed(folder: Path, tmp_path: Path, ready: Callable[..., None]) -> None:
    ready()
    bad_folder(folder)
    result = protect(folder, tmp_path / "out", on_bad="skip", table=tmp_path / "seen.parquet")
    assert len(result.skipped) == 4
    assert len(result.written) == 3
    notes = {row["photo"]: row["note"] for row in pq.read_table(tmp_path / "seen.parquet").to_pylist()}
    assert len(notes) == 7
    assert "empty" in notes["empty.jpg"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda i, o: (o.mkdir(), (o / "a.png").write_text("mine")), "overwrites nothing"),
        (lambda i, o: (o.mkdir(), (o / "visibility.csv").write_text("mine")), "overwrites nothing"),
        (lambda i, o: (o.mkdir(), (o / "a.png").symlink_to(o / "nowhere")), "overwrites nothing"),
        (lambda i, o: o.write_text("a file"), "is a file"),
        (lambda i, o: (o.mkdir(), o.chmod(0o500)), "cannot be written"),
        (lambda i, o: save(i / "a.bmp", picture(40, 40)), "both would be written as"),
        (lambda i, o: [p.unlink() for p in i.rglob("*") if p.is_file()], "holds no photo"),
    ],
)
def test_nothing_is_overwritten_or_half_done(
    spoil: Callable[[Path, Path], object], words: str, folder: Path, tmp_path: Path, ready: Callable[..., None]
) -> None:
    ready()
    out = tmp_path / "out"
    spoil(folder, out)
    if words == "cannot be written":
        module.os.access, access = lambda path, mode: False, module.os.access
    before = {p: p.lstat().st_mtime_ns for p in out.rglob("*")} if out.is_dir() else {}
    try:
        with pytest.raises(UserError, match=words):
            protect(folder, out)
    finally:
        if words == "cannot be written":
            module.os.access = access
    after = {p: p.lstat().st_mtime_ns for p in out.rglob("*")} if out.is_dir() else {}
    assert after == before


def test_other_mistakes(folder: Path, tmp_path: Path, ready: Callable[..., None]) -> None:
    ready()
    out = tmp_path / "out"
    with pytest.raises(UserError, match="lies in the folder"):
        protect(folder, folder / "out")
    with pytest.raises(UserError, match="lies in the folder"):
        protect(folder, folder)
    with pytest.raises(UserError, match="not a folder"):
        protect(tmp_path / "absent", out)
    with pytest.raises(UserError, match=r"\.csv or \.parquet"):
        protect(folder, out, table=tmp_path / "seen.xlsx")
    with pytest.raises(UserError, match="not a run directory"):
        protect(folder, out, run=folder)
    with pytest.raises(UserError, match="--from s3://bucket/run: a run is read from a folder"):
        protect(folder, out, run="s3://key:secret@bucket/run")
    with pytest.raises(UserError, match="--from"):
        protect(folder, out, attacker="mtcnn")
    ready(armour(Broken))
    with pytest.raises(MatchFailed, match="not finite"):
        protect(folder, out)
    assert not out.exists()


def test_stopping_leaves_whole_files(folder: Path, tmp_path: Path, ready: Callable[..., None]) -> None:
    ready()

    def tell(what: str, done: int, total: int) -> None:
        if what == "protect" and done == 2:
            raise Stopped("stopped as asked")

    with pytest.raises(Stopped):
        protect(folder, tmp_path / "out", tell=tell)
    written = names(tmp_path / "out")
    assert written == ["a.png", "c.png"]
    for name in written:
        Image.open(tmp_path / "out" / name).load()


def test_command_line(folder: Path, tmp_path: Path, ready: Callable[..., None]) -> None:
    ready()
    save(folder / "[red]x.png", picture(80, 80))
    result = CliRunner().invoke(app, ["protect", str(folder), str(tmp_path / "out"), "--epsilon", "0.03"])
    assert result.exit_code == 0, result.output
    assert "4 protected, 0 without a face, 0 bad" in result.stdout
    assert "[red]x.png" in result.stdout
    assert "(3/255)" in result.stdout
    again = CliRunner().invoke(app, ["protect", str(folder), str(tmp_path / "out")])
    assert again.exit_code == 2
    assert "overwrites nothing" in again.stderr
    assert "Traceback" not in again.output
