"""Base class for layers that contain layers.

Works around three properties of Keras 3.15. A table in docs/state.md lists what
each operation keeps.

Dtypes. Keras quantises the `Dense` layers inside a composite layer one by one,
so each of them then has its own dtype policy. The configuration stores these
policies as a `DTypePolicyMap`, keyed by the path below the composite layer.
Without it a saved quantised model cannot be loaded. The map itself is never
passed to a `Dense`: in Keras 3.15 a `Dense` with a map saves no scales.

State of the layers inside. Keras stores `trainable`, regularizers, constraints
and LoRA in the configuration of each layer. A composite layer makes its inner
layers itself, after loading too, so their configurations would be lost: a
frozen layer would be trainable again, since a model collects the variables that
are trainable. `get_config` therefore stores what the inner layers have beyond
their defaults, and the constructor passes it on.

Rematerialisation. A composite layer is rematerialised as a whole; the `Dense`
and norm layers inside never are. Keras passes `training` to the function that
is computed twice. TensorFlow refuses that in a graph and JAX turns it into a
tracer, so it is bound before. A function that draws random numbers would draw
other numbers the second time and give wrong gradients. A composite layer that
draws random numbers is therefore computed once, and the composite layers inside
it that do not draw are rematerialised instead.
"""

import contextlib
import functools

import keras

# Options of Keras layers that a user may set after construction. Where a layer
# has no such option, its configuration does not have the key.
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
        sublayers: Optional dict `{name: options}`, from `get_config`: options
            with which the inner layers are made beyond their defaults.
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
        """Makes an inner layer, which is not rematerialised on its own."""
        with keras.RematScope(None):
            return self._make(layer, name, options)

    def _make(self, layer, name, options):
        restored = self._sublayer_options.get(name, {})
        options = {"trainable": self.trainable, **options, **restored}
        return layer(**options, dtype=self.dtype_of(name), name=name)

    def _dense(self, name, units, **options):
        """Makes an inner `Dense` with the kernel initializer of this layer."""
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
        """Makes an inner composite layer."""
        with self._scope_of_composites():
            return self._make(layer, name, options)

    def _scope_of_composites(self):
        """Returns the scope in which inner composite layers are made."""
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
        for layer in self._inner_layers():
            if isinstance(layer, Composite):
                below = layer._own_policies(default)
                policies |= {f"{layer.name}/{p}": below[p] for p in below}
            elif layer.dtype_policy != default:
                policies[layer.name] = layer.dtype_policy
        return policies

    def _inner_layers(self):
        return self._flatten_layers(recursive=False, include_self=False)

    def _options_of(self, layer):
        """What `get_config` stores of an inner layer."""
        config = layer.get_config()
        options = {key: config[key] for key in _OPTIONS if config.get(key)}
        if layer.trainable != self.trainable:
            options["trainable"] = layer.trainable
        return options

    def get_config(self):
        config = super().get_config()
        # Some inner layers are made in `build`.
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


def _policy_map(default, policies):
    if policies:
        return keras.dtype_policies.DTypePolicyMap(default, policies)
    return None
