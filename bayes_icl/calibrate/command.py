"""``python -m bayes_icl.calibrate``: settings, simulations, outcomes."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime

from bayes_icl.calibrate.calibration import calibrate
from bayes_icl.calibrate.figures import calibration_figures
from bayes_icl.calibrate.outcomes import Bounds, outcomes
from bayes_icl.calibrate.outputs import calibration_files
from bayes_icl.calibrate.settings import LEAST, CalibrateSettings
from bayes_icl.core.errors import DONE, FAILED, MOST, StatedError, check_least, unknown
from bayes_icl.core.files import to_json
from bayes_icl.core.outputs import Output
from bayes_icl.core.provenance import now, provenance
from bayes_icl.hypotheses.law import HYPOTHESES
from bayes_icl.writing.style import figure_files


def main(settings: CalibrateSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    started = datetime.now(UTC)
    settings = replace(settings, hypotheses=tuple(dict.fromkeys(settings.hypotheses)))  # twice would count twice
    if not settings.hypotheses:
        raise StatedError("--hypotheses needs at least one value")
    for name in settings.hypotheses:
        if name not in HYPOTHESES or HYPOTHESES[name].ceiling:
            raise unknown("hypothesis", name, [n for n, h in HYPOTHESES.items() if not h.ceiling])
    check_least(settings, **LEAST, seed=0, workers=0)
    if not 0 < settings.gain < MOST:
        raise StatedError(f"--gain must be above 0 and below {MOST}, got {settings.gain}")
    output = Output(settings.figures, "calibrate", flag="--figures")
    with output.held(force=settings.force):
        tables = calibrate(settings)
        checked = outcomes(tables, settings, Bounds())
        record = {**provenance(settings, started=started, inputs=[]), "finished": now()}
        output.write({**calibration_files(tables, checked), "provenance.json": to_json(record)})
        output.write(figure_files(calibration_figures(settings.figures)), of=settings.figures / "outcomes.csv")
    for outcome in checked:
        mark = "holds" if outcome["holds"] else "FAILS"
        print(f"{mark}  {outcome['what']}: {outcome['value']:.4g} ({outcome['bound']})", file=sys.stderr)
    print(settings.figures)
    if failed := [outcome for outcome in checked if not outcome["holds"]]:
        print(f"error: calibration outside its bounds: {len(failed)} of {len(checked)} checks", file=sys.stderr)
        return FAILED
    return DONE
