"""Results to matplotlib figures, through the object interface: pyplot and the global settings are left alone.

Import from the modules.
"""
