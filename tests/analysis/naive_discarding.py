"""The optimisation once more, as the reference describes it: one image, one sample at a time, everything spelt out."""

import math

import numpy as np
import torch


def naive_discard(feature, image, setting, key):
    """Standard deviations (h, w), scale and step of one image (C, H, W)."""
    state = np.random.SeedSequence([setting.seed, key]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]) >> 1)
    height, width = image.shape[1:]

    def drawn():
        return torch.randn(setting.noise, *image.shape, generator=generator, dtype=image.dtype)

    def spread(sigma):
        rows = [[sigma[y * setting.cells // height, x * setting.cells // width] for x in range(width)]
                for y in range(height)]  # fmt: skip
        return torch.stack([torch.stack(row) for row in rows])

    def read(shown):
        value = feature(shown[None])[0].flatten()
        return value.clamp_min(0) if setting.relu else value

    def change(sigma, noise):
        total = 0
        for one in noise:
            total = total + ((read(image + spread(sigma) * one) - read(image)) ** 2).mean()
        return total / len(noise)

    sigma = torch.full((setting.cells, setting.cells), setting.start, dtype=image.dtype)
    scale = change(sigma, drawn())
    weight, best = setting.weight, (math.inf, sigma, 0)
    for step in range(1, setting.steps + 1):
        sigma = sigma.detach().requires_grad_()
        entropy = (sigma.log() + 0.5 * math.log(2 * math.pi * math.e)).mean()
        loss = change(sigma, drawn()) / scale - weight * entropy
        (gradient,) = torch.autograd.grad(loss, sigma)
        rate = setting.lr * setting.cells**2 / 256
        sigma = (sigma.detach() - rate * gradient).clamp(setting.low, setting.high)
        mean = float((sigma.log() + 0.5 * math.log(2 * math.pi * math.e)).mean())
        if abs(mean - setting.target) < best[0]:
            best = (abs(mean - setting.target), sigma, step)
        if step == setting.late:
            if mean > setting.target:
                break
            weight *= setting.boost
    return best[1], scale, best[2]
