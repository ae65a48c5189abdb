//! Which certificates and rustls configurations serve which names?
