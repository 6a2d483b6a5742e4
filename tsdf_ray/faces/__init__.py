"""Photos in: readers, labels, edits, splits."""

from tsdf_ray.faces.config import Counts, FacesConfig, HeldOut
from tsdf_ray.faces.decode import BadPhoto, decode, load_photo, to_square
from tsdf_ray.faces.edits import Edits, all_edits, draw_edits, edit_labels
from tsdf_ray.faces.faceset import HAIR, FaceSet, to_images, to_pixels
from tsdf_ray.faces.folder import photo_files
from tsdf_ray.faces.source import Face, FaceSource, Index, Tally
from tsdf_ray.faces.splits import Splits, iter_faces, load_splits, open_source

__all__ = [
    "HAIR",
    "BadPhoto",
    "Counts",
    "Edits",
    "Face",
    "FaceSet",
    "FaceSource",
    "FacesConfig",
    "HeldOut",
    "Index",
    "Splits",
    "Tally",
    "all_edits",
    "decode",
    "draw_edits",
    "edit_labels",
    "iter_faces",
    "load_photo",
    "load_splits",
    "open_source",
    "photo_files",
    "to_images",
    "to_pixels",
    "to_square",
]
