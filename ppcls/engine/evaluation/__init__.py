"""Evaluating networks: of whom, by which measures, and what is decided by the values."""
