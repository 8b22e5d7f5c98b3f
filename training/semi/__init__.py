"""Joint training of generator and retrieval (METHODS B.5 to B.9): the parts that training.semi_supervised puts together."""
