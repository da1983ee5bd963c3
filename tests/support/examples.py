"""How many examples hypothesis tries."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

#: For long campaigns: every number of examples times this.
FACTOR = int(os.environ.get("HOLDFAST_EXAMPLES", "1"))


def examples(number: int) -> settings:
    """Settings for a property: so many examples, which may share one test's store."""
    unchecked = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=number * FACTOR, suppress_health_check=unchecked)
