"""What the pages of claims 1 and 3 are made of, from the run's own files to one small file of the tests.

``python tests/shrink_claims.py`` after the run of `patch` (`make claim1`) was made anew: rows and columns that no
sentence reads are left out, and numbers are rounded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "tests/data/claims.json"
COLUMNS = {
    "mlps": ["task", "place", "readout", "layer", "lost", "lost_low", "lost_high"],
    "heads": [
        *("task", "component", "lost", "lost_low", "lost_high", "taken", "taken_low", "taken_high"),
        *("other_heads", "mlps", "norm", "bring", "to_answers", "induction"),
    ],
}


def shrunk() -> dict[str, str]:
    """Contents by name of the file."""
    sys.path.append(str(ROOT / "analyses"))
    import claims
    import pandas as pd

    from bayes_icl.core.files import beside

    outputs = [claims.PATCHED, *(of(task) for of in (claims.of_task, claims.at_answers) for task in claims.TASKS)]
    files = {}
    for path in (path for path in outputs if path.exists()):
        facts = claims.facts(path)
        files[beside(path, "json").name] = json.dumps(facts)
        for name, table in claims.tables(path).items():
            table = table[[c for c in COLUMNS.get(name, table.columns) if c in table]]
            if name in ("transfer", "redundancy") or (name != "rounds" and path != claims.PATCHED):
                table = table.head(0)
            elif name == "heads":
                wanted = {head for own in facts.values() for step in (1, 3) for head in own[f"heads_of_step_{step}"]}
                kept = [
                    own[
                        own.component.isin(wanted)
                        | (own.lost.rank(ascending=False) <= 6)
                        | (own.taken.rank(ascending=False) <= 2)
                    ]
                    for _, own in table.groupby("task", sort=False)
                ]
                table = pd.concat(kept)
            files[beside(path, f"{name}.csv").name] = table.to_csv(index=False, float_format="%.6g")
    return files


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(shrunk(), indent=0) + "\n", encoding="utf-8")
    print(TARGET, TARGET.stat().st_size)
