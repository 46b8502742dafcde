"""The mathematics on tensors: kernels, MMD, bounds, results R1 to R8, two-sample tests. Imports nothing of kdprompt."""
