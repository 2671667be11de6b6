"""Evaluate networks: which ones, with which measures, and how results are compared."""
