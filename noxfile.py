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

nox.options.sessions = ("lint", "sizes", "tests", "wheel")


@nox.session
def lint(session):
    """Checks style, format and the annotations of the public API."""
    session.install("ruff==0.17.5", "mypy==2.4.1")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(venv_backend="none")
def sizes(session):
    """Prints the lines and files of each part against their bounds."""
    session.run("python", "tests/support/sizes.py")


def install(session):
    """Installs the package with all that its tests use."""
    session.install(TORCH)
    session.install("-e", ".[tensorflow,jax,torch,train,examples,test]")
    session.install("--no-deps", TIMM)


def run_tests(session, marks, backend):
    """Runs the tests with these marks on a backend."""
    session.run(
        "pytest",
        # Two files at a time, each with a core of its own; in their own order,
        # since the files with the most tests are not the longest here.
        *("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"),
        *("-m", marks),
        *session.posargs,
        env={
            "KERAS_BACKEND": backend,
            "OMP_NUM_THREADS": "1",
            # Most of JAX's time here is compiling, which is not what is tested.
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
    )


@nox.session
def tests(session):
    """Runs the tests marked `backends` on each backend, the others on one.

    Arguments after `--` go to pytest: `nox -s tests -- tests/layers`.
    """
    install(session)
    for backend in BACKENDS:
        run_tests(session, "backends and not nightly", backend)
    # On the backend that compiles nothing.
    run_tests(session, "not backends and not nightly", "torch")


@nox.session
def nightly(session):
    """Runs all tests on all backends: before a release."""
    install(session)
    for backend in BACKENDS:
        run_tests(session, "", backend)


@nox.session
def wheel(session):
    """Installs the wheel beside one backend, and classifies images there."""
    folder = pathlib.Path(session.create_tmp())
    session.run("pip", "wheel", "--no-deps", "-w", folder, ".")
    (file,) = folder.glob("*.whl")
    session.install(f"{file.resolve()}[jax,images]")
    script = pathlib.Path("tests", "installed.py").resolve()
    session.chdir(folder)
    session.run("python", script, env={"KERAS_BACKEND": "jax"})
