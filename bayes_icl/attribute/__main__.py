"""``python -m bayes_icl.attribute``."""

from bayes_icl.attribute.settings import AttributeSettings
from bayes_icl.core.commands import run

if __name__ == "__main__":
    run("attribute", AttributeSettings)
