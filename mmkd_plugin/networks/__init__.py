"""Networks: running one as far as somebody reads it, and what the values mean."""
