"""S3FD: single shot, scale-invariant (Zhang et al., ICCV 2017), in the layout of the official `sfd_face.pth`."""

from __future__ import annotations

import torch

from tsdf_ray.detectors.vgg import VGGDetector, heads


class S3FD(VGGDetector):
    """One convolution per level and answer; the finest has three background logits, of which the largest counts.

    Six levels of squares from 16 to 512 px. The dilation is 6 as in the repositories that use `sfd_face.pth` (the
    TSDF authors', cs-giung's, SyncNet's); yxlijun's later code has 3, for the file `s3fd.pth`: do not give that one.
    """

    name = "s3fd"
    norms = ("L2Norm3_3", "L2Norm4_3", "L2Norm5_3")
    dilation = 6

    def __init__(self, width: float = 1.0) -> None:
        super().__init__(width)
        self.loc = heads((4,) * 6, width)
        self.conf = heads((4, 2, 2, 2, 2, 2), width)

    def answers(
        self, levels: tuple[torch.Tensor, ...], features: tuple[torch.Tensor, ...]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        sources = (*features, *levels[3:])
        finest, *others = (head(source) for head, source in zip(self.conf, sources, strict=True))
        background = finest[:, :3].amax(dim=1, keepdim=True)  # max-out: small anchors see many false faces
        logits = [torch.cat([background, finest[:, 3:]], dim=1), *others]
        return logits, [head(source) for head, source in zip(self.loc, sources, strict=True)]
