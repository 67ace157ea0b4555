"""PyTorch multiplies 16-bit matrices slowly on a CPU without such products.

`python benchmarks/upstream/torch_bfloat16.py` prints the time of a product in
bfloat16, divided by the time of the same product in float32. On a processor
with AVX2 and without AVX-512, it is about 100 if the second matrix has the
layout `(in, out)` of Keras, and about 6 if it has that of PyTorch's modules.
"""

import time

import torch


def seconds(x, matrix):
    x @ matrix
    start = time.perf_counter()
    x @ matrix
    return time.perf_counter() - start


x, kernel = torch.randn(196, 768), torch.randn(768, 3072)
weight = kernel.T.contiguous()
for name, matrix in (("(in, out)", kernel), ("(out, in)", weight.T)):
    half = seconds(x.bfloat16(), matrix.bfloat16())
    print(name, half / seconds(x, matrix))
