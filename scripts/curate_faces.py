"""Teach the labeller what was seen by eye on the first 5,000 synthetic faces, and label further faces with it.

    python scripts/curate_faces.py FACES_DIR MORE_FACES_DIR [...]

Starts from `.cache/labeller.pt` (scripts/train_labeller.py) and is trained on the faces of FACES_DIR: hair colour and
sex as set by eye or as the labeller was sure of them, and one output more, "leave out" (child, hidden or other hair,
broken: scripts/excluded_faces.txt). Labels MORE_FACES_DIR, the numbers that are the editor's alone, and writes those
that are sure and stay in, with the editor's faces of FACES_DIR, as one Parquet file of 128 px JPEGs that
`tsdf-ray pretrain` reads: `.cache/editor-faces.parquet`. Prints how well the outputs do on a tenth of FACES_DIR that it
was not trained on.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from face_lists import ATTRIBUTES, CACHE, excluded, split_of
from sample_photos import draw_views, load, square
from torch import nn
from torch.nn import functional as F
from train_labeller import SIZE, Labeller, probabilities

HAIR_SURE, MALE_SURE, LEFT_OUT = 0.6, 0.85, 0.25
STEPS, BATCH, RATE, SEED, QUALITY = 700, 64, 1e-3, 5, 92


class Curator(nn.Module):
    """The labeller with a fifth output: float32 [B, 3, 96, 96] -> logits [B, 5], the last one "leave out"."""

    def __init__(self) -> None:
        super().__init__()
        self.labeller = Labeller()
        self.labeller.load_state_dict(torch.load(CACHE / "labeller.pt", weights_only=True))
        self.leave_out = nn.Linear(192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.labeller.body(x).mean((2, 3))
        return torch.cat([self.labeller.head(h), self.leave_out(h)], 1)


def train(model: Curator, photos: torch.Tensor, labels_BA: torch.Tensor, left_out_B: torch.Tensor) -> None:
    """Fit all outputs; hair and sex only on the photos that stay in."""
    rng = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    model.train()
    for step in range(STEPS):
        index = torch.randint(len(photos), (BATCH,), generator=rng)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(draw_views(photos[index], SIZE, rng)).float()
        out_B, stays = left_out_B[index], ~left_out_B[index]
        loss = F.binary_cross_entropy_with_logits(out[:, 4], out_B.float())
        loss = loss + F.cross_entropy(out[stays, :3], labels_BA[index][stays, :3].argmax(1), label_smoothing=0.05)
        loss = loss + F.binary_cross_entropy_with_logits(out[stays, 3], labels_BA[index][stays, 3].float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}/{STEPS} loss {loss.item():.3f}", flush=True)
    model.eval()


def report(p: torch.Tensor, labels_BA: torch.Tensor, left_out_B: torch.Tensor) -> None:
    """Accuracy per output on photos not trained on, and what the limits of use keep of them."""
    stays = ~left_out_B
    hair = (p[:, :3].argmax(1) == labels_BA[:, :3].argmax(1))[stays].float().mean()
    male = ((p[:, 3] > 0.5) == (labels_BA[:, 3] > 0.5))[stays].float().mean()
    kept = sure(p)
    sex = ((p[:, 3] > 0.5) == (labels_BA[:, 3] > 0.5))[stays & kept].float().mean()
    print(f"held out, {len(p)} photos: hair {hair:.3f}, sex {male:.3f} ({sex:.3f} where sure)")
    print(f"kept {kept.float().mean():.3f} of all; of those to leave out {kept[left_out_B].float().mean():.3f}")


def sure(p: torch.Tensor) -> torch.Tensor:
    """Which photos are used: bool [B]."""
    male = p[:, 3].maximum(1 - p[:, 3])
    return (p[:, :3].amax(1) >= HAIR_SURE) & (male >= MALE_SURE) & (p[:, 4] < LEFT_OUT)


def jpeg(path: Path) -> bytes:
    """The photo at 128 px."""
    out = io.BytesIO()
    square(path, 128).save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("more", type=Path, nargs="+")
    args = parser.parse_args()
    table = pq.read_table(CACHE / "synthetic_splits.parquet").to_pandas().set_index("id")
    table = table[[path.is_file() for path in (args.faces / f"{face}.jpg" for face in table.index)]]
    dropped = sorted(face for face in excluded() - excluded("ambiguous") if (args.faces / f"{face}.jpg").is_file())
    faces = [*table.index, *dropped]
    photos = load([args.faces / f"{face}.jpg" for face in faces])
    labels = torch.zeros(len(faces), 4, dtype=torch.long)
    labels[: len(table)] = torch.from_numpy(table[list(ATTRIBUTES)].to_numpy().astype(np.int64))
    left_out = torch.arange(len(faces)) >= len(table)
    held_out = torch.tensor([int(face) // 10 % 10 == 0 for face in faces])
    model = Curator()
    train(model, photos[~held_out], labels[~held_out], left_out[~held_out])
    report(probabilities(model, photos[held_out]), labels[held_out], left_out[held_out])

    more = sorted(path for folder in args.more for path in folder.glob("*.jpg") if split_of(path.stem) == "editor")
    p = probabilities(model, load(more))
    kept = sure(p)
    own = table[table.split == "editor"]
    paths = [args.faces / f"{face}.jpg" for face in own.index]
    paths += [path for path, keep in zip(more, kept.tolist(), strict=True) if keep]
    guess = torch.cat([F.one_hot(p[kept][:, :3].argmax(1), 3), (p[kept][:, 3:4] > 0.5).long()], 1).numpy()
    values = np.concatenate([own[list(ATTRIBUTES)].to_numpy(), guess]).astype(np.int8)
    columns: dict[str, object] = {"id": [path.stem for path in paths], "image": [jpeg(path) for path in paths]}
    columns |= {name: values[:, a] for a, name in enumerate(ATTRIBUTES)}
    pq.write_table(pa.table(columns), CACHE / "editor-faces.parquet")
    print(f"{len(own)} + {int(kept.sum())} of {len(more)} faces; by label {values.sum(0).tolist()}")


if __name__ == "__main__":
    main()
