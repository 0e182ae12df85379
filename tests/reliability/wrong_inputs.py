"""The table of wrong inputs: what is wrong, how, and what the error must say."""

from collections.abc import Mapping
from typing import Any, NamedTuple

KD: dict[str, Any] = {'type': 'KDLoss', 'on': 'head.fc', 'temperature': 4.0, '_delete_': True}
LOSS, TEACHER = 'model.losses.loss_kd', 'model.teacher'


class Wrong(NamedTuple):
    """One wrong input.

    Attributes:
        kind: ``config``, ``file``, ``data``, ``schedule`` or ``process``.
        what: In words.
        changed: Options of the config; ``{path}`` stands for what `made` makes.
        says: What the error must hold: what was given, what was expected, what to do.
        config: Below ``configs/``.
        made: One of ``wrong_files.MAKERS``.
        argv: More of the command line.
    """

    kind: str
    what: str
    changed: Mapping[str, Any] = {}
    says: tuple[str, ...] = ()
    config: str = 'kd_resnet.py'
    made: str | None = None
    argv: tuple[str, ...] = ()


def _loss(**changed: Any) -> dict[str, Any]:
    return {LOSS: {**KD, **changed}}


def _later(**schedule: Any) -> dict[str, Any]:
    return {LOSS: {**KD, 'schedule': schedule}}


def _file(what: str, made: str, *says: str) -> Wrong:
    return Wrong('file', f'teacher checkpoint: {what}', {f'{TEACHER}.checkpoint': '{path}'}, says, made=made)


