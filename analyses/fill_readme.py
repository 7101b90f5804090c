"""Put what `fit` printed in the demo into the README: ``python analyses/fill_readme.py`` after ``make demo``."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def filled(readme: str, summary: str) -> str:
    """The README with its example output taken from the summary: the tasks that its marker names."""
    parts = re.split(r"^(?=\S+ ──)", summary, flags=re.MULTILINE)
    of_task = {part.split(maxsplit=1)[0]: part for part in parts if part}
    marker = re.compile(r"<!-- summary: ([a-z_ ]+) -->\n.*?<!-- end -->", flags=re.DOTALL)

    def fill(match: re.Match[str]) -> str:
        text = "".join(of_task[name] for name in match[1].split())
        return f"<!-- summary: {match[1]} -->\n```\n{text.rstrip()}\n```\n<!-- end -->"

    return marker.sub(fill, readme)


if __name__ == "__main__":
    target = ROOT / "README.md"
    summary = (ROOT / "figures/demo/summary.txt").read_text(encoding="utf-8")
    target.write_text(filled(target.read_text(encoding="utf-8"), summary), encoding="utf-8")
    print(target)
