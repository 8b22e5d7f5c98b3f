"""What a student can learn from a frozen teacher of any width: relations between rows, not the rows themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.common import full_precision, own_distances


@full_precision
def relational_distillation(
    rows: Tensor,
    columns: Tensor,
    teacher_rows: Tensor,
    teacher_columns: Tensor,
    temperature: float = 0.1,
    *,
    own_row: bool = True,
) -> Tensor:
    """Divergence of the student's similarities from the teacher's: mean over rows i of ``KL(softmax_j t_ij || softmax_j s_ij)``.

    After Sain et al., CVPR 2023, whose student is to have its photos at the same relative distances as a teacher that has seen
    more photos; relational distillation in general: Park et al., CVPR 2019. 0 where the student agrees.

    Args:
        rows: the student's unit embeddings [N,D] of one side of a batch.
        columns: its unit embeddings [M,D] of the other side, or the same side again.
        teacher_rows: the teacher's unit embeddings [N,E] of the same images; E need not be D. No gradient reaches them.
        teacher_columns: likewise [M,E].
        temperature: divides cosines, the teacher's and the student's.
        own_row: False leaves column i out of row i. For one side twice: a row's likeness to itself is 1 and tells nothing.
    """
    student = rows @ columns.T / temperature
    teacher = (teacher_rows @ teacher_columns.T / temperature).detach()
    kept = torch.ones_like(student, dtype=torch.bool)
    if not own_row:
        kept.fill_diagonal_(False)
    low = torch.finfo(student.dtype).min  # not -inf: a row with nothing left would be -inf minus -inf
    log_student, log_teacher = (each.masked_fill(~kept, low).log_softmax(dim=1) for each in (student, teacher))
    return (log_teacher.exp() * (log_teacher - log_student)).masked_fill(~kept, 0.0).sum(dim=1).mean()


@full_precision
def distance_distillation(sketches: Tensor, photos: Tensor, teacher_sketches: Tensor, teacher_photos: Tensor) -> Tensor:
    """``mean_i | d(T(s_i), T(p_i)) - d(s_i, p_i) |``: the relative teacher of the 2021 paper (METHODS B.6).

    Args:
        sketches: the student's unit embeddings [B,D].
        photos: likewise [B,D].
        teacher_sketches: the teacher's unit embeddings [B,E]; no gradient reaches them.
        teacher_photos: likewise [B,E].
    """
    wanted = own_distances(teacher_sketches, teacher_photos).detach()
    return (wanted - own_distances(sketches, photos)).abs().mean()
