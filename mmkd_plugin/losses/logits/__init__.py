"""Losses that compare class scores."""
