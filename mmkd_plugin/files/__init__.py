"""Files: configs by name, checkpoints as untrusted input, and what is written whole or not at all."""

from .atomic import register, save_checkpoint, write_bytes, write_text
from .checkpoint import read_checkpoint, state_dict_of
from .configs import config_path, load_config, read_config

__all__ = [
    'config_path',
    'load_config',
    'read_checkpoint',
    'read_config',
    'register',
    'save_checkpoint',
    'state_dict_of',
    'write_bytes',
    'write_text',
]
