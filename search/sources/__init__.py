"""Where models and data come from: what `paretrim.models` and `paretrim.data` offer."""
