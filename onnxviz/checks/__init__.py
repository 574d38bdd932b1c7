"""Is a model fit to deploy? Checks look at a model and say what failed, what passed and what could not be checked."""
