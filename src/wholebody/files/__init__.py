"""Everything read or written: pictures, pickles, archives, tables, and files that appear whole or not at all."""
