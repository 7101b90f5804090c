"""Bayesian inference for one law and some curves: likelihood, two engines, scores."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "idata": ["inference_data"],
    },
)
