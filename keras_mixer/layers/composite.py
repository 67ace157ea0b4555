"""Base class for layers that contain layers.

Works around three properties of Keras 3.15. A table in docs/state.md lists what
each operation keeps.

Dtypes. Keras quantizes the `Dense` layers inside a composite layer one by one.
Each of them then has its own dtype policy. The configuration stores these
policies as a `DTypePolicyMap`. Its keys are paths relative to the composite
layer. Without the map a saved quantized model cannot be loaded. The map itself
is never passed to a `Dense`: in Keras 3.15 a `Dense` with a map does not save
its quantization scales.

State of the inner layers. Keras stores `trainable`, activations, regularizers,
constraints and LoRA in the configuration of each layer. A composite layer
creates its inner layers itself, also after loading, so their configurations
would be lost. For example, a frozen inner layer would be trainable again.
`get_config` therefore stores the options of the inner layers that differ from
their defaults, and the constructor passes them to the inner layers.

Rematerialization. A composite layer is rematerialized as a whole. The `Dense`
and norm layers inside it are not rematerialized separately. Keras passes
`training` to the function that is computed twice. TensorFlow raises an error
for this argument in a graph and JAX turns it into a tracer, so `training` is
bound to the function first. A function that draws random numbers would draw
different numbers the second time, and the gradients would be wrong. A composite
layer that draws random numbers is therefore not rematerialized. The composite
layers inside it that draw no random numbers are rematerialized instead.

PyTorch ends the second computation early, by an exception from inside a layer.
Keras adds the arguments of the layer to every exception, and the new exception
refers to itself through its traceback. The recomputed activations then stay in
memory until Python collects garbage, and rematerialization saves nothing. The
inner layers are therefore called without this, as after
`keras.config.disable_traceback_filtering()`.
"""

import contextlib
import functools

import keras

from keras_mixer.keras_private import flatten_layers
from keras_mixer.keras_private import remat_of

# Options of Keras layers that a user may set after construction. The
# configuration of a layer has only the keys of the options that it supports.
_OPTIONS = (
    "activity_regularizer",
    "beta_constraint",
    "beta_regularizer",
    "bias_constraint",
    "bias_regularizer",
    "gamma_constraint",
    "gamma_regularizer",
    "kernel_constraint",
    "kernel_regularizer",
    "lora_alpha",
    "lora_rank",
    "sublayers",
)


class Composite(keras.Layer):
    """Base class for layers that contain layers.

    Args:
        sublayers: Optional dict `{name: options}` from `get_config`: the
            options of the inner layers that differ from their defaults.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def __init__(self, *, sublayers=None, **kwargs):
        super().__init__(**kwargs)
        self._sublayer_options = sublayers or {}

    @property
    def is_random(self):
        """Whether the layer draws random numbers while training."""
        raise NotImplementedError

    def rematerialized_call(self, layer_call, inputs, training=None):
        if self.is_random:
            return layer_call
        bound = functools.partial(layer_call, training=training)
        if keras.backend.backend() == "torch":
            bound = _without_traceback_filtering(bound)
        # Keras computes the size of the output from this specification.
        spec = keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
        rematerialized = super().rematerialized_call(bound, spec)
        return lambda inputs, training=None: rematerialized(inputs)

    @property
    def _default_policy(self):
        return getattr(self.dtype_policy, "default_policy", self.dtype_policy)

    def dtype_of(self, name):
        """Returns the dtype policy for the inner layer `name`."""
        policy = self.dtype_policy
        if not isinstance(policy, keras.dtype_policies.DTypePolicyMap):
            return policy
        below = {
            path.removeprefix(f"{name}/"): policy[path]
            for path in policy
            if path.startswith(f"{name}/")
        }
        return _policy_map(self._default_policy, below) or policy[name]

    def _sublayer(self, layer, name, **options):
        """Creates an inner layer that is not rematerialized separately."""
        with keras.RematScope(None):
            return self._make(layer, name, options)

    def _make(self, layer, name, options):
        restored = self._sublayer_options.get(name, {})
        options = {"trainable": self.trainable, **options, **restored}
        return layer(**options, dtype=self.dtype_of(name), name=name)

    def _dense(self, name, units, **options):
        """Creates an inner `Dense` with this layer's kernel initializer."""
        initializer = self.kernel_initializer
        if isinstance(initializer, keras.initializers.Initializer):
            # An initializer that is used twice draws the same numbers twice.
            initializer = initializer.clone()
        return self._sublayer(
            keras.layers.Dense,
            name,
            units=units,
            kernel_initializer=initializer,
            **options,
        )

    def _composite(self, layer, name, **options):
        """Creates an inner composite layer."""
        with self._scope_of_composites():
            return self._make(layer, name, options)

    def _scope_of_composites(self):
        """Returns the remat scope in which to create inner composite layers."""
        own = remat_of(self)
        mode = getattr(own, "mode", None)
        listed = mode == "list_of_layers" and self.name in own.layer_names
        if listed and self.is_random:
            return keras.RematScope("full")
        if listed or (mode in ("full", "larger_than") and not self.is_random):
            return keras.RematScope(None)
        return contextlib.nullcontext()

    def _own_policies(self, default):
        """Returns `{path: policy}` of inner layers without the default."""
        policies = {}
        for layer in self._inner_layers():
            if isinstance(layer, Composite):
                below = layer._own_policies(default)
                policies |= {f"{layer.name}/{p}": below[p] for p in below}
            elif layer.dtype_policy != default:
                policies[layer.name] = layer.dtype_policy
        return policies

    def _inner_layers(self):
        return flatten_layers(self, recursive=False, include_self=False)

    def _options_of(self, layer):
        """Returns the options of an inner layer that `get_config` stores."""
        config = layer.get_config()
        options = {key: config[key] for key in _OPTIONS if config.get(key)}
        # A `Dense` is created without one, an MLP with that of its block.
        created = keras.activations.linear
        if isinstance(layer, Composite):
            created = getattr(self, "activation", None)
        if getattr(layer, "activation", created) is not created:
            options["activation"] = config["activation"]
        if layer.trainable != self.trainable:
            options["trainable"] = layer.trainable
        return options

    def get_config(self):
        config = super().get_config()
        # Some inner layers do not exist before `build`.
        sublayers = dict(self._sublayer_options)
        for layer in self._inner_layers():
            sublayers[layer.name] = self._options_of(layer)
        sublayers = {
            name: sublayers[name] for name in sublayers if sublayers[name]
        }
        if sublayers:
            config["sublayers"] = sublayers
        default = self._default_policy
        policy_map = _policy_map(default, self._own_policies(default))
        if policy_map:
            config["dtype"] = policy_map
        return config


def _without_traceback_filtering(function):
    def unfiltered(*args):
        if not keras.config.is_traceback_filtering_enabled():
            return function(*args)
        keras.config.disable_traceback_filtering()
        try:
            return function(*args)
        finally:
            keras.config.enable_traceback_filtering()

    return unfiltered


def _policy_map(default, policies):
    if policies:
        return keras.dtype_policies.DTypePolicyMap(default, policies)
    return None
