"""Tasks: a rule, the pool of examples that an episode draws from, and how an example is written."""

from bayes_icl.tasks.builtin import BUILT_IN
from bayes_icl.tasks.designs import DESIGNS, Design, under_designs
from bayes_icl.tasks.loading import FILES, load_tasks, task_of_examples
from bayes_icl.tasks.task import Example, Task

__all__ = [
    "BUILT_IN",
    "DESIGNS",
    "FILES",
    "Design",
    "Example",
    "Task",
    "load_tasks",
    "task_of_examples",
    "under_designs",
]
