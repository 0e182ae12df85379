"""What holds for all of the package's models together."""

from collections.abc import Iterator

import pytest
from mmengine.registry import MODELS, Registry

from mmkd_plugin import models

pytestmark = pytest.mark.openmmlab


def below(registry: Registry) -> Iterator[Registry]:
    for child in registry.children.values():
        yield child
        yield from below(child)


@pytest.mark.parametrize('name', models.__all__)
def test_registered_in_the_root_and_nowhere_else(name):
    import mmdet.models  # noqa: F401
    import mmpretrain.models  # noqa: F401

    assert MODELS.module_dict[name] is getattr(models, name)
    children = list(below(MODELS))
    assert {'mmdet', 'mmpretrain'} <= {child.scope for child in children}
    assert [child.scope for child in children if name in child.module_dict] == []
