//! Which commands are there, and what do they print?
