"""``python -m bayes_icl.fit``."""

from bayes_icl.core.commands import run
from bayes_icl.fit.settings import FitSettings

if __name__ == "__main__":
    run("fit", FitSettings)
