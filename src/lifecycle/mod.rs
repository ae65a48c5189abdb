//! How does the process hear signals, become ready, drain and end?
