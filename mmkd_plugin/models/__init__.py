"""Small backbones that the published distillation tables need and mmpretrain lacks.

Importing this package registers them in mmengine's root ``MODELS``, so that they resolve under
any ``default_scope``.
"""

from .cifar_resnet import CIFARResNet
from .cifar_vgg import CIFARVGG
from .cifar_wrn import CIFARWideResNet
from .mobilenet_v1 import MobileNetV1

__all__ = ['CIFARVGG', 'CIFARResNet', 'CIFARWideResNet', 'MobileNetV1']
