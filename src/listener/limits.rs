//! How many connections may there be, by listener, by source and in the whole process?

/// The process-wide limit, held below the limit of file descriptors.
#[derive(Debug)]
pub struct Capacity {}

/// A connection's place under all limits, free again when dropped.
#[derive(Debug)]
pub struct ConnectionGuard {}
