"""Networks: backbones, spatial attention, pooling, the encoder and the embedding head."""
