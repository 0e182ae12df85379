import multiprocessing
import xml.etree.ElementTree as ElementTree
from itertools import islice, pairwise

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS

from mmkd_plugin.datasets import DigitScenes, digit_scenes_root
from mmkd_plugin.datasets.digit_scenes import CLASSES, SPLITS, scenes


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('cache')
    digit_scenes_root(root)
    return root


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def test_voc_layout(root):
    folder = digit_scenes_root(root)
    for split, count in SPLITS.items():
        names = (folder / 'ImageSets/Main' / f'{split}.txt').read_text().split()
        assert len(names) == count
        assert all((folder / 'JPEGImages' / f'{name}.jpg').exists() for name in names)
    tree = ElementTree.parse(folder / 'Annotations/train_0000.xml')
    assert {o.findtext('name') for o in tree.findall('object')} <= set(CLASSES)
    assert tree.findtext('filename') == 'train_0000.jpg'


def test_same_pictures_each_time(root, tmp_path):
    assert files(digit_scenes_root(tmp_path)) == files(digit_scenes_root(root))


def test_is_kept_and_not_rendered_again(root, capfd):
    folder = digit_scenes_root(root)
    stamp = folder.stat().st_mtime_ns
    assert digit_scenes_root(root) == folder
    assert folder.stat().st_mtime_ns == stamp
    assert 'rendering' not in capfd.readouterr().err


def test_lives_in_the_users_cache_folder(root, monkeypatch):
    (root / 'mmkd_plugin').symlink_to(root)
    monkeypatch.setenv('XDG_CACHE_HOME', str(root))
    assert digit_scenes_root().samefile(digit_scenes_root(root))


def test_an_interrupted_rendering_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        'mmkd_plugin.datasets.digit_scenes.scenes', lambda split: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        digit_scenes_root(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_at_once(root, tmp_path):
    with multiprocessing.get_context('fork').Pool(2) as pool:
        folders = pool.map(digit_scenes_root, [tmp_path, tmp_path])
    assert folders[0] == folders[1]
    assert files(folders[0]) == files(digit_scenes_root(root))
    assert list(tmp_path.iterdir()) == [folders[0]]


@pytest.mark.parametrize('split', SPLITS)
def test_digits_lie_in_their_boxes_and_apart(split):
    found = list(islice(scenes(split), 40))
    assert {len(boxes) for _, boxes in found} == {1, 2, 3, 4, 5}
    assert {box.label for _, boxes in found for box in boxes} == set(range(10))
    for picture, boxes in found:
        assert picture.shape == (160, 160, 3)
        assert picture.dtype == np.uint8
        covered = np.zeros((160, 160), int)
        for _, x1, y1, x2, y2 in boxes:
            assert 0 <= x1 < x2 < 160
            assert 0 <= y1 < y2 < 160
            assert 19 <= y2 - y1 <= 59
            covered[y1 : y2 + 1, x1 : x2 + 1] += 1
        assert covered.max() == 1


def test_scenes_differ():
    pictures = [picture for picture, _ in islice(scenes('train'), 5)] + [next(scenes('test'))[0]]
    assert all(np.abs(a.astype(int) - b).mean() > 10 for a, b in pairwise(pictures))


@pytest.mark.openmmlab
def test_mmdets_dataset_reads_what_was_drawn(root):
    dataset = DATASETS.build({'type': 'DigitScenes', 'split': 'test', 'images': 5, 'root': str(root)})
    assert type(dataset).__name__ == 'VOCDataset'
    assert len(dataset) == 5
    assert dataset.metainfo['classes'] == CLASSES
    for index, (picture, boxes) in enumerate(islice(scenes('test'), 5)):
        info = dataset.get_data_info(index)
        assert [instance['bbox_label'] for instance in info['instances']] == [box.label for box in boxes]
        assert [instance['bbox'] for instance in info['instances']] == [list(box[1:]) for box in boxes]
        difference = np.abs(cv2.imread(info['img_path']).astype(int) - picture)
        assert difference.mean() < 10  # JPEG


@pytest.mark.openmmlab
def test_splits_and_numbers(root):
    assert len(DigitScenes(root=str(root))) == 600
    with pytest.raises(ValueError, match="split='val' given, expected 'train' or 'test'"):
        DigitScenes('val')
    with pytest.raises(ValueError, match=r"images=900 given, expected a whole number from 1 to 200 \(split='test'\)"):
        DigitScenes('test', images=900)


def test_picture_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, 'imwrite', lambda *_: False)
    with pytest.raises(OSError, match='could not write'):
        digit_scenes_root(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='set XDG_CACHE_HOME to a folder that can be written'):
        digit_scenes_root(tmp_path / 'file')


@pytest.mark.openmmlab
def test_boxes_of_some_digits(root):
    """The pictures stay as they are, and the labels count all classes; what has none of them is left out."""
    whole, some = (DigitScenes('test', root=str(root), classes=classes) for classes in (None, [8, 5]))
    kept = {
        info['img_id']: [box for box in info['instances'] if box['bbox_label'] in (5, 8)]
        for info in map(whole.get_data_info, range(len(whole)))
    }
    found = {info['img_id']: info['instances'] for info in map(some.get_data_info, range(len(some)))}
    assert found == {name: boxes for name, boxes in kept.items() if boxes}
    assert 0 < len(some) < len(whole)
    assert some.metainfo['classes'] == CLASSES[:9]
    assert len(DigitScenes('test', 10, str(root), classes=range(5))) == 10
    with pytest.raises(ValueError, match='expected some of the digits 0 to 9'):
        DigitScenes(classes=['5'])
