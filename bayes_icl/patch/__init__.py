"""The stage that asks where a task forms, which heads take over, and by which steps."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "command": ["main"],
        "figures": ["patch_figures"],
        "patching": ["PatchResult", "patch_curves"],
        "settings": ["PatchSettings"],
    },
)
