"""`RematScope` saves no memory with JAX on a CPU, with Keras alone.

    KERAS_BACKEND=jax python benchmarks/upstream/remat_jax.py

XLA's compiler for CPUs orders operations so that many can run at the same time.
It then recomputes activations long before they are needed, and keeps them. The
script prints the temporary memory of the compiled gradient, with and without
rematerialization, in this order and in the order for little memory.
"""

import os
import subprocess
import sys

FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler"


def main():
    for value in ("true", "false"):
        env = {**os.environ, "XLA_FLAGS": f"{FLAG}={value}"}
        for mode in ("none", "full"):
            command = [sys.executable, __file__, value, mode]
            subprocess.run(command, env=env, check=True)


def measure(value, mode):
    import jax
    import keras

    class Block(keras.Layer):
        def __init__(self):
            super().__init__()
            with keras.RematScope(None):  # the block is one unit
                self.wide = keras.layers.Dense(2048, activation="gelu")
                self.narrow = keras.layers.Dense(512)

        def build(self, shape):
            self.wide.build(shape)
            self.narrow.build((shape[0], 2048))

        def call(self, x):
            return x + self.narrow(self.wide(x))

    with keras.RematScope(None if mode == "none" else mode):
        blocks = [Block() for _ in range(8)]
    model = keras.Sequential([keras.Input((512,)), *blocks])
    x = jax.numpy.ones((2048, 512))

    def loss(weights):
        y, _ = model.stateless_call(weights, [], x, training=True)
        return y.sum()

    weights = [variable.value for variable in model.trainable_variables]
    compiled = jax.jit(jax.grad(loss)).lower(weights).compile()
    size = compiled.memory_analysis().temp_size_in_bytes / 1e6
    print(f"{FLAG}={value:5}  remat {mode:4}  {size:5.0f} MB", flush=True)


if __name__ == "__main__":
    measure(*sys.argv[1:]) if len(sys.argv) > 1 else main()
