"""``python -m bayes_icl.report``."""

from bayes_icl.core.commands import run
from bayes_icl.report.settings import ReportSettings

run("report", ReportSettings)
