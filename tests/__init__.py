"""A package, so that `tests` here comes before what other distributions install under that name."""
