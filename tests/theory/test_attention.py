"""Normalised attention: shares that sum to one, along any dimension, and zero where nothing is attended to."""

import numpy as np
import pytest
import torch

from kdprompt.theory.attention import normalise_attention


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
def test_shares_are_pulls_over_their_sum(dim, device, dtype):
    pull = np.random.default_rng(0).exponential(size=(3, 4, 5))
    shares = normalise_attention(torch.as_tensor(pull, device=device, dtype=dtype), dim)
    assert shares.dtype is dtype
    expected = np.apply_along_axis(lambda column: [value / sum(column) for value in column], dim, pull)
    np.testing.assert_allclose(shares.cpu(), expected, rtol=1e-5 if dtype is torch.float32 else 1e-12)


def test_no_attention_gives_zero_and_a_finite_gradient(device, dtype):
    pull = torch.tensor([[0.0, 0.0], [1.0, 3.0]], device=device, dtype=dtype, requires_grad=True)
    shares = normalise_attention(pull, dim=-1)
    assert shares.tolist() == [[0.0, 0.0], [0.25, 0.75]]
    shares.square().sum().backward()
    assert pull.grad.isfinite().all()


def test_the_smallest_attention_is_normalised_too(device, dtype):
    tiny = torch.finfo(dtype).tiny
    pull = torch.tensor([tiny, 3 * tiny], device=device, dtype=dtype)
    assert normalise_attention(pull, dim=0).tolist() == [0.25, 0.75]
