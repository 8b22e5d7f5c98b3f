"""The generator's update: likelihood of labelled pairs, and policy gradient of drawings just made (METHODS B.2, B.8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.generation.losses import VaeLossConfig, vae_loss
from training.generation.network import Generator
from training.generation.sampling import Drawn, log_likelihood
from training.semi.reward import RewardConfig, policy_loss


class GeneratorObjective(nn.Module):
    """Generator and loss as one module, so that one call is one step's forward pass, on however many devices.

    Chance for the latent vectors of labelled pairs comes from PyTorch's own generator.
    """

    def __init__(self, generator: Generator, loss: VaeLossConfig, reward: RewardConfig) -> None:
        super().__init__()
        self.generator, self.loss, self.reward = generator, loss, reward

    def forward(
        self, photos: Tensor, target: tuple[Tensor, Tensor], drawn: Drawn, rewards: Tensor, step: int
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss, and its terms: "offset", "pen", "kl", "policy".

        Args:
            photos: of B labelled pairs, [B,3,S,S], or their maps [B,c,h,w] where the backbone does not train.
            target: the pairs' real sketches: rows float32 [B,T+1,5], END behind them, and lengths int64 [B].
            drawn: K drawings with their hidden states, made by the generator as it is now; rewards: [K].
            step: the generator's, counted from the beginning of its pre-training: what annealing goes by.
        """
        generator, (rows, lengths) = self.generator, target
        maps = generator.maps(photos) if generator.config.train_backbone else photos
        with torch.autocast(maps.device.type, enabled=False):  # a drawing's likelihood must be the one it was drawn with
            rows = rows if self.loss.mask == "released" else rows[:, : int(lengths.max())]
            loss, terms = vae_loss(generator, generator.encode_maps(maps), (rows, lengths), self.loss, step)
            if self.reward.policy > 0:
                policy = policy_loss(log_likelihood(generator, None, drawn), rewards, drawn.lengths, self.reward)
                loss = loss + policy
                terms = {**terms, "policy": float(policy.detach())}
        return loss, terms
