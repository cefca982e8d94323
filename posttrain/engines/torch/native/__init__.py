"""What a CPU with AVX-512 or AVX2 computes in one pass over memory where torch has no such operation, or a slow one: C,
which is compiled when it is first used.  Where that cannot be, all is left to torch, and callers ask with `suits`."""

from posttrain.engines.torch.native import attention, layers, products
from posttrain.engines.torch.native.library import suits, suits_here

__all__ = ["attention", "layers", "products", "suits", "suits_here"]
