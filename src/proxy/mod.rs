//! What happens to a request, from its head to the last byte of the response?
