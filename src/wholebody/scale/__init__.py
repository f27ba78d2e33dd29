"""Many pictures on many machines: a manifest split into shards, each done whole or not at all, by any engine."""
