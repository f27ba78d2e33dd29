"""Tools that come with the sets: from what their makers hand out to what the readers take."""
