"""``python -m bayes_icl.calibrate``."""

from bayes_icl.calibrate.settings import CalibrateSettings
from bayes_icl.core.commands import run

if __name__ == "__main__":
    run("calibrate", CalibrateSettings)
