"""The mathematics on tensors: kernels, MMD, bounds, results R1 to R9, two-sample tests. Imports nothing of kdprompt.

Everything public is importable from here: ``from kdprompt.theory import Gaussian, JointSample, bias, mmd``. The names
of ``kernels`` are taken from its own list, so that a new kernel is added in one file.

The attribute ``kdprompt.theory.mmd`` is the function, as ``kdprompt.theory.bias`` is. The module of the same name is
still imported from: ``from kdprompt.theory.mmd import mmd_squared``.
"""

from kdprompt.theory import kernels as _kernels
from kdprompt.theory.attention import normalise_attention
from kdprompt.theory.bandwidth import LeaveOneOutFit, fit_by_leave_one_out, median_heuristic
from kdprompt.theory.bounds import Bound, BoundKind, complexity_of_trace, generalisation_gap
from kdprompt.theory.kernels import *  # noqa: F403 - the kernels' own list
from kdprompt.theory.mmd import mean_embedding, mmd, mmd_squared, mmd_squared_unbiased, witness
from kdprompt.theory.multinomial import MultinomialFit, fit_multinomial
from kdprompt.theory.point_pairs import PointPairs
from kdprompt.theory.reader_model import combine_knowledge, expected_log_loss, pool_evidence, reader_log_probs
from kdprompt.theory.regression import RidgeFit, RidgeSums, ridge_regression, shrink_to_prior
from kdprompt.theory.results import (
    Guarantee,
    OrderSensitivity,
    bias,
    complexity,
    distilled_weights,
    generalisation_bound,
    interference,
    interference_by_task,
    order_sensitivity,
    query_sample_error,
    read_out,
    read_out_shift,
    risk_bound,
)
from kdprompt.theory.samples import JointSample, Sample, WeightedSample, join_inputs_and_values, to_weighted_sample
from kdprompt.theory.standard_error import is_within_one_standard_error
from kdprompt.theory.two_sample import TwoSampleResult, cross_mmd_test, permutation_test, two_sample_test

__all__ = [
    "Bound",
    "BoundKind",
    "Guarantee",
    "JointSample",
    "LeaveOneOutFit",
    "MultinomialFit",
    "OrderSensitivity",
    "PointPairs",
    "RidgeFit",
    "RidgeSums",
    "Sample",
    "TwoSampleResult",
    "WeightedSample",
    "bias",
    "combine_knowledge",
    "complexity",
    "complexity_of_trace",
    "cross_mmd_test",
    "distilled_weights",
    "expected_log_loss",
    "fit_by_leave_one_out",
    "fit_multinomial",
    "generalisation_bound",
    "generalisation_gap",
    "interference",
    "interference_by_task",
    "is_within_one_standard_error",
    "join_inputs_and_values",
    "mean_embedding",
    "median_heuristic",
    "mmd",
    "mmd_squared",
    "mmd_squared_unbiased",
    "normalise_attention",
    "order_sensitivity",
    "permutation_test",
    "pool_evidence",
    "query_sample_error",
    "read_out",
    "read_out_shift",
    "reader_log_probs",
    "ridge_regression",
    "risk_bound",
    "shrink_to_prior",
    "to_weighted_sample",
    "two_sample_test",
    "witness",
]
__all__ += _kernels.__all__
