"""Which parts of an input an answer came from: targets, layers, methods and what they return."""
