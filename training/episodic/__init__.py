"""Meta-training of the embedding layer (ECCV 2022, METHODS part C): tasks, features, margins, the outer loop and its trainer."""
