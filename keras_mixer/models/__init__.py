"""From layers to a `keras.Model`, and from a model to another. Internal."""
