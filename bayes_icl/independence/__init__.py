"""The stage that asks whether examples need to see one another."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "command": ["main"],
        "figures": ["independence_figures"],
        "separating": ["IndependenceResult", "independence_curves"],
        "settings": ["IndependenceSettings"],
    },
)
