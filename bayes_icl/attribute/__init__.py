"""The stage that asks which heads write the update."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "attribution": ["Attribution", "attribute_curves"],
        "command": ["main"],
        "figures": ["attribute_figures"],
        "settings": ["AttributeSettings"],
    },
)
