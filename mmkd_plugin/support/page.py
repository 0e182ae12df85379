"""The table for users."""
from pathlib import Path
from .record import Record
def write_page(path: Path, record: Record) -> bool:
    return False
