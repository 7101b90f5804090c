"""What all else stands on: errors, files, outputs, intervals, provenance, worker processes."""
