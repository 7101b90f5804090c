"""What a report costs, by part, and what its figures would cost if every format were laid out anew.

``python benchmarks/report.py [--curves data/curves/demo.nc]`` after `make demo`; CPU seconds in one process.
"""

from __future__ import annotations

import argparse
import io
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bayes_icl.curves import read_curves
from bayes_icl.report.outputs import gather
from bayes_icl.report.page import render
from bayes_icl.report.sections import compose, draw, open_with
from bayes_icl.writing.numbers import Quotes
from bayes_icl.writing.style import save_figures


@contextmanager
def timed(words: str) -> Iterator[None]:
    """Print what the block takes."""
    before = time.process_time()
    yield
    print(f"{words:45s} {time.process_time() - before:6.2f} CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=Path, default=Path("data/curves/demo.nc"))
    path = parser.parse_args().curves
    quotes = Quotes()
    with timed("read"):
        found = gather(path, read_curves(path))
    with timed("draw"):
        figures = draw(found)
    with timed("compose sentences, tables, figures to hover over"):
        opening, sections = open_with(found, quotes), compose(found, figures, quotes)
    with timed(f"page with {len(figures)} figures as WebP"):
        page = render(found, opening, [], sections, figures, quotes, {}, links="figures", beside=".")
    with tempfile.TemporaryDirectory() as folder, timed("figures as PDF and SVG, as laid out for the page"):
        save_figures(figures, Path(folder), (".pdf", ".svg"))
    fresh = draw(found)
    with timed("figures as WebP, PDF and SVG, each laid out anew"):
        for figure in fresh.values():
            for form in ("webp", "pdf", "svg"):
                figure.savefig(io.BytesIO(), format=form, dpi=200)
    print(f"page {len(page) / 1e6:.1f} MB; peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
