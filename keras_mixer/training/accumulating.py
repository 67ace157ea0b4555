"""Gradient accumulation: several small batches for one update of the weights.

Keras's optimizers have `gradient_accumulation_steps`. In Keras 3.15 it fails
under `tf.distribute`. It also advances the learning rate schedule and the
moving average of the weights (`use_ema`) once per batch, not once per update,
so the average forgets faster. `Accumulate` passes the mean gradient of all
batches to its inner optimizer. The inner optimizer runs once per update, as
with one large batch.
"""

import keras
from keras import ops

from keras_mixer.arguments import check_positive_int


@keras.saving.register_keras_serializable(package="keras_mixer")
class Accumulate(keras.optimizers.Optimizer):
    """Updates the weights once every few batches, with the mean gradient.

    For a loss that is a mean over the batch, `steps` batches of `n` samples
    change the weights as one batch of `steps * n` samples does. The learning
    rate schedule, weight decay, clipping and the moving average of the weights
    are those of the inner optimizer, which runs once per update.

    Args:
        optimizer: The Keras optimizer that updates the weights.
        steps: Positive integer, the number of batches for one update.
        name: String, the name of the optimizer.

    Raises:
        ValueError: If `steps` is not positive, or `optimizer` is a
            `LossScaleOptimizer` (which must be around this one) or
            accumulates gradients itself.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import keras
    >>> from keras_mixer.training.accumulating import Accumulate
    >>> weight = keras.Variable([1.0])
    >>> optimizer = Accumulate(keras.optimizers.SGD(0.5), steps=2)
    >>> optimizer.build([weight])
    >>> for gradient in (0.0, 1.0):
    ...     optimizer.apply([keras.ops.array([gradient])])
    ...     print(keras.ops.convert_to_numpy(weight))
    [1.]
    [0.75]
    """

    def __init__(self, optimizer, steps, name="accumulate"):
        super().__init__(learning_rate=0.0, name=name)
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise TypeError(
                "`optimizer` must be a Keras optimizer. Received: optimizer="
                f"{optimizer!r} (of type {type(optimizer).__name__})"
            )
        self.inner = optimizer
        for each in self.optimizers:
            if (
                isinstance(each, keras.optimizers.LossScaleOptimizer)
                or each.gradient_accumulation_steps
            ):
                raise ValueError(
                    "`optimizer` must not scale the loss or accumulate "
                    "gradients itself. Use a LossScaleOptimizer around this "
                    f"one. Received: optimizer={each!r}"
                )
        self.steps = check_positive_int("steps", steps)

    def build(self, variables):
        self.inner.build(variables)
        self._sums = []
        for variable in variables:
            if getattr(variable, "overwrite_with_gradient", False):
                raise ValueError(
                    "Gradients cannot be accumulated for float8 training. "
                    f"Received: the scale {variable.path}"
                )
            total = keras.Variable(
                initializer="zeros",
                shape=variable.shape,
                dtype=variable.dtype,
                trainable=False,
                name=f"{variable.path.replace('/', '_')}_gradient_sum",
                layout=getattr(variable, "_layout", None),
                # Under `tf.distribute` each replica has its own sum.
                aggregation="sum",
                synchronization="on_read",
            )
            self._track_variable(total)
            self._sums.append(total)
        super().build(variables)

    @property
    def optimizers(self):
        """The inner optimizers; Keras's callbacks read this attribute."""
        return getattr(self.inner, "optimizers", [self.inner])

    @property
    def variables(self):
        return self._variables + self.inner.variables

    @property
    def iterations(self):
        """Number of updates of the weights."""
        return self.inner.iterations

    @property
    def learning_rate(self):
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner.learning_rate = learning_rate

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(list(trainable_variables))
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        if keras.backend.backend() == "jax":
            self._apply_by_stateless(grads, trainable_variables)
            return
        for total, gradient in zip(self._sums, grads, strict=True):
            if gradient is not None:
                total.assign_add(gradient)
        has_gradient = [gradient is not None for gradient in grads]

        def update():
            means = [
                total / self.steps if has else None
                for has, total in zip(has_gradient, self._sums, strict=True)
            ]
            self.inner.apply(means, trainable_variables)
            for total in self._sums:
                total.assign(ops.zeros_like(total))

        self._run_if((self._iterations + 1) % self.steps == 0, update)
        self._iterations.assign_add(1)

    def _run_if(self, condition, update):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # In a replica of `tf.distribute`, `cond` must not contain
            # communication between replicas. So the condition is evaluated
            # outside the replicas, as in `LossScaleOptimizer`.
            if tf.distribute.has_strategy():

                def update_all(strategy):
                    ops.cond(
                        (self._iterations + 1) % self.steps == 0,
                        lambda: strategy.extended.call_for_each_replica(update),
                        lambda: None,
                    )

                tf.distribute.get_replica_context().merge_call(update_all)
                return
        ops.cond(condition, update, lambda: None)

    def _apply_by_stateless(self, grads, trainable_variables):
        trainable, own = self.stateless_apply(
            [variable.value for variable in self.variables],
            grads,
            [variable.value for variable in trainable_variables],
        )
        for variable, value in zip(
            [*trainable_variables, *self.variables],
            [*trainable, *own],
            strict=True,
        ):
            variable.assign(value)

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        """Applies gradients on JAX, where `cond` cannot have side effects."""
        count = len(self._variables)
        iterations, rate, *sums = map(
            ops.convert_to_tensor, optimizer_variables[:count]
        )
        inner = [ops.convert_to_tensor(v) for v in optimizer_variables[count:]]
        trainable = [ops.convert_to_tensor(v) for v in trainable_variables]
        sums = [
            total if gradient is None else total + gradient
            for total, gradient in zip(sums, grads, strict=True)
        ]

        def update():
            updated, updated_inner = self.inner.stateless_apply(
                inner, [total / self.steps for total in sums], trainable
            )
            return updated, updated_inner, [ops.zeros_like(s) for s in sums]

        trainable, inner, sums = ops.cond(
            (iterations + 1) % self.steps == 0,
            update,
            lambda: (trainable, inner, sums),
        )
        return trainable, [iterations + 1, rate, *sums, *inner]

    def scale_loss(self, loss):
        return self.inner.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.inner.finalize_variable_values(var_list)

    def get_config(self):
        return {
            "optimizer": keras.saving.serialize_keras_object(self.inner),
            "steps": self.steps,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        optimizer = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        return cls(**{**config, "optimizer": optimizer})
