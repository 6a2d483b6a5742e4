"""What a race shows: figures and one self-contained page, made from a run directory alone."""

from tsdf_ray.report.page import write_report

__all__ = ["write_report"]
