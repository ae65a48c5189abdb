//! Which certificates do tests use?
