//! What would become of a request?
