"""Data sets, training and distillation."""
