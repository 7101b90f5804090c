"""The stage that asks whether examples add a vector to the residual stream."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adding": ["AdditionResult", "addition_curves"],
        "command": ["main"],
        "figures": ["addition_figures"],
        "settings": ["AdditionSettings"],
    },
)
