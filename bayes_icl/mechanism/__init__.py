"""Experiments on a model: direct effects, ablation, activation patching, backup heads, attention by role."""
