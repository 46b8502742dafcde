"""The objective J: its parameters, the estimated target, Gram matrices, and J itself."""
