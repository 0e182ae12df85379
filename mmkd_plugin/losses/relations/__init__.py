"""Losses that compare relations: between the samples of a batch, or between the layers of a network."""
