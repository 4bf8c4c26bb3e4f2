"""Whether anything grows while flows are made and dropped by the thousand: ``scripts/soak``."""
