"""The experiment with KCD's values: what it compares, what that costs, and how it is told."""

import json
import statistics
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS

from mmkd_plugin.kcd import KCDHook
from mmkd_plugin.kcd.experiment import SETTINGS, SIZE, VALUES, cases, write_configs
from mmkd_plugin.kcd.experiment_table import draw, markdown, read_rows, values
from tests.end_to_end.helpers import forked, parse
from tests.experiments.helpers import finished, log

pytestmark = pytest.mark.openmmlab


def by_method(ratio):
    return {(case.method, case.epochs): case for case in cases('duplicates', ratio)}


def test_passes_by_hand():
    # 4 epochs each with 1,000, 925, 850, 775 and 700 samples; 0, 75, 150 and 225 were looked at
    found = by_method(0.7)
    assert found['entropy', 20].passes == found['random, fresh', 20].passes == 17000
    assert found['kl, pass', 20].passes == 17000 + 450
    assert found['all data', 20].passes == 20000
    assert found['all data', 17].passes == 17000
    found = by_method(0.5)
    assert (found['loss, aged', 20].passes, found['loss, pass', 20].passes) == (15000, 15750)
    assert found['all data', 15].passes == 15000


def test_every_value_in_every_way():
    methods = [case.method for case in cases('clean', 0.7)]
    assert methods[:4] == ['all data', 'all data', 'random, fresh', 'random, fixed']
    for value in VALUES:
        assert {value, f'{value}, pass'} <= set(methods)
        assert (f'{value}, aged' in methods) == (value != 'forgetting')
    assert 'entropy, mixed' in methods
    assert len(methods) == 19


CASES = (
    'clean_1_all_data_17',
    'noise_0.7_kl__aged_20',
    'duplicates_0.5_entropy__mixed_20',
    'clean_0.7_random__fixed_20',
)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp('experiment')
    return folder, *write_configs(folder)


def test_configs_are_there_once(written):
    folder, teacher, found = written
    assert len(found) == 75  # all data for 20 epochs stand for both settings with near-duplicates
    assert {path.stem for path in found} == {case.name for case in found.values()}
    assert Config.fromfile(teacher).train_cfg.max_epochs == 20
    before = {path: path.stat().st_mtime_ns for path in found}
    write_configs(folder)
    assert before == {path: path.stat().st_mtime_ns for path in found}


@pytest.mark.parametrize('name', CASES)
def test_a_config_says_what_the_case_is(written, name):
    folder, teacher, found = written
    ((path, case),) = ((path, case) for path, case in found.items() if case.name == name)
    config = Config.fromfile(path)
    assert config.model.teacher == {'config': str(teacher), 'checkpoint': str(folder / 'teacher/epoch_20.pth')}
    assert config.train_cfg.max_epochs == config.param_scheduler.total_steps == case.epochs
    assert len(DATASETS.build(config.train_dataloader.dataset)) == SIZE
    assert config.train_dataloader.dataset.get('label_noise', 0) == (0.1 if case.data == 'noise' else 0)
    assert 'label_noise' not in config.val_dataloader.dataset
    hooks = [dict(hook) for hook in config.custom_hooks if hook.type == 'KCDHook']
    assert len(hooks) == (case.hook is not None)
    for hook in hooks:
        assert hook.pop('type') == 'KCDHook'
        built = KCDHook(**hook)
        assert built.final_ratio == case.ratio
        assert built.mixing == ('convex' if case.method == 'entropy, mixed' else None)


def test_every_hook_can_be_built():
    for setting in SETTINGS:
        for case in cases(*setting):
            KCDHook(**(case.hook or {}))


@pytest.fixture
def told(tmp_path):
    given = {
        'clean_1_all_data_17': (90.0, 92.0),
        'clean_0.7_random__fresh_20': (91.0, 93.0),
        'clean_0.7_loss_20': (96.0, 98.0),
    }
    runs = [run for name, values in given.items() for run in finished(tmp_path, name, values)]
    for run in runs[-2:]:
        log(run.folder, *({'kcd/returned': some, 'kcd/dropped_before': all_} for some, all_ in ((0, 0), (30, 40))))
    return read_rows({case.name: case for case in cases('clean', 0.7)}, runs)


def test_table_by_hand(told):
    table = markdown(told)
    error = (2 / 2 + 2 / 2) ** 0.5
    assert statistics.variance([96.0, 98.0]) == 2
    assert (
        f'| loss | 17,000 | 97.00 ± 1.41 | 2 | +5.00 ± {error:.2f}, above | +6.00 ± {error:.2f}, above | 75 % |'
        in table
    )
    assert f'| random, fresh | 17,000 | 92.00 ± 1.41 | 2 |  | +1.00 ± {error:.2f} |  |' in table
    assert f'| all data, 17 epochs | 17,000 | 91.00 ± 1.41 | 2 | -1.00 ± {error:.2f} |  |  |' in table
    assert table.count('###') == 1
    figures = json.loads(values(told))
    assert [one['top1'] for one in figures] == [[90.0, 92.0], [91.0, 93.0], [96.0, 98.0]]


def test_picture(told):
    figure = draw(told)
    panels = figure.axes
    assert len(panels) == len(SETTINGS)
    assert [tick.get_text() for tick in panels[0].get_xticklabels()] == ['17,000']
    container: Any = panels[0].containers[2]
    (bar,) = container.lines[2]
    low, high = sorted(bar.get_segments()[0][:, 1])
    assert (low, high) == pytest.approx((97 - 2, 97 + 2))  # a standard error of 1


def test_slips(tmp_path):
    assert parse('kcd_experiment.py').seeds == 5
    for slip in (['--seeds', '0'], ['--epochs', '8']):
        with pytest.raises(SystemExit):
            parse('kcd_experiment.py', *slip)
    done = forked('tools/kcd_experiment.py', '--work-dir', tmp_path, '--only', 'nothing', check=False)
    assert done.returncode == 1
    assert 'kcd_experiment.py: --only nothing names no case' in done.stdout
