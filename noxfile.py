"""Every check of the project, each in a fresh environment: `nox`.

`nox -s tests` runs one of them, `nox -l` lists them.
"""

import pathlib

import nox

BACKENDS = ("tensorflow", "jax", "torch")

# On its own and first: named together with others, or as any other version, it
# may bring several gigabytes of CUDA libraries along.
TORCH = "torch==2.13.0"

# Without its requirements: it asks for torchvision, which need not be there.
TIMM = "timm==1.0.31"

nox.options.sessions = ("lint", "tests", "wheel")


@nox.session
def lint(session):
    """Checks style and format."""
    session.install("ruff==0.17.5")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def tests(session):
    """Runs all tests: on each backend, then those that need no particular one.

    Arguments after `--` go to pytest: `nox -s tests -- tests/layers`.
    """
    session.install(TORCH)
    session.install("-e", ".[tensorflow,jax,torch,train,examples,test]")
    session.install("--no-deps", TIMM)
    # Two files at a time, each with a core of its own.
    pytest = ("pytest", "-n", "2", "--dist", "loadfile", *session.posargs)
    env = {
        "OMP_NUM_THREADS": "1",
        # Most of JAX's time here is compiling, which is not what is tested.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    for backend in BACKENDS:
        session.run(
            *pytest, "-m", "not once", env={**env, "KERAS_BACKEND": backend}
        )
    # On the backend that compiles nothing; in their own order, since the files
    # with the most tests, which would go first, are not the longest here.
    session.run(
        *pytest,
        "--no-loadscope-reorder",
        "-m",
        "once",
        env={**env, "KERAS_BACKEND": "torch"},
    )


@nox.session
def wheel(session):
    """Installs the wheel beside one backend, and classifies an image there."""
    folder = pathlib.Path(session.create_tmp())
    session.run("pip", "wheel", "--no-deps", "-w", folder, ".")
    (file,) = folder.glob("*.whl")
    session.install(f"{file.resolve()}[jax,images]")
    script = pathlib.Path("tests", "installed.py").resolve()
    session.chdir(folder)
    session.run("python", script, env={"KERAS_BACKEND": "jax"})
