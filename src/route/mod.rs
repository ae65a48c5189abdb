//! Which route does a request match?
