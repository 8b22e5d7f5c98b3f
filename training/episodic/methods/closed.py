"""Adaptation in closed form: nothing is descended, k pairs give the answer at once.

Few-shot classifiers with closed forms do not carry over as they are: a query's photo is never in the support, so there are no
classes to have prototypes or targets of. What carries over is the map between the two kinds of image:

Prototype (after Snell et al., NeurIPS 2017): the support's sketches and the support's photos have one prototype each, the mean of
    their unit embeddings; sketches move by the share r of the way from the one to the other,
        z_s -> normalise(z_s + r (c_photo - c_sketch)).
Ridge (after Bertinetto et al., ICLR 2019): the change of the head, of sketches alone, that takes the support's sketches to where
    their photos are, at their own length,
        min over D of  sum_i |W s_i + b + D [s_i 1] - |W s_i + b| z_photo(i)|^2 + l |D|^2,
    solved in the span of the support, D = R^T (S S^T + 1 + l I)^-1 [S 1] with residuals R [k,D].

Centred: what all sketches of a task have in common says nothing about which photo is meant. It is estimated by the support's mean
    sketch, drawn towards the origin as a mean of few (p pairs' worth of zeros among the k),
        z_s -> normalise(z_s - k / (k + p) c_sketch).
    The support's photos play no part.

All move sketches alone, so that every photo's embedding stays. r, l and p are chosen on training tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.episodic.methods.head import HeadMethod, unit
from training.episodic.methods.protocol import EncodedEpisode, Role, Scorer, cosine


@dataclass(frozen=True, eq=False)
class Prototype(HeadMethod):
    """Sketches move by `share` (0 to 1) of the way from the support's mean sketch to its mean photo."""

    share: float = 0.5

    def adapted(self, episode: EncodedEpisode, rng: np.random.Generator) -> Scorer:
        sketches, photos, places = episode.support(0)
        ours = F.normalize(self.layer.outputs(sketches), dim=1)
        theirs = F.normalize(self.layer.outputs(photos), dim=1)[torch.from_numpy(places)]
        shift = self.share * (theirs - ours).mean(0)

        def embed(features: Tensor, role: Role) -> np.ndarray:
            rows = F.normalize(self.layer.outputs(features), dim=1)
            return unit(rows + shift if role == "sketch" else rows)

        return cosine(embed)


@dataclass(frozen=True, eq=False)
class Ridge(HeadMethod):
    """The ridge regression from the support's sketches to their photos; `strength` is l."""

    strength: float = 1.0

    def adapted(self, episode: EncodedEpisode, rng: np.random.Generator) -> Scorer:
        sketches, photos, places = episode.support(0)
        ours = self.layer.outputs(sketches)
        theirs = F.normalize(self.layer.outputs(photos), dim=1)[torch.from_numpy(places)]
        residuals = ours.norm(dim=1, keepdim=True) * theirs - ours
        gram = sketches @ sketches.T + 1.0
        coefficients = torch.linalg.solve(gram + self.strength * torch.eye(len(gram)), residuals)  # [k,D]

        def embed(features: Tensor, role: Role) -> np.ndarray:
            outputs = self.layer.outputs(features)
            return unit(outputs + (features @ sketches.T + 1.0) @ coefficients if role == "sketch" else outputs)

        return cosine(embed)


@dataclass(frozen=True, eq=False)
class Centred(HeadMethod):
    """Sketches lose the support's mean sketch; `prior` is p, 0 or more."""

    prior: float = 2.0

    def adapted(self, episode: EncodedEpisode, rng: np.random.Generator) -> Scorer:
        sketches, _, _ = episode.support(0)
        ours = F.normalize(self.layer.outputs(sketches), dim=1)
        common = ours.sum(0) / (len(ours) + self.prior)

        def embed(features: Tensor, role: Role) -> np.ndarray:
            rows = F.normalize(self.layer.outputs(features), dim=1)
            return unit(rows - common if role == "sketch" else rows)

        return cosine(embed)
