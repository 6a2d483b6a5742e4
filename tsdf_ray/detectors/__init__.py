"""Face detectors, differentiable to the pixel: one file per family."""
