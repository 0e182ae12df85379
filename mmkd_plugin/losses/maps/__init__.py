"""Losses that compare feature maps of one sample, layer by layer or across layers."""
