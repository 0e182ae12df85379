"""What `benchmark.py` runs, in order: the figures that a GPU is asked for first, then tests, then the rest."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEP = 'tools/benchmark_step.py'
CLASSIFIERS = 'configs/classification/kd/kd_resnet34_resnet18_8xb64_in1k.py'
TWO_STAGE = 'configs/detection/dkd/dkd_faster-rcnn_r101_r18_fpn_180k_coco.py'
OPS = "mmcv's compiled operations"
# one pair for all, GFL with ResNet-101 and 50, so that methods can be compared; what is not said is the losses' default
DENSE = """
_base_ = __import__('mmkd_plugin').config_path('_base_/pairs/gfl_r101_r50_fpn_1x_coco.py')
model = dict(losses=dict({losses}))
"""
NECK, SCORES, BINS = ([f'{path}[{i}]' for i in range(5)] for path in ('neck', 'bbox_head[0]', 'bbox_head[1]'))
HEAD = SCORES + BINS
DENSE_LOSSES = {
    'cwd': f'loss_cwd=dict(type="CWDLoss", on={NECK})',
    'pkd': f'loss_pkd=dict(type="PKDLoss", on={NECK})',
    'sigmoid-kd': f'loss_kd=dict(type="QFLKDLoss", on={SCORES})',
    'ld': f'loss_ld=dict(type="LDLoss", on={HEAD})',
    'fgd': f'loss_fgd=dict(type="FGDLoss", on={NECK})',
    'mgd': f'loss_mgd=dict(type="MGDLoss", on={NECK})',
}


@dataclass(frozen=True)
class Part:
    """A command, run in a process of its own.

    Args:
        name: What ``--only`` calls it.
        title: What the report calls it.
        command: After ``python``; '{config}' becomes the path of the config.
        needs: Names of `benchmark_machine.NEEDS`.
        limit: Seconds after which it is ended.
        config: The text of a config made for it.
    """

    name: str
    title: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    limit: int = 120
    config: str = ''


def parts(gpu: bool) -> list[Part]:
    """All of them, at sizes fit for a GPU or for a CPU.

    Args:
        gpu: Whether there is one.
    """
    if gpu:
        return [*_steps(gpu), *_dense(gpu), *_gpu_tests(), _losses(gpu), *_others(gpu)]
    return [*_steps(gpu), *_others(gpu), *_dense(gpu), _losses(gpu)]  # the longest last


def _steps(gpu: bool) -> Iterator[Part]:
    sizes: tuple[str, ...] = (
        ('--batch-size', '256') if gpu else ('--batch-size', '8', '--rounds', '3', '--warmup', '1', '--no-memory')
    )
    variants: list[tuple[str, ...]] = [(), ('--precision', 'bf16')]
    for options in (
        [*variants, ('--amp',), ('--amp', '--precision', 'bf16'), ('--amp', '--stream')] if gpu else variants
    ):
        named = '-'.join(option.strip('-') for option in options if option != '--precision')
        yield Part(
            f'step-classification{named and "-"}{named}', f'A step of ResNet34→18 with KD{named and ", "}{named}',
            (STEP, CLASSIFIERS, *sizes, *options), ('mmpretrain',),
        )  # fmt: skip
    sizes = (
        ('--image-size', '800', '1333', '--batch-size', '2', '--rounds', '8')
        if gpu
        else ('--image-size', '640', '--batch-size', '1', '--rounds', '2', '--warmup', '1', '--no-memory')
    )
    for amp in ((), ('--amp',)) if gpu else ((),):
        yield Part(
            f'step-detection{"".join(amp)[1:]}', f'A step of Faster R-CNN R101→R18 with DKD{", AMP" if amp else ""}',
            (STEP, TWO_STAGE, *sizes, *amp), ('mmdet', OPS),
        )  # fmt: skip


def _dense(gpu: bool) -> Iterator[Part]:
    sizes: tuple[str, ...] = (
        ('--image-size', '640', '--batch-size', '8', '--rounds', '5', '--steps', '3')
        if gpu
        else ('--image-size', '192', '--batch-size', '1', '--rounds', '3', '--warmup', '1', '--no-memory')
    )
    for name, losses in DENSE_LOSSES.items():
        text = DENSE.format(losses=losses)
        yield Part(f'dense-{name}', f'A step of GFL R101→R50 with {losses.split(chr(34))[1]}',
                   (STEP, '{config}', *sizes), ('mmdet',), 75, text)  # fmt: skip
    if found := sorted((ROOT / 'configs/detection').glob('crosskd/crosskd_gfl_r101_r50*.py')):
        yield Part('dense-crosskd', 'A step of GFL R101→R50 with CrossKD',
                   (STEP, str(found[0].relative_to(ROOT)), *sizes), ('mmdet',), 75)  # fmt: skip


def _gpu_tests() -> Iterator[Part]:
    """By file, since collecting all would import what they need, and take longer than they."""
    files = [path for path in sorted((ROOT / 'tests').rglob('test_*.py')) if 'pytest.mark.gpu' in path.read_text()]
    names = tuple(str(path.relative_to(ROOT)) for path in files)
    options = ('-m', 'gpu', '-v', '-p', 'no:cacheprovider', '--continue-on-collection-errors', '--tb=short')
    yield Part('gpu-tests', 'Tests that need a GPU', ('-m', 'pytest', *options, *names), ('pytest', 'mmpretrain'), 150)


def _losses(gpu: bool, *some: str) -> Part:
    cost = ('--rounds', '3', '--device', 'cuda') if gpu else ('--rounds', '1', '--no-memory')
    command = ('tools/benchmark_losses.py', *some, '--step-ms', '0', *cost)
    return Part('losses', 'Every loss alone', command, ('torch', 'mmpretrain'), 90 if gpu else 200)


def _others(gpu: bool) -> Iterator[Part]:
    device = ('--device', 'cuda') if gpu else ()
    few = ('--rounds', '1')
    yield Part('startup', 'Starts', ('tools/benchmark_startup.py', *few), ('mmpretrain',))
    yield Part('valuation', 'Values and partitions of KCD', ('tools/benchmark_valuation.py',), ('torch',))
    small: tuple[str, ...] = () if gpu else ('--samples', '20000', '--negatives', '8192', '--batch', '32', *few)
    yield Part('crd', 'CRD against the form that gathers', ('tools/benchmark_crd.py', *small, *device), ('torch',))
    if (ROOT / 'tools/benchmark_store.py').is_file():
        small = ('--entries', '200000', '--kills', '2', '--batch-size', '8', '--rounds', '3')
        yield Part('store', 'The knowledge store', ('tools/benchmark_store.py', *small), ('mmpretrain',))
    small = () if gpu else ('--size', '112', '--images', '2', '--noise', '8', '--rows', '8', '--steps', '1')
    yield Part('explain', 'What a layer discards', ('tools/benchmark_explain.py', *small, *device), ('mmpretrain',))
    nst = _losses(gpu, '--losses', 'NSTLoss').command
    yield Part('nst', 'NST against the form that broadcasts', nst, ('mmpretrain',))
