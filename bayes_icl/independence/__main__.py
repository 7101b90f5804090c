"""``python -m bayes_icl.independence``."""

from bayes_icl.core.commands import run
from bayes_icl.independence.settings import IndependenceSettings

if __name__ == "__main__":
    run("independence", IndependenceSettings)
