"""Template tags of onetrip, for Django to find."""
