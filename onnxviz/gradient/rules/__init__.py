"""The gradient rules, a file a family of operators; every file is loaded by ``registry.standard_table``."""
