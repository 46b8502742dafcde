"""What speaks for each output and what the reader is expected to answer (R9), as a selection reports it."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kdprompt.objective.reader_loss import ReaderLoss
from kdprompt.selection.result import OutputEvidence

__all__ = ["note_one_output", "report_evidence"]

LIKELIEST = 3  # outputs that are reported though no demonstration shows them


def report_evidence(
    reader: ReaderLoss, names: Sequence[str], shown: Tensor, last: Tensor, query_weights: Tensor
) -> list[tuple[OutputEvidence, ...]]:
    """What speaks for the likeliest outputs and for those that are shown, likeliest first.

    Args:
        reader: R9 for ``b`` prompts with ``q`` queries and ``c`` outputs.
        names: The outputs.
        shown: ḡ of each prompt ``[b, c]``.
        last: The output of its last demonstration, one-hot ``[b, c]``.
        query_weights: Weights of the queries ``[b, q]``, summing to 1.
    """

    def average(values: Tensor) -> Tensor:
        return (values * query_weights[..., None]).sum(1)

    can_occur = reader.evidence.isfinite()
    possible, occurs = can_occur.any(1), average(can_occur.to(shown.dtype)).clamp_min(torch.finfo(shown.dtype).tiny)
    pool = average(reader.evidence.masked_fill(~can_occur, 0.0)) / occurs
    own = average(reader.own.masked_fill(~can_occur, 0.0)) / occurs
    prompt = reader.leaning + reader.follow * shown + reader.recency * last
    target, expected = average(reader.log_target.exp()), average(reader.log_probs(shown, last).exp())
    columns = torch.stack([shown, pool, prompt, own, target, expected], -1).tolist()
    order = target.sort(dim=-1, descending=True, stable=True).indices.tolist()
    reports = []
    for b, codes in enumerate(order):
        kept = [c for place, c in enumerate(codes) if possible[b, c] and (place < LIKELIEST or columns[b][c][0] > 0)]
        fields = ("shown", "pool", "prompt", "own", "target", "expected")
        reports.append(
            tuple(OutputEvidence(output=names[c], **dict(zip(fields, columns[b][c], strict=True))) for c in kept)
        )
    return reports


def note_one_output(evidence: Sequence[OutputEvidence], most: float) -> Iterator[str]:
    """Says where a prompt shows one output only and the pool's evidence is less than such a prompt carries.

    Args:
        evidence: Of one prompt.
        most: τ + ρ, the log-odds that a prompt of one output carries.
    """
    shown = [output for output in evidence if output.shown > 0]
    others = [output.pool for output in evidence if output.shown == 0]
    if len(shown) != 1 or not others or shown[0].shown < 1 - 1e-9:
        return
    odds = shown[0].pool - max(others)
    if odds < most:
        yield (
            f"every demonstration shows {shown[0].output!r}, which tells the reader {most:.1f} nats; the pool knows "
            f"{odds:.1f}: more examples near this query, of other outputs too, would settle it"
        )
