"""A transformer taken apart: its parts, what they write, passes with some of it replaced. Knows no task."""
