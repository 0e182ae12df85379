"""Knowledge on disk: what a frozen teacher says of each sample and view, in records that are checked when read."""

from .drawn import drawn
from .forms import Form, Shifted, TopK, Whole, choose_form, form_of
from .header import FORMAT, Header, differences
from .identity import identity_of_data, identity_of_pipeline, versions
from .options import StoreOptions
from .records import Records

__all__ = [
    'FORMAT',
    'Form',
    'Header',
    'Records',
    'Shifted',
    'StoreOptions',
    'TopK',
    'Whole',
    'choose_form',
    'differences',
    'drawn',
    'form_of',
    'identity_of_data',
    'identity_of_pipeline',
    'versions',
]
