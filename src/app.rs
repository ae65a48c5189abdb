//! How are the rooms built, wired, started and stopped?
