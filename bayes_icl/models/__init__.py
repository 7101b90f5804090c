"""Models: loading one, prompts as its tokens, log-odds from its logits."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "loading": ["load_model"],
        "model": ["Model"],
    },
)
