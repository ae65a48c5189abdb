//! How are HTTP/1 messages read from and written to a connection, on either side?
