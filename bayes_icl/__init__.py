"""Does a language model learn from the examples in its prompt the way a Bayesian would, and which heads do it?

The modules follow the data: `tasks`, `prompts`, `models`, `readouts`, `collect` (torch) write curves in the format of
`curves`; `hypotheses`, `noise`, an engine, `compare`, `fit` (PyMC) judge them; `attribute` and `patch` run their very
episodes again; `report` writes up what was run. ARCHITECTURE.md has the whole list.
Nothing is imported here, so that ``python -m bayes_icl.collect --help`` answers at once; import the module you need.
"""

__version__ = "0.1.0"
