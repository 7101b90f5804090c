"""The stage that maps every head: what it writes, carries, attends to, and which of these scores agree."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "command": ["main"],
        "figures": ["atlas_figures"],
        "mapping": ["Atlas", "atlas_curves"],
        "settings": ["AtlasSettings"],
    },
)
