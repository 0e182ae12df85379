"""Small backbones that the published distillation tables need and mmpretrain lacks; a loss for classes that come later.

Importing this package registers them in mmengine's root ``MODELS``, so that they resolve under
any ``default_scope``.
"""

from .cifar_resnet import CIFARResNet
from .cifar_vgg import CIFARVGG
from .cifar_wrn import CIFARWideResNet
from .mobilenet_v1 import MobileNetV1
from .new_classes import NewClassesCrossEntropy

__all__ = ['CIFARVGG', 'CIFARResNet', 'CIFARWideResNet', 'MobileNetV1', 'NewClassesCrossEntropy']
