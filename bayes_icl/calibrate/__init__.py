"""The stage that asks whether fits of a size can be trusted, on curves of a known law."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibration": ["calibrate"],
        "command": ["main"],
        "settings": ["CalibrateSettings"],
    },
)
