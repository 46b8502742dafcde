"""Products of few points with many rows, against float64."""

import numpy as np
import pytest
import torch

from kdprompt.theory import point_pairs
from kdprompt.theory.point_pairs import FEW, multiply_with_all


@pytest.mark.parametrize("large", [0, 10_000], ids=["beyond the caches", "within them"])
@pytest.mark.parametrize("count", range(FEW + 3))
def test_few_points_are_multiplied_with_all_rows(count, large, device, dtype, monkeypatch):
    monkeypatch.setattr(point_pairs, "LARGE", large)
    generator = np.random.default_rng(count)
    few, x = generator.normal(size=(count, 7)), generator.normal(size=(301, 7))
    inner = multiply_with_all(
        torch.tensor(few, device=device, dtype=dtype), torch.tensor(x, device=device, dtype=dtype)
    )
    assert inner.is_contiguous() and inner.dtype is dtype
    np.testing.assert_allclose(inner.cpu().double().numpy(), few @ x.T, atol=20 * torch.finfo(dtype).eps)
