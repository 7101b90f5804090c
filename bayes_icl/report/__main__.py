"""``python -m bayes_icl.report``."""

from bayes_icl.core.commands import run
from bayes_icl.report.settings import ReportSettings

if __name__ == "__main__":
    run("report", ReportSettings)
