"""``python -m bayes_icl.collect``."""

from bayes_icl.collect.settings import CollectSettings
from bayes_icl.core.commands import run

if __name__ == "__main__":
    run("collect", CollectSettings)
