"""Calling and training a Keras model on PyTorch."""

import torch

from benchmarks.peers import inputs


def device():
    if inputs.device() == "gpu":
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def gpu_memory():
    if inputs.device() != "gpu":
        return None
    return torch.cuda.max_memory_allocated()


def release():
    torch._dynamo.reset()
    if inputs.device() == "gpu":
        torch.cuda.empty_cache()


def constant(array):
    return torch.as_tensor(array, device=place())


def place():
    return {"cpu": "cpu", "gpu": "cuda"}[inputs.device()]


def repeated(call):
    """Returns a function that makes a number of calls and waits for them."""

    def run(count):
        for _ in range(count):
            call()
        if inputs.device() == "gpu":
            torch.cuda.synchronize()

    return run


def caller(form, model, images):
    def call(x):
        return model(x, training=False)

    if form == "compiled":
        call = torch.compile(call)
    elif form != "eager":
        raise ValueError(f"PyTorch has no '{form}'")

    def once():
        with torch.inference_mode():
            call(images)

    return repeated(once)


def trainer(kind, model, optimizer, loss, images, labels):
    variables = model.trainable_variables
    optimizer.build(variables)

    def step():
        model.zero_grad()
        loss(labels, model(images, training=True)).backward()
        with torch.no_grad():
            optimizer.apply([v.value.grad for v in variables], variables)

    return repeated(step)


def product(x, kernel):
    return repeated(lambda: torch.mm(x, kernel))
