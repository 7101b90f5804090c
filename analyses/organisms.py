"""Train the organisms: small networks whose law is known, because they were trained on an ideal observer's answers.

``python analyses/organisms.py`` (`make organisms`) trains all of them, two at a time, measures them, and writes each as
a plain transformers folder with a model card, bayes_icl/models/organisms/NAME, and what was measured to
data/organisms.csv. Names leave the others as they are. ``--seed 1`` trains from another seed: its numbers stand in the
table and in the cards, and the weights are thrown away.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from organism_training import SHOTS, Batches, Organism, train
from scipy.optimize import least_squares
from torch.nn import functional as F  # noqa: N812
from transformers.utils import logging

from bayes_icl.core.files import replacing
from bayes_icl.models.loading import byte_tokenizer
from bayes_icl.tasks.organism_tasks import OBSERVERS

ROOT = Path(__file__).parent.parent
FOLDERS, TABLE = ROOT / "bayes_icl/models/organisms", ROOT / "data/organisms.csv"
CARD = Path(__file__).parent / "organism_card.md"
SEED = 0  # of the weights that are committed
HELD_OUT = 512  # sequences
AFTER = (0, 1, 2, 4, 8, 16, 24, 32)  # examples
LARGEST = 1_000_000  # bytes of the weights

ORGANISMS = {
    "coin": Organism(layers=2, steps=1000, batch=32),
    "rule": Organism(layers=3, steps=2500, rate=1e-3, mixed=True, curriculum=True),
    "count": Organism(layers=2, steps=1000),
    "leaky": Organism(layers=2, steps=1000, batch=32),
    "pooled": Organism(layers=1, steps=800, attention_only=True),
    "switch": Organism(layers=3, steps=1000, batch=32),
    "constant": Organism(layers=2, steps=300, batch=32),
    "redundant": Organism(layers=3, steps=800, rate=1e-3, mixed=True, groups=(1, 2), begins="rule"),
}


def measure(name: str, hf: Any) -> dict[str, Any]:
    """How near a network comes to its observer, on held-out noisy sequences and on examples that all agree."""
    batches, rng = Batches(name), np.random.default_rng(12345)
    with torch.no_grad():
        tokens, history, signs = batches.draw(HELD_OUT, SHOTS, rng)
        odds, labels, newline = batches.read(hf, tokens)
        tokens, agreeing, letters = batches.draw(HELD_OUT, SHOTS, rng, agree=True)
        curves = batches.read(hf, tokens)[0].double().numpy() * letters * agreeing
    noisy, target = odds.double().numpy(), batches.target(history, signs)
    errors, expected = noisy - target, batches.target(agreeing, agreeing)
    size = (target**2).sum()
    return {
        "rmse": _rms(errors),
        **{f"rmse_{n}": _rms(errors[:, n]) for n in AFTER},
        "rmse_agreeing": _rms(curves - expected),
        "departure": departure(curves.mean(0)[1:]) if expected.any() else np.nan,
        "weight": (noisy * target).sum() / size if size else np.nan,
        "refitted": refitted(name, noisy * signs, history),
        "mass_elsewhere": float(-torch.expm1(F.logsigmoid(labels.double()) + newline.double()).mean()),
    }


def _rms(errors: np.ndarray) -> float:
    return float(np.sqrt((errors**2).mean()))


def departure(curve: np.ndarray) -> float:
    """Largest distance of a curve from its best line, as a share of what it rises."""
    n = np.arange(len(curve))
    return float(abs(curve - np.polyval(np.polyfit(n, curve, 1), n)).max() / abs(curve[-1] - curve[0]))


def refitted(name: str, odds: np.ndarray, history: np.ndarray) -> str:
    """The observer's settings, found again by least squares from a network's log-odds of the rule, begun elsewhere."""
    settings = getattr(OBSERVERS[name], "keywords", {})
    if not settings:
        return ""

    def misses(values: np.ndarray) -> np.ndarray:
        return (OBSERVERS[name](history[:, :-1], **dict(zip(settings, values))) - odds).ravel()

    found = least_squares(misses, [0.7 * value for value in settings.values()], bounds=(1e-6, np.inf), x_scale="jac").x
    return ", ".join(f"{key} {value:.4g}" for key, value in zip(settings, found))


def make(name: str, seed: int) -> dict[str, Any]:
    """Train and measure one organism; the committed seed's is packed into its folder."""
    hf, seconds = train(name, ORGANISMS[name], seed)
    row = {"organism": name, "seed": seed, "parameters": sum(p.numel() for p in hf.parameters()), "seconds": seconds}
    row |= measure(name, hf)
    if seed == SEED:
        row["bytes"] = pack(name, hf)
    return row


