"""See `ppcls.data.preprocess`."""
