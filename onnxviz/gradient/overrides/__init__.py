"""Other rules than the true gradient's: guided backpropagation, relevance, contributions; a file a method."""
