"""``python -m bayes_icl.addition``."""

from bayes_icl.addition.settings import AdditionSettings
from bayes_icl.core.commands import run

if __name__ == "__main__":
    run("addition", AdditionSettings)
