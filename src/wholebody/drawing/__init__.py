"""Drawing: a CPU rasteriser that overlays and synthetic pictures share."""
