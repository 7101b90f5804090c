"""``python -m bayes_icl.patch``."""

from bayes_icl.core.commands import run
from bayes_icl.patch.settings import PatchSettings

if __name__ == "__main__":
    run("patch", PatchSettings)
