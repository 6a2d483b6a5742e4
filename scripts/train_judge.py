"""Train the judge on its own synthetic faces; write its weights and its card into the package.

    python scripts/train_judge.py CELEBA_DIR FACES_DIR [MORE_FACES_DIR ...]

Its photos are the numbers that `split_faces.split_of` gives to the judge, less the excluded ones; the targets are the
labeller's probabilities, the sex as corrected by eye. No CelebA photo is trained on: CelebA's test partition and the
packaged sample's evaluation split only measure it. Run `train_labeller.py` first, `build_sample.py` before the card.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from face_lists import ATTRIBUTES, CACHE, ROOT, corrected, excluded, split_of
from PIL import Image
from sample_photos import celeba_photos, celeba_table, draw_views, load, to_square
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tsdf_ray.judges import Judge, JudgeNet, load_judge, save_judge
from tsdf_ray.judges.network import SIZE

SAMPLE = ROOT / "tsdf_ray" / "assets" / "sample" / "faces-128.parquet"
OUT = ROOT / "tsdf_ray" / "assets" / "judges"


def training_photos(folders: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
    """Photos uint8 [B, 144, 144, 3] and probabilities float32 [B, 4] of the judge's split."""
    table = pq.read_table(CACHE / "synthetic_labels.parquet").to_pydict()
    left_out, by_eye = excluded(), corrected()
    place = {path.stem: path for folder in folders for path in folder.glob("*.jpg")}
    rows = [k for k, face in enumerate(table["id"]) if split_of(face) == "judge" and face not in left_out]
    p = torch.tensor([[table[f"p_{name}"][k] for name in ("black", "blond", "brown", "male")] for k in rows]).float()
    for row, k in enumerate(rows):
        if table["id"][k] in by_eye:
            p[row, 3] = 0.98 if by_eye[table["id"][k]][3] else 0.02
    return load([place[table["id"][k]] for k in rows]), p


def worn(x_BCHW: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Some photos as JPEG of quality 30 to 90, some with a grey square over part of them."""
    out = x_BCHW.clone()
    for b in range(len(out)):
        draw = torch.rand(4, generator=rng)
        if draw[0] < 0.3:
            pixels = ((out[b] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=30 + int(60 * draw[1]))
            out[b] = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1) / 127.5 - 1
        elif draw[0] < 0.6:
            side = out.shape[-1] // 4
            top, left = (int(v * (out.shape[-1] - side)) for v in draw[2:])
            out[b, :, top : top + side, left : left + side] = 0
    return out


def accuracy(judge: Judge, x_BCHW: torch.Tensor, labels_BA: torch.Tensor) -> dict[str, float]:
    """Share of right answers: `hair` (the right one of three colours) and per attribute."""
    found = torch.cat([judge.predict(part).labels() for part in x_BCHW.split(100)])
    right = found == labels_BA.to(torch.uint8)
    report = {"photos": float(len(right)), "hair": right[:, :3].all(1).float().mean().item()}
    return report | {name: right[:, a].float().mean().item() for a, name in enumerate(ATTRIBUTES)}


def sample_evaluation() -> tuple[torch.Tensor, torch.Tensor] | None:
    """The packaged sample's evaluation split, when it is built: photos in [-1, 1] and labels."""
    if not SAMPLE.exists():
        return None
    table = pq.read_table(SAMPLE, filters=[("split", "=", "evaluation")]).to_pydict()
    photos = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in table["image"]])
    labels = torch.tensor([table[name] for name in ATTRIBUTES]).T
    return torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 127.5 - 1, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path)
    parser.add_argument("faces", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--measure-only", action="store_true", help="keep the weights, write the card anew")
    args = parser.parse_args()

    path, card_path = OUT / "judge-128.safetensors", OUT / "judge-128.json"
    if args.measure_only:
        training = json.loads(card_path.read_text())["training"]
    else:
        photos, p = training_photos(args.faces)
        save_judge(path, train(photos, p, args.steps, args.batch, args.seed))
        training = {"photos": len(p), "steps": args.steps, "batch": args.batch, "seed": args.seed, "celeba_photos": 0}
    judge = load_judge()
    names, labels, parts = celeba_table(args.celeba)
    test = (parts == 2).nonzero().flatten()
    celeba = to_square(celeba_photos(args.celeba, [names[i] for i in test]), 128)
    card = {
        "name": "judge-128",
        "digest": judge.digest,
        "architecture": "VGG-like: 4x4 stem, six 3x3 convolutions, group norms, SiLU, mean and max pooling; 96 px",
        "training": training,
        "celeba_test": accuracy(judge, celeba, labels[test]),
    }
    if (sample := sample_evaluation()) is not None:
        card["sample_evaluation"] = accuracy(judge, *sample)
    card_path.write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card, indent=1))


def train(photos: torch.Tensor, p: torch.Tensor, steps: int, batch: int, seed: int) -> JudgeNet:
    """A judge trained on soft targets, rare hair colours and sexes drawn as often as common ones; averaged weights."""
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    cell = p[:, :3].argmax(1) * 2 + (p[:, 3] > 0.5)
    weight = 1 / torch.bincount(cell, minlength=6).float().sqrt()[cell]
    model = JudgeNet()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.995))
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.15)
    started = time.monotonic()
    for step in range(steps):
        index = torch.multinomial(weight, batch, generator=rng)
        x = worn(draw_views(photos[index], SIZE, rng), rng)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        loss = F.cross_entropy(out[:, :3], p[index, :3]) + F.binary_cross_entropy_with_logits(out[:, 3], p[index, 3])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        averaged.update_parameters(model)
        if step % 100 == 99:
            print(f"step {step + 1}/{steps} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)
    network = JudgeNet()
    network.load_state_dict(averaged.module.state_dict())
    return network


if __name__ == "__main__":
    main()
