//! How do bytes get in: sockets, accept, PROXY header, TLS handshake, connection?
