"""What a file is, by its first bytes: so that an error can say it of a file that is no checkpoint."""

import html
import re
import zipfile
from pathlib import Path

_AGAIN = 'Download or copy it again'
_UNPACK = 'Unpack it, and give the checkpoint inside'
_CONVERT = 'Load it with the program that wrote it, and save plain tensors with torch.save(model.state_dict(), path)'
_POINTER = (
    'a pointer of git-lfs, and not the file itself',
    'Run `git lfs pull` in the repository that it comes from',
)

_STARTS = {
    b'version https://git-lfs': _POINTER,
    b'\x89HDF\r\n\x1a\n': ('an HDF5 file (Keras, h5py)', _CONVERT),
    b'\x93NUMPY': ('a numpy array', _CONVERT),
    b'GGUF': ('a GGUF file', _CONVERT),
    b'\x1f\x8b': ('packed with gzip', _UNPACK),
    b'BZh': ('packed with bzip2', _UNPACK),
    b'\xfd7zXZ': ('packed with xz', _UNPACK),
    b'7z\xbc\xaf': ('a 7z archive', _UNPACK),
    b'(\xb5/\xfd': ('packed with zstd', _UNPACK),
}
_LEGACY = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # the number that torch.save wrote first before it wrote zip archives
_PICKLES = {bytes([0x80, protocol]) for protocol in range(2, 6)}
_ONNX_FIELDS = b'\x12\x1a"*2:B'  # the tags that can follow the version in a protobuf of onnx.ModelProto


def is_safetensors(path: Path) -> bool:
    """Whether a file is in the safetensors format: the length of a header, and the header, which is JSON."""
    head = _head(path, 9)
    return head[8:] == b'{' and 0 < int.from_bytes(head[:8], 'little') < 1 << 30


def not_by_torch(path: Path) -> str | None:
    """What a file is and what to do with it, if ``torch.save`` did not write it whole.

    Args:
        path: An existing file.

    Returns:
        None for what ``torch.load`` can be tried on.
    """
    head = _head(path, 4096)
    if not head:
        return f'is empty. {_AGAIN}'
    if head.startswith(b'PK'):
        return _not_in_zip(path)
    if (b'\x80\x02' + _LEGACY).startswith(head):
        return f'is incomplete: it ends in the first number that torch.save writes. {_AGAIN}'
    if head[:2] in _PICKLES:
        return None if _LEGACY in head[:64] else f'is a plain Python pickle, not a file of torch.save. {_CONVERT}'
    for start, (what, advice) in _STARTS.items():
        if head.startswith(start):
            return f'is {what}. {advice}'
    if head[257:262] == b'ustar':
        return f'is a tar archive. {_UNPACK}'
    if head[:1] == b'\x08' and head[2:3] and head[2:3] in _ONNX_FIELDS:
        return (
            'is an ONNX file, a graph whose weights no longer have the names of a PyTorch model. '
            'Give the checkpoint that it was exported from'
        )
    return _not_in_text(head) or f'begins with {head[:8]!r}, which no file of torch.save does. {_AGAIN}, or convert it'


def _head(path: Path, length: int) -> bytes:
    with open(path, 'rb') as file:
        return file.read(length)


def _not_in_zip(path: Path) -> str | None:
    """As :func:`not_by_torch`, of a zip archive."""
    if not zipfile.is_zipfile(path):
        return f'is incomplete: a zip archive, as torch.save writes, without its end. {_AGAIN}'
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith('/constants.pkl') for name in names):
        return (
            'is a TorchScript file (torch.jit): a program, and not only weights. Save these with '
            "torch.save(torch.jit.load('...').state_dict(), path)"
        )
    if any(name.endswith('/data.pkl') for name in names):
        return None
    if names and all(name.endswith('.npy') for name in names):
        return f'is an archive of numpy arrays (.npz). {_CONVERT}'
    shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
    return f'is a zip archive without a checkpoint of torch.save in it; it holds {shown or "nothing"}. {_UNPACK}'


def _not_in_text(head: bytes) -> str | None:
    """As :func:`not_by_torch`, of text; None for anything else."""
    text = head.decode('utf-8-sig', errors='replace').strip()
    if text.lower().startswith(('<!doctype html', '<html', '<head')):
        title = re.search(r'<title[^>]*>(.*?)</title>', text, re.IGNORECASE | re.DOTALL)
        named = f" with the title '{html.unescape(title[1]).strip()[:80]}'" if title else ''
        return (
            f'is a web page (HTML){named}, such as one to sign in, or one about the file. '
            'Take the address of the file itself (on GitHub the one with /raw/ in place of /blob/)'
        )
    # the last character may have been cut
    if '\ufffd' not in text[:-1] and all(line.replace('\t', '').isprintable() for line in text.splitlines()):
        return f"is text that begins with '{text[:60].splitlines()[0] if text else ''}'. Give the file of the weights"
    return None
