"""The stages that a report may have, in the order in which they are run: a new one is a line here."""

from __future__ import annotations

from bayes_icl.addition.stage import STAGE as ADDITION
from bayes_icl.atlas.stage import STAGE as ATLAS
from bayes_icl.attribute.stage import STAGE as ATTRIBUTE
from bayes_icl.calibrate.stage import STAGE as CALIBRATE
from bayes_icl.collect.settings import CollectSettings
from bayes_icl.fit.stage import STAGE as FIT
from bayes_icl.independence.stage import STAGE as INDEPENDENCE
from bayes_icl.patch.stage import STAGE as PATCH
from bayes_icl.report.curves_section import curves_section
from bayes_icl.writing.stage import Stage

# What the curves' section says is `fit`'s as well, so that it is the report's.
COLLECT = Stage("collect", "the curves", CollectSettings, lambda found, quotes: [(20, curves_section(found, quotes))])
STAGES = {stage.name: stage for stage in (COLLECT, FIT, ATTRIBUTE, ATLAS, PATCH, ADDITION, INDEPENDENCE, CALIBRATE)}
