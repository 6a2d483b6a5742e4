"""Benchmarks: each prints a table and compares with the plain alternative in the same run. `make bench` runs them."""
