"""Models of PyTorch on a parameter server: ``ps = fastps.torch.serve(model, rule=...)``, and in each worker
``optimizer = fastps.torch.Optimizer(model, ps)`` in the place of one of torch.

Needs torch, as of the extra ``torch``, which nothing else in fastps imports.
"""

from fastps.torch.optimizer import Optimizer
from fastps.torch.serve import serve

__all__ = ["Optimizer", "serve"]
