"""Found first by every Python that the tests start: what warns of an end that comes, in code of ours, is an error."""

import warnings

for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
    warnings.filterwarnings("error", category=category, module=r"holdfast\b")
