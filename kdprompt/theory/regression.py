"""Regressions that estimate the output of a query, v̂ of R6: kernel regression with a prior, and ridge regression.

Kernel regression takes sums over neighbours; ``kdprompt.objective.regression`` applies it to queries and
``kdprompt.theory.bandwidth`` fits its two parameters. Ridge regression takes the whole pool at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RidgeChange", "RidgeFit", "RidgeSums", "ridge_regression", "shrink_to_prior"]

CHUNK = 8192  # points that are held in float64 at a time
BLOCK = 128  # rows of Σ x xᵀ that are summed at a time, from the diagonal on
EXACT_UP_TO = 32_768  # points whose products are taken in float64; those of more are taken in the values' dtype,
SHORT = 1024  # so many points a group, whose sums are added in float64,
GROUPS = 4  # and so many groups at a time
MOST_CHANGES = 64  # points that join or leave until an inverse is computed anew, before rounding adds up


def shrink_to_prior(weighted_values: Tensor, mass: Tensor, prior: Tensor, shrinkage: float) -> Tensor:
    """v̂ = (Σ_j κ_j v_j + λ v̄)/(Σ_j κ_j + λ): the mean of the neighbours' values, drawn towards the prior.

    Args:
        weighted_values: Σ_j κ_j v_j, ``[..., c]``.
        mass: Σ_j κ_j ≥ 0, ``[..., 1]``.
        prior: v̄, ``[..., c]``.
        shrinkage: λ ≥ 0, the kernel mass that the prior counts for.

    Returns:
        Estimates ``[..., c]``; zero where neither neighbours nor the prior have mass.

    Example:
        >>> import torch
        >>> shrink_to_prior(torch.tensor([2.0]), torch.tensor([2.0]), torch.tensor([0.0]), shrinkage=2.0)
        tensor([0.5000])
    """
    total = (mass + shrinkage).clamp_min(torch.finfo(mass.dtype).tiny)
    return (weighted_values + shrinkage * prior) / total


@dataclass(frozen=True)
class RidgeFit:
    """A linear map from inputs to values, r(x) = v̄ + Wᵀ(x − x̄), fitted by ridge regression.

    Attributes:
        weights: W ``[d, c]``.
        mean: x̄ ``[d]``.
        intercept: v̄ ``[c]``.
        inverse: ((X − x̄)ᵀ(X − x̄) + αI)⁻¹ ``[d, d]``.
        count: Number of points n.
        changes: Points that joined or left since the inverse was computed anew.
    """

    weights: Tensor
    mean: Tensor
    intercept: Tensor
    inverse: Tensor
    count: int
    changes: int = 0

    def follow(self, sums: "RidgeSums", joined: Tensor, left: Tensor) -> "RidgeFit":
        """The fit of the same penalty after points ``[m, d]`` have joined and left; O(d²) each, by Sherman–Morrison.

        One that joins adds n/(n + 1)·(x − x̄)(x − x̄)ᵀ to the centred squares; one that leaves takes n/(n − 1) of it,
        by which two or three digits are lost where points are of unit norm and the penalty is no smaller than 0.03.

        Args:
            sums: Those after the change.
            joined: The points that joined, in float64.
            left: The points that left.
        """
        inverse, mean, count = self.inverse, self.mean, self.count
        for points, sign in ((joined, 1), (left, -1)):
            for x in points:
                centred, factor = x - mean, sign * count / (count + sign)
                pulled = inverse @ centred
                step = factor / (1 + factor * float(centred @ pulled))
                inverse = torch.addr(inverse, pulled, pulled, alpha=-step)
                count += sign
                mean = mean + sign * centred / count
        return sums.fit_by(inverse, self.changes + len(joined) + len(left))

    def predict(self, q: Tensor) -> Tensor:
        """r(q) of points ``[..., d]``, ``[..., c]``."""
        return (q - self.mean) @ self.weights + self.intercept

    def predict_without(self, q: Tensor, x: Tensor, v: Tensor, there: Tensor) -> Tensor:
        """r(q) as it would be without some of the fitted points, exact, without another fit.

        With h(a, b) = (a − x̄)ᵀ((X − x̄)ᵀ(X − x̄) + αI)⁻¹(b − x̄) + 1/n and R the points that are left out it is
        r(q) − h(q, R)(I − h(R, R))⁻¹(v_R − r(x_R)).

        Args:
            q: Points ``[b, d]``.
            x: The fitted points that are left out of each ``[b, m, d]``.
            v: Their values ``[b, m, c]``.
            there: Which of these there are ``[b, m]``.

        Returns:
            ``[b, c]``; 0 where no point is left.
        """
        count, some = there.sum(-1), there[..., None].to(q)
        points = (x - self.mean) * some
        pulled = points @ self.inverse
        among = pulled @ points.mT + some @ some.mT / self.count
        residual = (v - self.predict(x)) * some
        rest = torch.eye(x.shape[1], dtype=q.dtype, device=q.device) - among
        none_left = count >= self.count
        rest[none_left] = torch.eye(x.shape[1], dtype=q.dtype, device=q.device)  # singular: nothing is known there
        with_q = (pulled @ (q - self.mean)[..., None]).mT + some.mT / self.count
        moved = (with_q @ torch.linalg.solve(rest, residual)).squeeze(1)
        return torch.where(none_left[:, None], 0.0, self.predict(q) - moved)


@dataclass(frozen=True)
class RidgeSums:
    """All that a ridge regression needs to know of its points: sums, whatever the penalty.

    Points join and leave in O(d²) each; a fit of another penalty is one inverse.

    Attributes:
        count: Number of points n.
        inputs: Σ x ``[d]``.
        values: Σ v ``[c]``.
        squares: Σ x xᵀ ``[d, d]``.
        products: Σ x vᵀ ``[d, c]``.
    """

    count: int
    inputs: Tensor
    values: Tensor
    squares: Tensor
    products: Tensor

    @classmethod
    def of(cls, x: Tensor, v: Tensor, dtype: torch.dtype = torch.float64) -> "RidgeSums":
        """The sums of points ``x: [n, d]`` with values ``v: [n, c]``, some at a time in ``dtype``, on their device.

        Of more than 32,768 points in float32, products of 1,024 at a time are taken in float32, in half the time; at
        100,000 unit-norm points that moves the eigenvalues of Σ x xᵀ by less than 10⁻⁴, where penalties begin at 0.03.
        """
        width = x.shape[1]
        squares = torch.zeros(width, width, dtype=dtype, device=x.device)
        products = squares.new_zeros(v.shape[1], width)  # few rows of many columns: a third of the time of Σ x vᵀ
        inputs, values = squares.new_zeros(width), squares.new_zeros(v.shape[1])
        step, size, taken_in = (CHUNK, CHUNK, dtype) if len(x) <= EXACT_UP_TO else (GROUPS * SHORT, SHORT, v.dtype)
        for start in range(0, len(x), step):
            part, given = (_group(points[start : start + step].to(taken_in), size) for points in (x, v))
            for row in range(0, width, BLOCK):
                block = part[..., row : row + BLOCK].mT @ part[..., row:]
                squares[row : row + BLOCK, row:] += block.sum(0, dtype=dtype)
            products += (given.mT @ part).sum(0, dtype=dtype)
            inputs += part.sum(1).sum(0, dtype=dtype)
            values += given.sum(1).sum(0, dtype=dtype)
        return cls(len(x), inputs, values, squares.triu() + squares.triu(1).T, products.T.contiguous())

    def __add__(self, other: "RidgeSums") -> "RidgeSums":
        """Those of both sets of points."""
        return self._combine(other, 1)

    def __sub__(self, other: "RidgeSums") -> "RidgeSums":
        """Those without points that are among these."""
        return self._combine(other, -1)

    def _combine(self, other: "RidgeSums", sign: int) -> "RidgeSums":
        return RidgeSums(
            self.count + sign * other.count,
            self.inputs + sign * other.inputs,
            self.values + sign * other.values,
            self.squares + sign * other.squares,
            self.products + sign * other.products,
        )

    def fit(self, penalty: float) -> "RidgeFit":
        """The ridge regression with a penalty α > 0."""
        mean = self.inputs / self.count
        identity = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        return self.fit_by(torch.linalg.inv(self.squares - self.count * torch.outer(mean, mean) + penalty * identity))

    def fit_by(self, inverse: Tensor, changes: int = 0) -> "RidgeFit":
        """The ridge regression whose inverse is known; attributes as ``RidgeFit`` has them."""
        mean, intercept = self.inputs / self.count, self.values / self.count
        weights = inverse @ (self.products - self.count * torch.outer(mean, intercept))
        return RidgeFit(weights, mean, intercept, inverse, self.count, changes)


def _group(points: Tensor, size: int) -> Tensor:
    """Points ``[n, d]`` as groups ``[g, size, d]``, the last filled up with zeros; few points are one group of n."""
    if len(points) <= size:
        return points[None]
    groups: Tensor = torch.nn.functional.pad(points, (0, 0, 0, -len(points) % size)).unflatten(0, (-1, size))
    return groups


@dataclass(frozen=True)
class RidgeChange:
    """What regressions of changed points go on from: those of before, and who came and went, float64 on the CPU.

    Attributes:
        fits: By penalty.
        joined: Points that joined ``[m, d]``.
        left: Points that left.
    """

    fits: Mapping[float, RidgeFit]
    joined: Tensor
    left: Tensor

    @classmethod
    def of(
        cls, fits: Mapping[float, RidgeFit], earlier: "RidgeChange | None", joined: Tensor, left: Tensor
    ) -> "RidgeChange":
        """After another change; where nobody asked for a fit since an earlier one, together with it."""
        if fits or earlier is None:
            return cls(dict(fits), joined, left)
        return cls(earlier.fits, torch.cat([earlier.joined, joined]), torch.cat([earlier.left, left]))

    def fit(self, penalty: float, sums: RidgeSums) -> RidgeFit:
        """The ridge regression after it, by its sums; solved anew where nothing is known or much has changed."""
        known = self.fits.get(penalty)
        if known is None or known.changes + len(self.joined) + len(self.left) > MOST_CHANGES:
            return sums.fit(penalty)
        return known.follow(sums, self.joined, self.left)


def ridge_regression(x: Tensor, v: Tensor, penalty: float) -> RidgeFit:
    """Fits v ≈ v̄ + Wᵀ(x − x̄) with a penalty α‖W‖² on the weights, none on the intercept.

    Args:
        x: Inputs ``[n, d]``.
        v: Values ``[n, c]``.
        penalty: α > 0.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
        >>> round(float(ridge_regression(x, 3 * x, penalty=1e-9).predict(x.new_tensor([4.0]))), 6)
        12.0
    """
    return RidgeSums.of(x, v, x.dtype).fit(penalty)
