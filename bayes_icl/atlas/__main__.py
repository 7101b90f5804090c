"""``python -m bayes_icl.atlas``."""

from bayes_icl.atlas.settings import AtlasSettings
from bayes_icl.core.commands import run

if __name__ == "__main__":
    run("atlas", AtlasSettings)
