"""One page of whatever stages were run on a curves file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "command": ["main"],
        "settings": ["ReportSettings"],
    },
)
