"""One prompt from start to finish: candidates, problem, pipeline, accounting, result."""
