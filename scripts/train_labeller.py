"""Train the attribute labeller on CelebA photos and label the synthetic faces with it.

    python scripts/train_labeller.py CELEBA_DIR FACES_DIR [MORE_FACES_DIR ...]

CELEBA_DIR is in CelebA's own layout (img_align_celeba, list_attr_celeba.txt, list_eval_partition.txt), each photo with
exactly one of the three hair colours. CelebA's terms are non-commercial, so the weights stay in the git-ignored
`.cache/`; what the project ships are the labels of synthetic faces. Writes `.cache/labeller.pt`,
`.cache/labeller.json` (held-out accuracy per attribute) and `.cache/synthetic_labels.parquet`
(id, p_black, p_blond, p_brown, p_male).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from face_lists import ATTRIBUTES, CACHE
from sample_photos import celeba_photos, celeba_table, draw_views, load, to_square
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

SIZE = 96


class Block(nn.Module):
    """Pre-activation residual block; the first convolution may halve the resolution."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(c_in), nn.BatchNorm2d(c_out)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if stride > 1 or c_in != c_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        skip: torch.Tensor = self.skip(x)
        return skip + self.conv2(F.relu(self.norm2(h)))


class Labeller(nn.Module):
    """float32 [B, 3, 96, 96] in [-1, 1] -> logits [B, 4]: three hair colours (softmax) and Male (sigmoid)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, 32, 3, 2, 1, bias=False),
            Block(32, 48, 1),
            Block(48, 96, 2),
            Block(96, 96, 1),
            Block(96, 192, 2),
            Block(192, 192, 1),
            nn.BatchNorm2d(192),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(192, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(x).mean((2, 3)))
        return logits


def probabilities(model: nn.Module, pixels_BHW3: torch.Tensor) -> torch.Tensor:
    """[B, A]: black, blond, brown (sum 1), male and what else the model answers; mean of photo and mirror image."""
    rows = []
    with torch.inference_mode():
        for chunk in pixels_BHW3.split(100):
            x = to_square(chunk, SIZE)
            both = [model(view).float() for view in (x, x.flip(3))]
            rows.append(sum(torch.cat([o[:, :3].softmax(1), o[:, 3:].sigmoid()], 1) for o in both) / 2)
    return torch.cat(rows)


def train(photos: torch.Tensor, labels: torch.Tensor, steps: int, batch: int, seed: int) -> Labeller:
    """A labeller trained on photos uint8 [B, 144, 144, 3] and labels [B, 4] of 0 and 1; averaged weights."""
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = Labeller()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.15)
    hair, male = labels[:, :3].argmax(1), labels[:, 3].float()
    started, order, cursor = time.monotonic(), torch.randperm(len(photos), generator=rng), 0
    for step in range(steps):
        if cursor + batch > len(order):
            order, cursor = torch.randperm(len(photos), generator=rng), 0
        index = order[cursor : cursor + batch]
        cursor += batch
        x = draw_views(photos[index], SIZE, rng)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        loss = F.cross_entropy(out[:, :3].float(), hair[index], label_smoothing=0.05)
        loss = loss + 0.7 * F.binary_cross_entropy_with_logits(out[:, 3].float(), male[index] * 0.95 + 0.025)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        averaged.update_parameters(model)
        if step % 50 == 49:
            print(f"step {step + 1}/{steps} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)
    labeller = averaged.module
    assert isinstance(labeller, Labeller)
    return labeller


def held_out_accuracy(p: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Share of right answers per attribute, and for the hair of the photos of which the labeller is sure."""
    guess = F.one_hot(p[:, :3].argmax(1), 3)
    right, sure = guess.argmax(1) == truth[:, :3].argmax(1), p[:, :3].amax(1) >= 0.6
    report = {"photos": float(len(p)), "hair": right.float().mean().item()}
    report |= {name: (guess[:, a] == truth[:, a]).float().mean().item() for a, name in enumerate(ATTRIBUTES[:3])}
    report["Male"] = ((p[:, 3] > 0.5) == (truth[:, 3] > 0.5)).float().mean().item()
    return report | {"hair_when_sure": right[sure].float().mean().item(), "share_sure": sure.float().mean().item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path)
    parser.add_argument("faces", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--reuse", action="store_true", help="label with the weights of an earlier run")
    args = parser.parse_args()

    CACHE.mkdir(exist_ok=True)
    weights = CACHE / "labeller.pt"
    labeller = Labeller()
    if args.reuse:
        labeller.load_state_dict(torch.load(weights, weights_only=True))
    else:
        names, labels, parts = celeba_table(args.celeba)
        training, held_out = (parts == 0).nonzero().flatten(), (parts == 2).nonzero().flatten()
        photos = celeba_photos(args.celeba, [names[i] for i in training])
        labeller = train(photos, labels[training], args.steps, args.batch, args.seed).eval()
        p = probabilities(labeller, celeba_photos(args.celeba, [names[i] for i in held_out]))
        report = held_out_accuracy(p, labels[held_out])
        print(json.dumps(report, indent=1))
        (CACHE / "labeller.json").write_text(json.dumps(report, indent=1))
        torch.save(labeller.state_dict(), weights)

    paths = sorted((path for folder in args.faces for path in folder.glob("*.jpg")), key=lambda path: path.stem)
    p = probabilities(labeller.eval(), load(paths)).double()
    columns = dict(zip(("p_black", "p_blond", "p_brown", "p_male"), p.T.numpy(), strict=True))
    pq.write_table(pa.table({"id": [path.stem for path in paths], **columns}), CACHE / "synthetic_labels.parquet")


if __name__ == "__main__":
    main()