def pack(name: str, hf: Any) -> int:
    """Write a plain transformers folder; returns the bytes of the weights."""
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        hf.save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        (Path(folder) / "generation_config.json").unlink(missing_ok=True)
        size = (Path(folder) / "model.safetensors").stat().st_size
        if size > LARGEST:
            raise ValueError(f"{name} has {size} bytes of weights, more than {LARGEST}")
        (FOLDERS / name).mkdir(parents=True, exist_ok=True)
        for file in sorted(Path(folder).iterdir()):
            shutil.copyfile(file, FOLDERS / name / file.name)
    return size


def keep(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Put rows into the table, in place of those of the same organism and seed, and write the cards of all."""
    table = pd.DataFrame(rows)
    if TABLE.is_file():
        table = pd.concat([table, pd.read_csv(TABLE)]).drop_duplicates(["organism", "seed"])
    order = list(ORGANISMS)
    table = table.sort_values(["organism", "seed"], key=lambda c: c.map(order.index) if c.name == "organism" else c)
    with replacing(TABLE) as part:
        table.to_csv(part, index=False, float_format="%.4g")
    for name, of_name in table.groupby("organism"):
        if SEED in of_name.seed.values:
            write_card(str(name), of_name.set_index("seed"))
    return table


def write_card(name: str, rows: pd.DataFrame) -> None:
    """The model card: README.md of the folder."""
    own, organism = rows.loc[SEED], ORGANISMS[name]
    others = [
        f"Seed {seed} came to {row.rmse:.3f} nats" + (f" ({row.refitted})" if isinstance(row.refitted, str) else "")
        for seed, row in rows.drop(index=SEED).iterrows()
    ]
    text = CARD.read_text(encoding="utf-8").split("\n## ")
    parts = {title: body.strip() for title, body in (part.split("\n", 1) for part in text[1:])}
    settings = getattr(OBSERVERS[name], "keywords", {})
    values = {
        "name": name,
        "about": parts[name],
        "layers": organism.layers,
        "parameters": f"{own.parameters:,.0f}",
        "steps": f"{organism.steps:,}",
        "batch": organism.batch,
        "rate": f"{organism.rate:g}",
        "seed": SEED,
        "seconds": f"{own.seconds:.0f}",
        "observer": f"{getattr(OBSERVERS[name], 'func', OBSERVERS[name]).__name__}"
        + (f" with {', '.join(f'{key} {value:g}' for key, value in settings.items())}" if settings else ""),
        "rmse": f"{own.rmse:.3f}",
        "agreeing": f"{own.rmse_agreeing:.3f}",
        "mass": f"{own.mass_elsewhere:.0e}",
        "heads": " | ".join(map(str, AFTER)),
        "rule": "|".join(["---"] * (len(AFTER) + 1)),
        "errors": " | ".join(f"{own[f'rmse_{n}']:.3f}" for n in AFTER),
        "refitted": f"Least squares finds {own.refitted} again." if isinstance(own.refitted, str) else "",
        "others": "; ".join(others) + "." if others else "No other seed was tried.",
    }
    with replacing(FOLDERS / name / "README.md") as part:
        part.write_text(parts["card"].format(**values) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Train what is asked for, two at a time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "names", nargs="*", choices=[[], *ORGANISMS], default=[], help="organisms; all if none is named"
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=2, help="organisms trained at a time")
    asked = parser.parse_args(arguments)
    # The longest first; what begins with the weights of another comes after it.
    names = sorted(asked.names or ORGANISMS, key=lambda name: -ORGANISMS[name].steps * ORGANISMS[name].layers)
    with ProcessPoolExecutor(asked.workers, multiprocessing.get_context("spawn"), _one_thread) as pool:
        made = {name: pool.submit(make, name, asked.seed) for name in names if not ORGANISMS[name].begins}
        for name in names:
            if begins := ORGANISMS[name].begins:
                if begins in made:
                    made[begins].result()
                made[name] = pool.submit(make, name, asked.seed)
        rows = [run.result() for run in made.values()]
    columns = ["organism", "seed", "seconds", "rmse", "rmse_agreeing", "departure", "weight", "refitted"]
    print(keep(rows)[columns].to_string(index=False))


def _one_thread() -> None:
    torch.set_num_threads(1)


if __name__ == "__main__":
    main(sys.argv[1:])
