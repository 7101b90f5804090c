"""Put what `fit` printed into the README; ``make figures`` draws and prints what is quoted of the demo's curves."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


SUMMARIES = {"summary": "figures/demo/summary.txt"}


def filled(readme: str, summaries: dict[str, str]) -> str:
    """The README with its example output taken from the summaries: the tasks that each marker names."""
    of_task = {
        kind: {part.split(maxsplit=1)[0]: part for part in re.split(r"^(?=\S+ ──)", text, flags=re.MULTILINE) if part}
        for kind, text in summaries.items()
    }
    marker = re.compile(r"<!-- (summary): ([a-z_ ]+) -->\n.*?<!-- end -->", flags=re.DOTALL)

    def fill(match: re.Match[str]) -> str:
        text = "".join(of_task[match[1]][name] for name in match[2].split())
        return f"<!-- {match[1]}: {match[2]} -->\n```\n{text.rstrip()}\n```\n<!-- end -->"

    return marker.sub(fill, readme)


def read_summaries() -> dict[str, str]:
    """What the commands printed, by marker."""
    return {kind: (ROOT / path).read_text(encoding="utf-8") for kind, path in SUMMARIES.items()}


if __name__ == "__main__":
    target = ROOT / "README.md"
    target.write_text(filled(target.read_text(encoding="utf-8"), read_summaries()), encoding="utf-8")
    print(target)
