"""When a run is finished, whose it is, and what its logs say."""

import pytest

from mmkd_plugin.experiments import plan_runs, read_entries
from tests.experiments.helpers import entry, log, result, run, trained, validated


def test_a_finished_run_is_known_again(tmp_path):
    first = run(tmp_path, lr=0.1, lists=(1, 2), kind=dict)
    assert first.result is None
    first.begin()
    assert run(tmp_path, lr=0.1, lists=(1, 2), kind=dict).result is None
    first.finish(result(51.0))
    again = run(tmp_path, lr=0.1, lists=(1, 2), kind=dict)
    assert again.result == result(51.0)
    again.fail('why')
    assert run(tmp_path, lr=0.1, lists=(1, 2), kind=dict).failure == 'why'


def test_a_run_of_another_config_is_an_error_that_says_what_differs(tmp_path):
    run(tmp_path, optim=dict(lr=0.1), old=1).begin()
    with pytest.raises(
        ValueError, match=r'optim\.lr: 0\.1 there, 0\.2 now; old: 1 there, none now; new\.0: none there'
    ):
        run(tmp_path, optim=dict(lr=0.2), new=[1])


def test_where_a_run_is_belongs_to_no_config(tmp_path):
    run(tmp_path, work_dir='a').begin()
    run(tmp_path, work_dir='b')


def test_a_folder_of_something_else_is_an_error(tmp_path):
    (tmp_path / 'plain/seed0').mkdir(parents=True)
    run(tmp_path)
    (tmp_path / 'plain/seed0/thesis.tex').touch()
    with pytest.raises(ValueError, match='no run of a comparison'):
        run(tmp_path)


def test_order_and_other_comparisons(tmp_path):
    entries = [entry('a'), entry('b')]
    runs = plan_runs(entries, 2, tmp_path)
    assert list(map(str, runs)) == ['a, seed 0', 'b, seed 0', 'a, seed 1', 'b, seed 1']
    runs[1].begin()
    plan_runs([*entries, entry('c')], 3, tmp_path)  # more may come
    with pytest.raises(ValueError, match='another comparison, with runs of b'):
        plan_runs([entry('a')], 2, tmp_path)


def test_names(tmp_path):
    paths = [str(tmp_path / name) for name in ('a.py', 'x/a.py', 'x/A.py')]
    (tmp_path / 'x').mkdir()
    for path in paths:
        with open(path, 'w') as file:
            file.write('x = 1\n')
    entries = read_entries(paths[:2], {paths[1]: 'DKD + x'}, {'x': 2})
    assert [one.name for one in entries] == ['a', 'DKD + x']
    assert [one.folder for one in entries] == ['a', 'DKD_x']
    assert entries[1].resolved(3) == {'x': 2, 'randomness': {'seed': 3}}
    with pytest.raises(ValueError, match=r"both be called 'a': name one, as in --name"):
        read_entries(paths[:2])
    with pytest.raises(ValueError, match='both be called'):  # one folder, on some file systems
        read_entries([paths[0], paths[2]])
    with pytest.raises(ValueError, match='none of the configs'):
        read_entries(paths[:1], {'b.py': 'b'})
    with pytest.raises(FileNotFoundError, match='does not exist'):
        read_entries([str(tmp_path / 'b.py')])


def test_what_logs_say(tmp_path):
    one = run(tmp_path)
    log(
        one.folder, trained(10, 9.0), trained(20, 0.1), validated(50.0, 1), trained(30, 0.3), trained(40, 0.2),
        validated(60.0, 2, **{'teacher/accuracy/top1': 99.0, 'words': 'x', 'nan': float('nan')}),
    )  # fmt: skip
    assert one.measured() == ({'accuracy/top1': 60.0, 'teacher/accuracy/top1': 99.0}, 0.2, None)


def test_what_logs_of_a_resumed_run_say(tmp_path):
    """The first interval of each attempt is left out; a line that was cut is nothing; memory is that of a GPU."""
    one = run(tmp_path)
    first = log(one.folder, trained(10, 9.0), trained(20, 0.1), validated(70.0, 1))
    first.write_text(first.read_text() + '{"lr": 0.')
    log(one.folder, trained(30, 9.0, memory=300), trained(40, 0.3, memory=200), validated(60.0, 2), attempt='20260102')
    metrics, step_time, memory = one.measured()
    assert metrics == {'accuracy/top1': 60.0}
    assert step_time == pytest.approx(0.2)
    assert memory == 300


def test_prefixes_of_the_hierarchy(tmp_path):
    one = run(tmp_path)
    records = [{f'train/{key}' if key == 'time' else key: value for key, value in trained(i).items()} for i in (1, 2)]
    log(one.folder, *records, {f'val/{key}' if key != 'step' else key: v for key, v in validated(60.0, 2).items()})
    assert one.measured() == ({'accuracy/top1': 60.0}, 0.1, None)


def test_no_validation_at_the_end_is_an_error(tmp_path):
    one = run(tmp_path)
    with pytest.raises(ValueError, match='no metrics were logged'):
        one.measured()
    log(one.folder, trained(10), validated(50.0, 1), trained(20))
    with pytest.raises(ValueError, match='at the end of training'):
        one.measured()
