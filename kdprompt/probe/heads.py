"""What each head takes from each demonstration, and how far that is from another prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdprompt.pool.prompt import PromptTemplate
from kdprompt.pool.records import Demonstration
from kdprompt.probe.capture import Captured, capture
from kdprompt.probe.segments import Segments

__all__ = ["LayerProbe", "Probe", "probe"]


@dataclass(frozen=True)
class LayerProbe:
    """One layer's heads at the last token of a prompt, where the answer begins.

    Attributes:
        query: Rotated query of the last token ``[heads, d]``.
        keys: Rotated keys of all tokens ``[heads, n, d]``.
        values: Values of all tokens ``[heads, n, d]``.
        attention: The model's own attention of the last token ``[heads, n]``; sums to 1.
        output: The model's own head outputs at the last token ``[heads, d]``.
        owner: Demonstration of each token ``[n]``, −1 for the rest.
        count: Number of demonstrations.
        scaling: Of ⟨q, k⟩.
    """

    query: Tensor
    keys: Tensor
    values: Tensor
    attention: Tensor
    output: Tensor
    owner: Tensor
    count: int
    scaling: float

    @property
    def member(self) -> Tensor:
        """Which tokens belong to which demonstration ``[count, n]``, 0 or 1."""
        place = torch.arange(self.count, device=self.owner.device)
        return (self.owner == place[:, None]).to(self.attention.dtype)

    @property
    def mass(self) -> Tensor:
        """Each demonstration's attention mass ``[heads, count]``; what is missing to 1 goes to the rest."""
        return self.attention @ self.member.T

    @property
    def contribution(self) -> Tensor:
        """What each demonstration adds to the head output, Σ a_i v_i over its tokens ``[heads, count, d]``."""
        return torch.einsum("hn,jn,hnd->hjd", self.attention, self.member, self.values)

    @property
    def read_out(self) -> Tensor:
        """f̄_D: what the head would read if it attended to the demonstrations alone ``[heads, d]`` (R1, softmax)."""
        return self.contribution.sum(1) / self.mass.sum(-1, keepdim=True).clamp_min(torch.finfo(self.mass.dtype).tiny)

    @property
    def rest(self) -> Tensor:
        """What the other tokens add ``[heads, d]``: with the contributions it sums to the head output."""
        other = (self.owner < 0).to(self.attention.dtype)
        return torch.einsum("hn,n,hnd->hd", self.attention, other, self.values)

    def interference(self, task: Sequence[int], wanted: int) -> tuple[Tensor, Tensor]:
        """R6 on the head: the pull of other tasks, and its bound.

        The read-out of the demonstrations is Σ_τ α_τ f̄_τ with α_τ the share of attention on task τ.

        Args:
            task: Task of each demonstration.
            wanted: The query's task; its own read-out stands for v*.

        Returns:
            ‖f̄_D − f̄_wanted‖ and Σ_{τ ≠ wanted} α_τ ‖f̄_τ − f̄_wanted‖, which is never smaller; ``[heads]`` each.

        Raises:
            ValueError: No demonstration is of the wanted task.
        """
        if wanted not in task or len(task) != self.count:
            raise ValueError(
                f"task must name {self.count} demonstrations, the wanted task {wanted} among them, got {task}"
            )
        codes = sorted(set(task))
        group = torch.tensor(
            [[t == code for t in task] for code in codes], dtype=self.mass.dtype, device=self.mass.device
        )
        mass = self.mass @ group.T
        tiny = torch.finfo(mass.dtype).tiny
        sums = torch.einsum("tj,hjd->htd", group, self.contribution)
        means = sums / mass[..., None].clamp_min(tiny)
        own = means[:, codes.index(wanted)]
        share = mass / mass.sum(-1, keepdim=True).clamp_min(tiny)
        bound = (share * (means - own[:, None]).norm(dim=-1)).sum(-1)
        return (self.read_out - own).norm(dim=-1), bound

    def bias(self, target: "LayerProbe") -> tuple[Tensor, Tensor]:
        """R2 on the head: how far the reference models of two prompts' demonstrations are apart.

        Under κ(k, k′) = exp(scaling·⟨k, k′⟩), the kernel of softmax attention (without a soft cap), and uniform weights
        of the demonstrations' tokens. Both numbers are relative to the largest exponent, so that they stay finite.

        Args:
            target: The same layer on another prompt.

        Returns:
            ‖W_D − W_Q‖, the MMD, and ‖f_D(q) − f_Q(q)‖/√κ(q, q), the shift of the unnormalised read-out at this
            prompt's query, which is never larger; float64, ``[heads]`` each.
        """
        mine, theirs = self.owner >= 0, target.owner >= 0
        k = torch.cat([self.keys[:, mine], target.keys[:, theirs]], 1).double()
        v = torch.cat([self.values[:, mine], target.values[:, theirs]], 1).double()
        signed = torch.cat([mine[mine] / mine.sum(), -(theirs[theirs] / theirs.sum())]).to(k)
        exponents = self.scaling * k @ k.transpose(-1, -2)
        top = exponents.amax((-1, -2))[:, None, None]
        joint = (exponents - top).exp() * (v @ v.transpose(-1, -2))
        distance = torch.einsum("i,hij,j->h", signed, joint, signed).clamp_min(0).sqrt()
        q = self.query.double()[..., None]
        to_query = self.scaling * (k @ q - (q * q).sum(-2, keepdim=True) / 2) - top / 2
        shift = ((signed[:, None] * to_query.exp()) * v).sum(1).norm(dim=-1)
        return distance, shift


@dataclass(frozen=True)
class Probe:
    """A prompt as a causal LM reads it.

    Attributes:
        segments: The prompt, its tokens, and whose they are.
        layers: In order.
    """

    segments: Segments
    layers: tuple[LayerProbe, ...]

    @property
    def mass(self) -> Tensor:
        """Attention mass of each demonstration, mean over heads ``[layers, count]``."""
        return torch.stack([layer.mass.mean(0) for layer in self.layers])


def probe(
    model: Any,
    tokenizer: Any,
    demonstrations: Sequence[Demonstration],
    query: str,
    *,
    template: PromptTemplate | None = None,
) -> Probe:
    """Opens up a causal LM of transformers on a prompt.

    Args:
        model: Llama, Qwen, Gemma, GPT-2, GPT-NeoX or any other that attends through transformers' interface.
        tokenizer: Its fast tokenizer.
        demonstrations: In reading order.
        query: Stands last; the heads are looked at where the answer begins.
        template: How the prompt is written.

    Returns:
        Layers and heads with their attention on each demonstration. The contributions and the rest sum to the head's
        own output.

    Raises:
        ValueError: The model is no causal LM, the prompt is longer than its context, or a token belongs to two
            demonstrations.
        TypeError: The tokenizer does not know where its tokens come from.
    """
    segments = Segments.of(tokenizer, demonstrations, query, template)
    layers = tuple(_layer(captured, segments) for captured in capture(model, segments.ids))
    return Probe(segments, layers)


def _layer(captured: Captured, segments: Segments) -> LayerProbe:
    return LayerProbe(
        query=captured.q[:, -1],
        keys=captured.k,
        values=captured.v,
        attention=captured.weights[:, -1].to(captured.v.dtype),
        output=captured.output[:, -1],
        owner=segments.owner.to(captured.v.device),
        count=segments.count,
        scaling=captured.scaling,
    )
