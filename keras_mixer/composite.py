"""Layers made of layers, as far as Keras needs help with such.

Dtypes. Keras quantises the `Dense` layers inside one by one, so each then has a
dtype policy of its own. The configuration carries these along as a
`DTypePolicyMap`, keyed by the path below the composite; without them a saved
quantised model could not be loaded. The map itself is never handed to a
`Dense`, which in Keras 3.15 then forgets its scales when it is saved again.

Rematerialisation. A composite is computed twice as a whole, and not what is in
it once more; `Dense` and norms never are on their own. Keras hands `training`
to the function that is computed twice, which TensorFlow refuses in a graph and
JAX turns into a tracer, so it is bound before. A function that draws random
numbers would draw others the second time, and yield wrong gradients: a layer
that does is computed once, and the composites in it that do not are
rematerialised instead.
"""

import contextlib
import functools

import keras


class Composite(keras.Layer):
    """The base of layers that are made of layers."""

    @property
    def is_random(self):
        """Whether the layer draws random numbers while training."""
        raise NotImplementedError

    def rematerialized_call(self, layer_call, inputs, training=None):
        if self.is_random:
            return layer_call
        bound = functools.partial(layer_call, training=training)
        # Keras measures outputs by the specification of the inputs.
        spec = keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
        rematerialized = super().rematerialized_call(bound, spec)
        return lambda inputs, training=None: rematerialized(inputs)

    @property
    def _default_policy(self):
        return getattr(self.dtype_policy, "default_policy", self.dtype_policy)

    def dtype_of(self, name):
        """The dtype that the sub-layer `name` is to be made with."""
        policy = self.dtype_policy
        if not isinstance(policy, keras.dtype_policies.DTypePolicyMap):
            return policy
        below = {
            path.removeprefix(f"{name}/"): policy[path]
            for path in policy
            if path.startswith(f"{name}/")
        }
        return _policy_map(self._default_policy, below) or policy[name]

    def _part(self, layer, name, **options):
        """Makes a layer inside, never to be rematerialised on its own."""
        with keras.RematScope(None):
            return layer(**options, dtype=self.dtype_of(name), name=name)

    def _dense(self, name, units, **options):
        """Makes a `Dense` inside, with the kernel initializer of this layer."""
        initializer = self.kernel_initializer
        if isinstance(initializer, keras.initializers.Initializer):
            # One that is used twice draws the same numbers twice.
            initializer = initializer.clone()
        return self._part(
            keras.layers.Dense,
            name,
            units=units,
            kernel_initializer=initializer,
            **options,
        )

    def _composite(self, layer, name, **options):
        """Makes a composite within this one."""
        with self._scope_of_composites():
            return layer(**options, dtype=self.dtype_of(name), name=name)

    def _scope_of_composites(self):
        """The scope to make the composites within this one in."""
        own = self._remat_mode
        mode = getattr(own, "mode", None)
        listed = mode == "list_of_layers" and self.name in own.layer_names
        if listed and self.is_random:
            return keras.RematScope("full")
        if listed or (mode in ("full", "larger_than") and not self.is_random):
            return keras.RematScope(None)
        return contextlib.nullcontext()

    def _own_policies(self, default):
        """`{path: policy}` of the layers inside whose policy is their own."""
        policies = {}
        for layer in self._flatten_layers(recursive=False, include_self=False):
            if isinstance(layer, Composite):
                below = layer._own_policies(default)
                policies |= {f"{layer.name}/{p}": below[p] for p in below}
            elif layer.dtype_policy != default:
                policies[layer.name] = layer.dtype_policy
        return policies

    def get_config(self):
        config = super().get_config()
        default = self._default_policy
        policy_map = _policy_map(default, self._own_policies(default))
        if policy_map:
            config["dtype"] = policy_map
        return config


def _policy_map(default, policies):
    if policies:
        return keras.dtype_policies.DTypePolicyMap(default, policies)
    return None
