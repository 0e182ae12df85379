"""What `tools/explain.py` does: networks and images of a config, a folder of results, tables and pictures."""

from .explain import explain

__all__ = ['explain']
