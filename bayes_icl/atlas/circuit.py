"""Heads as a circuit in the form that the Mechanistic Interpretability Benchmark reads (Mueller et al. 2025)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from bayes_icl.lens.anatomy import Anatomy


def circuit_of(
    anatomy: Anatomy, scores: Float[np.ndarray, "layer head"], named: Bool[np.ndarray, "layer head"]
) -> dict[str, Any]:
    """A circuit of scored heads: ``cfg``, ``nodes`` and ``edges``, as its `Graph.from_json` reads them.

    Nodes are ``input``, ``a{layer}.h{head}``, ``m{layer}`` and ``logits``. MLPs and the input have no score, which
    keeps them in every circuit there; there are no edges.

    Parameters
    ----------
    anatomy
        The model's parts.
    scores
        Of heads.
    named
        Heads that are in the circuit.
    """
    config = anatomy.hf.config
    nodes: dict[str, dict[str, Any]] = {"input": {"in_graph": True}}
    for layer in range(anatomy.n_layers):
        for head in range(anatomy.shapes[layer][0]):
            score, inside = float(scores[layer, head]), bool(named[layer, head])
            nodes[f"a{layer}.h{head}"] = {"in_graph": inside, "score": score}
        nodes[f"m{layer}"] = {"in_graph": True}
    nodes["logits"] = {"in_graph": True}
    parallel = any(getattr(config, name, False) for name in ("use_parallel_residual", "parallel_attn"))
    cfg = {"n_layers": anatomy.n_layers, "n_heads": anatomy.n_heads, "parallel_attn_mlp": parallel}
    return {"cfg": cfg | {"d_model": int(anatomy.unembedding.shape[1])}, "nodes": nodes, "edges": {}}
