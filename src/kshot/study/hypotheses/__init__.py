"""Task selection, meta-learning or composition: the battery that tells them apart, part by part."""
