"""Judging forgeries: did the edit happen? Weights come from the package or from a file, digest checked before use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from tsdf_ray.digest import array_digest
from tsdf_ray.errors import UserError
from tsdf_ray.faces.faceset import HAIR
from tsdf_ray.files import located
from tsdf_ray.judges.network import JUDGED, JudgeNet
from tsdf_ray.store.atomic import whole_file

PACKAGED = Path(str(files("tsdf_ray").joinpath("assets", "judges")))


@dataclass(frozen=True)
class AttributeScores:
    """What the judge sees in B photos."""

    hair_BH: torch.Tensor
    """float32 [B, 3]: probabilities of Black_Hair, Blond_Hair, Brown_Hair; each row sums to 1."""
    male_B: torch.Tensor
    """float32 [B] in [0, 1]: probability of Male."""

    def labels(self) -> torch.Tensor:
        """uint8 [B, 4], 0 or 1, in the order of `JUDGED`: the likeliest hair colour alone, and Male above one half."""
        hair_BH = torch.nn.functional.one_hot(self.hair_BH.argmax(1), len(HAIR))
        return torch.cat([hair_BH, (self.male_B > 0.5).long()[:, None]], 1).to(torch.uint8)


class Judge(nn.Module):
    """A frozen classifier that answers in the order of `attributes`, the labels of the photos at hand.

    It need not know all of them: `knows` says which edits it can judge.
    """

    def __init__(self, network: JudgeNet, attributes: tuple[str, ...] = JUDGED) -> None:
        super().__init__()
        self.attributes = attributes
        self.network = network.eval().requires_grad_(False)
        column_A = torch.tensor([JUDGED.index(name) if name in JUDGED else -1 for name in attributes])
        self.register_buffer("_column_A", column_A, persistent=False)

    @property
    def digest(self) -> str:
        """SHA-256 over the weights, names and shapes: what a run records."""
        return array_digest(self.network.state_dict())

    @torch.inference_mode()
    def predict(self, x_BCHW: torch.Tensor) -> AttributeScores:
        """Scores of photos [B, 3, H, W] in [-1, 1] of any size."""
        return _scores(self.network(x_BCHW.float()))

    @torch.inference_mode()
    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """What `verdict` and the distances of sets need of photos [B, 3, H, W] in [-1, 1]: float32 [B, 320]."""
        return self.network.features(x_BCHW.float()).float()

    def knows(self, attribute_P: torch.Tensor) -> torch.Tensor:
        """bool [P]: can it judge edits of these attributes (int64 [P], index into `attributes`)?"""
        known_P: torch.Tensor = torch.as_tensor(self._column_A)[attribute_P] >= 0
        return known_P

    @torch.inference_mode()
    def succeeds(self, x_PCHW: torch.Tensor, attribute_P: torch.Tensor, target_PA: torch.Tensor) -> torch.Tensor:
        """bool [P]: does forgery p, in [-1, 1], carry the attribute that its edit asked for?

        attribute_P: int64 [P], index into `attributes` of the requested edit; target_PA: [P, A], the requested labels
        (see tsdf_ray.faces.edits). A hair edit succeeds when the requested colour is the likeliest of the three, any
        other when the attribute is present or absent as requested (METHOD section 7, edit success). False where it does
        not know the attribute.
        """
        return self._as_asked(self.predict(x_PCHW), attribute_P, target_PA)

    @torch.inference_mode()
    def verdict(self, features_PD: torch.Tensor, attribute_P: torch.Tensor, target_PA: torch.Tensor) -> torch.Tensor:
        """`succeeds` from the `features` of the forgeries: the convolutions are the dear part."""
        return self._as_asked(_scores(self.network.head(features_PD).float()), attribute_P, target_PA)

    def _as_asked(self, seen: AttributeScores, attribute_P: torch.Tensor, target_PA: torch.Tensor) -> torch.Tensor:
        found_PA = seen.labels()
        assert target_PA.shape == (len(found_PA), len(self.attributes)), "one row of all labels per forgery"
        pair_P = torch.arange(len(found_PA), device=found_PA.device)
        column_P = torch.as_tensor(self._column_A)[attribute_P]
        as_asked_P = found_PA[pair_P, column_P] == (target_PA[pair_P, attribute_P] > 0.5).to(torch.uint8)
        return as_asked_P & (column_P >= 0)


def _scores(logits_B4: torch.Tensor) -> AttributeScores:
    return AttributeScores(logits_B4[:, : len(HAIR)].softmax(1), logits_B4[:, len(HAIR)].sigmoid())


def attackers_judge(name: str, attributes: tuple[str, ...]) -> Judge:
    """As `load_judge`, for what the attackers' generator edits; raises UserError also when it can judge none of it."""
    judge = load_judge(name, attributes)
    if not bool(judge.knows(torch.arange(len(attributes))).any()):
        raise UserError(
            f"judge {name}: knows {', '.join(JUDGED)}, the generator edits {', '.join(attributes)}: no edit could be "
            "judged; choose another generator"
        )
    return judge


def save_judge(path: Path, network: JudgeNet) -> None:
    """Write `network` as safetensors, atomically, with its digest in the metadata."""
    tensors = {name: value.detach().contiguous() for name, value in network.state_dict().items()}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, {"kind": "judge", "digest": array_digest(tensors)})


def load_judge(name: str = "judge-128", attributes: tuple[str, ...] = JUDGED) -> Judge:
    """A judge by the name of packaged weights, or from a file written by `save_judge`.

    `attributes`: the photos' labels, in their order. Raises UserError: no such file or name, not a judge's safetensors
    file, tensors that do not fit, a digest that does not match.
    """
    path = _locate(name)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file: {error}") from error
    if metadata.get("kind") != "judge":
        raise UserError(f"{path}: not a judge's file (its metadata says {metadata.get('kind')!r})")
    network = JudgeNet()
    wanted = network.state_dict()
    for key in sorted(wanted.keys() | tensors.keys()):
        expected, found = (tuple(side[key].shape) if key in side else None for side in (wanted, tensors))
        if expected != found:
            raise UserError(f"{path}: tensor {key!r}: expected shape {expected}, found {found}")
    if (digest := array_digest(tensors)) != metadata.get("digest"):
        raise UserError(f"{path}: changed or damaged: digest {digest[:12]}... is not the recorded one; fetch it again")
    network.load_state_dict(tensors)
    return Judge(network, attributes)


def _locate(name: str) -> Path:
    if is_packaged(name):
        return PACKAGED / f"{name}.safetensors"
    if (path := located(name)).is_file():
        return path
    raise UserError(f"judge {name!r}: no such file, and no packaged judge of that name (packaged: {packaged_names()})")


def is_packaged(name: str) -> bool:
    """Whether a packaged judge has this name."""
    return Path(name).name == name and (PACKAGED / f"{name}.safetensors").is_file()


def packaged_names() -> str:
    """All of them, for messages."""
    return ", ".join(sorted(path.stem for path in PACKAGED.glob("*.safetensors"))) or "none"
