"""Torch itself as a witness: eager RMSNorms of whatever torch is installed, held to the bits of their cast paths.

Exits 77 where this Python has no torch. Debian's torch is old, but the operations these formulas use have kept their
order (the survey measured 1.13 and 2.6, the captures 2.15).
"""

import os
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))

try:
    import torch
except ImportError:
    print("skipped: this Python has no torch (Debian: python3-torch)")
    sys.exit(77)

import norma

EPS = 1e-6


def normalized(x):
    h = x.to(torch.float32)
    return h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + EPS)


def llama(x, weight):
    return weight * normalized(x).to(x.dtype)


def olmo2(x, weight):
    return (weight * normalized(x)).to(x.dtype)


def gemma(x, weight):
    return (normalized(x) * (1.0 + weight.float())).type_as(x)


PATHS = {
    "transformers.llama.rmsnorm": llama,
    "transformers.olmo2.rmsnorm": olmo2,
    "transformers.gemma.rmsnorm": gemma,
}
SHAPES = [(3, 1), (5, 7), (4, 64), (2, 100), (3, 576), (2, 3072), (1, 40000)]


class TorchWitness(unittest.TestCase):
    def test_eager_torch_has_the_bits_of_its_cast_paths(self):
        torch.set_num_threads(1)
        generator = torch.Generator().manual_seed(7)
        for name, formula in PATHS.items():
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                for shape in SHAPES:
                    x = (torch.randn(shape, generator=generator) * 3).to(dtype)
                    weight = (1 + 0.1 * torch.randn(shape[-1], generator=generator)).to(dtype)
                    with self.subTest(path=name, dtype=str(dtype), shape=shape):
                        norma.assert_norm("rmsnorm", x=x, weight=weight, eps=EPS, y=formula(x, weight), path=name)

    def test_another_formula_is_told_apart(self):
        x = torch.randn((8, 576), generator=torch.Generator().manual_seed(8)).to(torch.bfloat16)
        weight = torch.linspace(0.5, 1.5, 576).to(torch.bfloat16)
        with self.assertRaises(AssertionError):
            norma.assert_norm("rmsnorm", x=x, weight=weight, eps=EPS, y=olmo2(x, weight), path="transformers.llama.rmsnorm")


if __name__ == "__main__":
    os.environ.setdefault("NORMA", sys.argv.pop() if len(sys.argv) > 1 else "norma")
    unittest.main()
