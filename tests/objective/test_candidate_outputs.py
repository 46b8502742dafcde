"""How likely the outputs of candidates are, and which are the same, against plain Python; a reader's leaning."""

import numpy as np
import pytest
import torch

from kdprompt import ObjectiveSettings, ObjectiveWeights
from kdprompt.objective.candidate_outputs import EQUAL, CandidateOutputs
from kdprompt.objective.parameters import ObjectiveParameters
from kdprompt.objective.reader_profile import ReaderProfile
from kdprompt.objective.target import Target
from kdprompt.theory.kernels import Gaussian

RADIUS = 3.0


def make_outputs(seed, device, dtype=torch.float32):
    """Two problems of five candidates with values of four numbers, three queries and two points near them."""
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(2, 5, 4))
    v[:, 3] = v[:, 1]
    target, mass = rng.normal(size=(2, 5, 4)), np.zeros((2, 5))
    mass[:, :3] = rng.dirichlet(np.ones(3), size=2)

    def tensor(values):
        return torch.as_tensor(values, dtype=dtype, device=device)

    points = Target(
        x=tensor(rng.normal(size=(2, 5, 6))),
        v=tensor(target),
        query_mass=tensor(mass),
        nearby_mass=tensor(np.full((2, 5), 0.2)),
        support=tensor(np.ones((2, 3))),
        task=torch.full((2, 3), -1, device=device),
        queries=3,
    )
    return CandidateOutputs(tensor(v), points, RADIUS), v, target, mass


def test_likelihood_is_the_mean_over_the_queries(device):
    outputs, v, target, mass = make_outputs(0, device)
    members = torch.tensor([[4, 0, 2], [1, 1, 3]], device=device)
    found = outputs.likelihood(members).cpu().numpy()
    for b, rows in enumerate(members.tolist()):
        naive = [sum(mass[b, q] * float(v[b, row] @ target[b, q]) for q in range(3)) for row in rows]
        assert found[b] == pytest.approx(naive, rel=1e-5, abs=1e-6)


def test_members_of_one_output_share_the_place_of_the_first(device):
    outputs, *_ = make_outputs(1, device)
    members = torch.tensor([[4, 3, 0, 1], [1, 2, 3, 1]], device=device)
    assert outputs.group(members).tolist() == [[0, 1, 2, 1], [0, 1, 0, 0]]
    assert outputs.group(members[:, :0]).shape == (2, 0)


@pytest.mark.parametrize(("share", "same"), [(0.9, True), (1.1, False)])
def test_values_are_one_output_within_a_share_of_the_largest_norm(share, same, device):
    outputs, v, *_ = make_outputs(2, device)
    near = v.copy()
    near[:, 3] = near[:, 1] + share * EQUAL**0.5 * RADIUS * np.array([1.0, 0, 0, 0])
    outputs = CandidateOutputs(torch.as_tensor(near, dtype=torch.float32, device=device), outputs.target, RADIUS)
    members = torch.tensor([[1, 3], [1, 3]], device=device)
    assert outputs.group(members).tolist() == [[0, 0 if same else 1]] * 2


def test_outputs_that_a_profile_does_not_name_have_no_leaning():
    profile = ReaderProfile(name="mine", follow=2.0, label_bias={"yes": 0.7})
    assert profile.bias_of(["no", "yes", "maybe"]) == [0.0, 0.7, 0.0]


def test_what_is_fixed_is_compared_value_by_value():
    parameters = ObjectiveParameters(
        kernel=Gaussian(0.2), output_share=0.5, neighbourhood=0.25, weights=ObjectiveWeights(interference=0.5)
    )
    assert ObjectiveSettings().fixed_in(parameters)
    for name in ("kernel", "output_share", "neighbourhood", "weights"):
        assert ObjectiveSettings(**{name: getattr(parameters, name)}).fixed_in(parameters)
    for name, other in (("output_share", 0.4), ("output_share", 0.6), ("neighbourhood", 0.0), ("kernel", Gaussian(1))):
        assert not ObjectiveSettings(**{name: other}).fixed_in(parameters)
