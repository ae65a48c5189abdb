//! Where do fragments come from, and how do several become one model?
