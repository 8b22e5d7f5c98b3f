"""Networks: backbones, spatial attention, the encoder and the embedding head."""
