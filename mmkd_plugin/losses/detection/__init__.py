"""Losses for dense prediction: feature maps of detectors, and what their dense heads put out."""
