"""Settings of every test run: the CPU, and property tests that give the same answer each time."""

import os

import hypothesis

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Compilation makes the first example slow, so there is no deadline; CI is derandomized, so that
# a failure there has to do with the change.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")
