"""``python -m bayes_icl.calibrate``."""

from bayes_icl.calibrate.settings import CalibrateSettings
from bayes_icl.core.commands import run

run("calibrate", CalibrateSettings)