_STORE = {f'{TEACHER}.store': {'path': '{path}', 'views': 2}}
_NUMBER, _WHOLE = 'expected a finite number', 'expected a whole number >= 0'
_AGAIN, _PLAIN = 'Download or copy it again', 'torch.save(model.state_dict(), path)'
CONFIGS = [
    Wrong('config', 'a loss that is misspelt', _loss(type='KDLos'), ("'KDLos'", 'did you mean KDLoss')),
    Wrong('config', 'a loss without `on`', {LOSS: {'type': 'KDLoss', '_delete_': True}},
          ("{'type': 'KDLoss'} given", 'at least `type` and `on`')),
    Wrong('config', 'a tap that is not there', _loss(on='head.fcc'),
          ("no module 'head.fcc'", 'Near names: head.fc', 'list_modules.py')),
    Wrong('config', 'a tap that is no path', _loss(on='head.fc@@2'), ("'head.fc@@2' given", "expected 'module.path'")),
    Wrong('config', 'a side that is misspelt', _loss(on={'studnt': 'head.fc', 'teacher': 'head.fc'}),
          ('studnt', 'did you mean student', "expected 'student'")),
    Wrong('config', 'class scores compared where there are none', _loss(on='backbone.layer4'),
          ("'backbone.layer4' of the student lies before the classifier", "tap that, such as 'head.fc'")),
    Wrong('config', 'temperature 0', _loss(temperature=0), ('temperature=0 given', _NUMBER)),
    Wrong('config', 'a word as a temperature', _loss(temperature='4'), ("temperature='4' given", _NUMBER)),
    Wrong('config', 'a negative weight', _loss(loss_weight=-1), ('loss_weight=-1 given', _NUMBER)),
    Wrong('config', 'an argument that is misspelt', _loss(temprature=4), ("'temprature'", 'KDLoss(temperature: float')),
    Wrong('config', 'a name that mmengine does not add up', {'model.losses.kd': KD},
          ("'kd'", "contains 'loss'", "such as 'loss_kd'")),
    Wrong('config', 'all losses dropped', {LOSS: None}, ("{'loss_kd': None} are dropped", 'use its own config')),
    Wrong('config', 'a student that is not registered', {'model.student': 'ImageClasifier'},
          ("student='ImageClasifier' given", 'did you mean ImageClassifier')),
    Wrong('config', 'a teacher config that is not there', {f'{TEACHER}.config': 'mmkd_plugin::digits/resnet_teachr.py'},
          ("no config 'digits/resnet_teachr.py'", 'configs/digits: ')),
    Wrong('config', 'a key of the teacher that is misspelt', {f'{TEACHER}.chekpoint': 'a.pth'},
          ("['chekpoint']", 'did you mean checkpoint')),
    Wrong('config', 'a precision that does not exist', {f'{TEACHER}.precision': 'float8'},
          ("precision='float8' given", "expected 'fp32'")),
    Wrong('config', 'teacher and teachers', {'model.teachers': {'a': 'mmkd_plugin::digits/resnet_teacher.py'}},
          ('give either teacher=... or teachers=',)),
    Wrong('config', 'maps with other channels', {
        'model.losses.loss_fsp': {'type': 'FSPLoss', 'on': [['backbone.layer1', 'backbone.layer2']]}},
        ("student 'backbone.layer2' (2, 8,", "teacher 'backbone.layer2' (2, 32,", 'expected')),
    Wrong('config', 'more layers of one side', {'model.losses.loss_at': {
        'type': 'ATLoss', 'on': {'student': ['backbone.layer2', 'backbone.layer3'], 'teacher': 'backbone.layer4'}}},
        ("'backbone.layer3'], 'teacher'", 'expected as many layers of each side')),
    Wrong('config', 'a learner that is none', _loss(learner='teacher'), ("learner='teacher'", "one of ['student']")),
    Wrong('config', 'a student of other classes', {'model.head.num_classes': 9},
          ('(2, 9)', '(2, 10)', 'expected two tensors of the same shape')),
    Wrong('config', 'nothing that trains', {'model.task_loss': {'loss_weight': 0}, f'{LOSS}.loss_weight': 0},
          ('nothing trains the student', 'task_loss has the weight 0')),
    Wrong('config', 'a weight of the task in words', {'model.task_loss': {'loss_weight': '1'}},
          ("task_loss: loss_weight='1' given", _NUMBER)),
    Wrong('config', 'labels asked of mixed images', {
        'model.losses.loss_dkd': {'type': 'DKDLoss', 'on': 'head.fc'},
        'model.train_cfg': {'augments': {'type': 'Mixup', 'alpha': 1.0}}},
        ('needs one class per image', 'remove train_cfg.augments')),
    Wrong('config', 'turns without anybody to take them', {'custom_hooks': [{'type': 'InTurnHook'}]},
          ('nobody to take turns with', "type='Peer'", 'drop the hook')),
    Wrong('config', 'a bound on a metric that is not measured', {
        'custom_hooks': [{'type': 'TeacherEvalHook', 'at_least': {'mAP': 1.0}}]},
        ("names 'mAP'", "gives ['accuracy/top1']")),
]  # fmt: skip
FILES = [
    _file('no such file', 'nothing', 'does not exist (looked at', 'Train the teacher first'),
    _file('a folder', 'folder', 'is a folder, expected a file', 'In it: no checkpoints'),
    _file('empty', 'empty', 'is empty', _AGAIN),
    _file('a web page', 'page', 'is a web page (HTML)', 'Take the address of the file itself'),
    _file('a pointer of git-lfs', 'pointer', 'a pointer of git-lfs', 'Run `git lfs pull`'),
    _file('cut in the download', 'cut', 'is incomplete', _AGAIN),
    _file('a pickle', 'pickle', 'plain Python pickle', _PLAIN),
    _file('a whole model', 'model', 'pickled Python objects (torch.nn.modules.linear.Linear)', _PLAIN),
    _file(
        'TorchScript', 'torchscript', 'is a TorchScript file', "torch.save(torch.jit.load('...').state_dict(), path)"
    ),
    _file('numpy arrays', 'arrays', 'an archive of numpy arrays', _PLAIN),
    _file('damaged safetensors', 'safetensors', 'a damaged safetensors file', _AGAIN),
    _file(
        'NaN in it', 'nan', 'NaN or infinite weights', 'backbone.layer2.0.conv1.weight', 'give an earlier checkpoint'
    ),
    _file('half of the layers', 'half', 'missing (in the model, not in the file): backbone.layer4', 'Give the config'),
    _file('other names', 'renamed', 'does not fit ImageClassifier', "revise_keys=[('^net"),
    _file('weights under another key', 'elsewhere', 'has no state_dict', "state_key='model'"),
    _file('of another network', 'another', 'does not fit ImageClassifier', 'Give the config'),
]
DATA = [
    Wrong('data', 'no images', {'train_dataloader.dataset.indices': []}, ('got 0',)),
    Wrong('data', 'more images than there are', {'train_dataloader.dataset.per_class': 401},
          ('per_class=401 given', 'expected 1 to 400')),
    Wrong('data', 'only the teacher normalises', {'data_preprocessor.mean': None, 'data_preprocessor.std': None},
          ("the teacher's data_preprocessor normalises", 'Give both their mean and std')),
    Wrong('data', 'images of another number of channels', {'model.backbone.in_channels': 3},
          ('(2, 3, 224, 224)', 'to have 1 channels')),
    Wrong('data', 'labels beyond the classes', {
        LOSS: None, 'model.losses.loss_at': {'type': 'ATLoss', 'on': 'backbone.layer3'}, 'model.head.num_classes': 5},
        ('is out of bounds',)),
    Wrong('data', 'more negatives than images', {}, ('num_negatives=128 given', 'give num_negatives=36 or less'),
          config='digits/crd_resnet.py'),
    Wrong('data', 'a teacher worse than asked for', {
        'custom_hooks': [{'type': 'TeacherEvalHook', 'at_least': {'accuracy/top1': 100.0}}]},
        ('teacher reaches accuracy/top1', 'at_least=100.0 was asked for', 'Wrong checkpoint, class order')),
    Wrong('data', 'images mixed by the batch, with a store', {
        **_STORE, 'model.train_cfg': {'augments': {'type': 'Mixup', 'alpha': 1.0}}},
        ('changes images by the batch', 'remove them, or drop store'), made='nothing'),
    Wrong('data', 'KCD with a sampler of its own', {
        'custom_hooks.2.interval': 1, 'train_dataloader.sampler': {'type': 'InfiniteSampler', '_delete_': True}},
        ('the sampler InfiniteSampler', 'expected DefaultSampler'), config='kcd_resnet.py'),
    Wrong('data', 'KCD without a round', {'custom_hooks.2.interval': 9}, ('interval=9', 'expected begin + interval <'),
          config='kcd_resnet.py'),
    Wrong('data', 'a store of another pipeline', _STORE, ('padding: 3 then, 2 now', 'Undo that, or give another path'),
          made='store'),
    Wrong('data', 'a store with a damaged header', _STORE, ('is damaged', 'delete the store, and it is filled anew'),
          made='header'),
    Wrong('data', 'a store without views', {f'{TEACHER}.store': {'path': '{path}'}},
          ('given, expected at least path and views',), made='nothing'),
    Wrong('data', 'resumed with other data', {
        'model.losses.loss_crd.num_negatives': 20, 'train_dataloader.dataset.per_class': 5},
        ('embeddings of 40 samples', 'this run of 50', 'Resume with the data of then'),
        config='digits/crd_resnet.py', made='of_crd', argv=('--resume', '{path}')),
]  # fmt: skip
SCHEDULES = [
    Wrong('schedule', 'begins after the end of the run', _later(begin=99), ('begins at epoch 99', 'this run has 2')),
    Wrong('schedule', 'ends before it begins', _later(begin=1, end=1),
          ('begin=1, end=1 given', 'expected end > begin')),
    Wrong('schedule', 'a negative epoch', _later(begin=-1), ('begin=-1 given', _WHOLE)),
    Wrong('schedule', 'a word as a length', _later(warmup='3'), ("warmup='3' given", _WHOLE)),
    Wrong('schedule', 'a key that is misspelt', _later(warmip=1), ("'warmip'", 'did you mean warmup')),
    Wrong('schedule', 'a curve that is unknown', _later(decay=2, curve='sine'),
          ("curve='sine' given", "'linear', 'cosine'")),
    Wrong('schedule', 'an exponential fall to 0', _later(decay=2, curve='exponential'),
          ("curve='exponential' never reaches 0", 'give final=...')),
    Wrong('schedule', 'an end value without a fall', _later(final=0.5), ('final=0.5 given without decay',)),
    Wrong('schedule', 'by_epoch in words', _later(begin=1, by_epoch='no'), ("by_epoch='no' given", 'True or False')),
    Wrong('schedule', 'everything off in between', {**_later(end=1), 'model.task_loss': {'loss_weight': 0}},
          ('from epoch 1 on every loss is off', 'nothing would train')),
    Wrong('schedule', 'epochs of a run that counts iterations', {
        **_later(begin=1), 'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 4, '_delete_': True},
        'param_scheduler': []}, ('a schedule that counts epochs', 'by_epoch=False in the schedule')),
]  # fmt: skip
PROCESSES = [
    Wrong('process', 'a config that is not there', {}, ('kd_resnt.py', 'does not exist (looked at'), 'kd_resnt.py'),
    Wrong('process', 'a config that is no Python', {}, ('made.py', 'is no Python', 'never closed'), '{path}', 'config'),
    Wrong('process', 'mixed precision without a GPU', {}, ('--amp', 'needs a GPU', 'drop it'), argv=('--amp',)),
    Wrong('process', 'a learning rate scaled by nothing', {}, ('needs auto_scale_lr=dict(base_batch_size=...)',),
          argv=('--auto-scale-lr',)),
    Wrong('process', 'a launcher that is unknown', {}, ("invalid choice: 'torchrun'",),
          argv=('--launcher', 'torchrun')),
    Wrong('process', 'a launcher without its environment', {}, ('RANK, WORLD_SIZE', 'tools/dist_train.sh'),
          argv=('--launcher', 'pytorch')),
    Wrong('process', 'resumed from a file that is not there', {}, ('does not exist', 'takes the latest'),
          made='nothing', argv=('--resume', '{path}')),
    Wrong('process', 'resumed from a cut file', {}, ('is incomplete', _AGAIN), made='cut', argv=('--resume', '{path}')),
    Wrong('process', 'resumed with other losses', {}, ('only there distill.losses.loss_fitnet', 'Resume with'),
          made='of_fitnet', argv=('--resume', '{path}')),
    Wrong('process', 'a work folder that another run is using', {}, ('another run is using', 'give another --work-dir'),
          made='locked', argv=('--work-dir', '{path}')),
    Wrong('process', 'a work folder that is a file', {}, ('nothing can be written into', 'give another folder'),
          made='empty', argv=('--work-dir', '{path}')),
]  # fmt: skip
#: All of them.
TABLE = [*CONFIGS, *FILES, *DATA, *SCHEDULES, *PROCESSES]
#: What mmengine and torch say in plain training, too, in their own words.
OTHERS_WORDS = ('data: no images', 'data: labels beyond the classes')
