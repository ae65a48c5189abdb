//! What was said at installation, read once: typed as written, then as meant?
