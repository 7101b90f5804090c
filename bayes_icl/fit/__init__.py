"""The stage that fits the laws to curves and judges the additive one."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cases": ["Case", "plan_cases"],
        "command": ["main"],
        "figures": ["fit_figures"],
        "fitting": ["Fits", "fit_curves", "judge_cases"],
        "outputs": ["fit_file"],
        "settings": ["FitSettings"],
    },
)
