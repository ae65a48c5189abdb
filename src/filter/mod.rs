//! Which policies act on a request and its response, and in which order?
