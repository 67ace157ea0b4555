"""The record that defines a family of models."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Family:
    """Defines a family of models.

    The names and axes of its weights are in a table in `weights.naming`.

    Args:
        name: Name of the family, a key of `layouts.FAMILIES`.
        sizes: Names of the first arguments of the general constructor, in their
            order, as they are called in `naming`. The first three are "patch",
            "num_blocks" and "hidden".
        variants: `{variant: sizes}`, the table of the paper.
        block: Function `block(i, sizes, widening, **options)` that returns
            block `i`, not built yet. The width of the MLP over tokens is
            multiplied by `widening`. The options are those of `layers.Block`.
        norm: Function that takes a `name` and returns the layer after the last
            block.
        activation: Activation of the MLPs. Weights may specify another one.
        scaling: Mean and standard deviation of each channel, for pixels in
            [0, 1]. Weights may specify other values.
        kernel_initializer: Function that returns a new initializer for the
            kernel of the stem. It is a function, because an initializer shared
            by several models would draw the same numbers for all of them.
        head_initializer: The same for the kernel of the head.
    """

    name: str
    sizes: tuple
    variants: dict
    block: Callable
    norm: Callable
    activation: object
    scaling: tuple
    kernel_initializer: Callable
    head_initializer: Callable

    def variant_of(self, sizes):
        """Returns the variant that has these sizes, or `None`.

        The published weights of a model are chosen by its sizes, not by its
        name.

        Args:
            sizes: `{name: size}`. Missing sizes are not compared: weights files
                do not contain the initial value of LayerScale.
        """
        for variant, values in self.variants.items():
            known = zip(self.sizes, values, strict=True)
            if all(sizes.get(name, value) == value for name, value in known):
                return variant
        return None
