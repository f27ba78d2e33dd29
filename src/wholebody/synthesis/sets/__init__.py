"""Sets on disk, and crops made of them."""
