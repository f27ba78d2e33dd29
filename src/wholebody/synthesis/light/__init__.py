"""Light, surroundings and shadows."""
