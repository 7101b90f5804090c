"""Does a language model learn from the examples in its prompt the way a Bayesian would, and which heads do it?

A folder a stage (`collect`, `fit`, `attribute`, `atlas`, `patch`, `addition`, `independence`, `calibrate`, `report`)
over a torch wing (`tasks`, `lens`, `models`, `mechanism`) and a statistics wing (`hypotheses`, `inference`); they meet
in the format of `curves`.
ARCHITECTURE.md has the layout. What is named here is imported when it is first asked for.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "addition": ["addition_curves"],
        "atlas": ["atlas_curves"],
        "attribute": ["attribute_curves"],
        "collect": ["collect_curves"],
        "curves": ["read_curves"],
        "fit": ["fit_curves"],
        "hypotheses": ["hypothesis"],
        "independence": ["independence_curves"],
        "models": ["load_model"],
        "patch": ["patch_curves"],
        "tasks": ["load_tasks"],
    },
)
