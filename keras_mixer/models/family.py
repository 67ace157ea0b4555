"""What makes a family of models."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Family:
    """The record of a family.

    The names and axes of its weights are a table of `weights.naming`.

    Args:
        name: Name of the family, a key of `naming.FAMILIES`.
        sizes: Names of the first arguments of the general constructor, in their
            order, as axes of `naming`; the first three are "patch",
            "num_blocks" and "hidden".
        variants: `{variant: sizes}`, the table of the paper.
        norm: Makes the layer behind the last block, given its `name`.
        activation: Activation of the MLPs, unless the weights have another.
        scaling: Mean and standard deviation of the channels of pixels in
            [0, 1], unless the weights have others.
        kernel_initializer: Makes the initializer of the stem's kernel. One that
            were shared by several models would give all the same numbers.
        head_initializer: Makes the initializer of the head's kernel.
    """

    name: str
    sizes: tuple
    variants: dict
    norm: Callable
    activation: object
    scaling: tuple
    kernel_initializer: Callable
    head_initializer: Callable

    def variant_of(self, sizes):
        """The variant that has these sizes, or `None`.

        The sizes choose the published weights of a model, never its name.

        Args:
            sizes: `{name: size}`. A size that it lacks is not compared: files
                of weights do not tell the initial value of LayerScale.
        """
        for variant, values in self.variants.items():
            known = zip(self.sizes, values, strict=True)
            if all(sizes.get(name, value) == value for name, value in known):
                return variant
        return None
