"""Comparisons of distillation methods on real images: settings, runs, tables and plots."""
