"""What can be tried: each file holds one technique, its knobs and what they do to a torch model."""
