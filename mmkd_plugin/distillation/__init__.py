"""Distillation: the student that learns, and what a training step adds."""
