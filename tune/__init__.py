"""The hyper-parameter search over matches."""
