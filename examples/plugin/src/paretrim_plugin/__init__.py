"""One part of each kind for paretrim."""
