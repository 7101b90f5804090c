"""The first stage: log P(correct)/P(incorrect) of a model after each number of examples."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "command": ["main"],
        "reading": ["collect_curves", "wanted_readouts"],
        "settings": ["CollectSettings"],
    },
)
