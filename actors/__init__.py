"""The Ray shell: thin actors around the roles of tsdf_ray, no mathematics."""
