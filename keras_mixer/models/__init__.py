"""Internal: builds models from layers, and resizes and fuses models."""
