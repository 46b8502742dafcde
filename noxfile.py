"""The checks of this project, each a session; they run in the environment that nox is called from."""

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "fast"]


@nox.session
def fast(session: nox.Session) -> None:
    """Tests that load no model and no framework and take little time; under a minute."""
    marks = ("-m", "not slow and not model", "--ignore=tests/integrations")
    session.run("pytest", "tests", "kdprompt", "-n", "2", "--dist", "worksteal", *marks, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Every test."""
    session.run("pytest", "-n", "2", "--dist", "loadfile", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types."""
    session.run("mypy")


@nox.session
def graph(session: nox.Session) -> None:
    """How the rooms import one another, and the road of select()."""
    session.run("python", "tools/import_graph.py")
    session.run("python", "tools/select_road.py")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site, in the folder site; what is wrong with a page or a docstring is an error."""
    session.run("mkdocs", "build", "--strict")
