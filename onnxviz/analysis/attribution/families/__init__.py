"""The methods, a file a family; each enters itself into the registry."""
