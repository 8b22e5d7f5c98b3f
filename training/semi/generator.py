"""The generator's update: likelihood of labelled pairs, and policy gradient of drawings just made (METHODS B.2, B.8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.generation.losses import VaeLossConfig, kl_loss, reconstruction
from training.generation.mixture import Mixture
from training.generation.network import Generator, shifted
from training.generation.sampling import Drawn, draw_latent, log_likelihood
from training.semi.reward import RewardConfig, policy_loss


class GeneratorObjective(nn.Module):
    """Generator and loss as one module, so that one call is one step's forward pass, on however many devices."""

    def __init__(self, generator: Generator, loss: VaeLossConfig, reward: RewardConfig) -> None:
        super().__init__()
        self.generator, self.loss, self.reward = generator, loss, reward

    def forward(
        self, photos: Tensor, rows: Tensor, lengths: Tensor, drawn: Drawn, rewards: Tensor, kl_weight: float, rng: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms: "reconstruction", "divergence", "policy".

        Args:
            photos: of B labelled pairs, [B,3,S,S], or their maps [B,c,h,w] where the backbone does not train.
            rows: float32 [B,T+1,5], the pairs' real sketches, END behind them; lengths: int64 [B].
            drawn: K drawings with their hidden states, made by the generator as it is now; rewards [K].
            kl_weight: of the divergence at this step.
            rng: chance for the latent vectors.
        """
        generator, config = self.generator, self.loss
        encoded = generator.encode_maps(generator.maps(photos) if generator.config.train_backbone else photos)
        released = config.mask == "released"
        rows = rows if released else rows[:, : int(lengths.max())]
        raw, _ = generator.decode(encoded, shifted(rows), draw_latent(encoded, rng), None if released else lengths)
        found = reconstruction(Mixture.of(raw, generator.config.least_deviation), rows, lengths, config.mask)
        divergence = kl_loss(encoded.mean, encoded.log_variance, config.free_bits)
        loss = found.total + kl_weight * divergence
        terms = {"reconstruction": found.total.detach(), "divergence": divergence.detach()}
        if self.reward.policy > 0:
            policy = policy_loss(log_likelihood(generator, None, drawn), rewards, drawn.lengths, self.reward)
            loss = loss + policy
            terms["policy"] = policy.detach()
        return loss, terms
