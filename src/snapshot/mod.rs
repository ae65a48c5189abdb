//! What serves: the compiled, validated, immutable model, and how is a new one published?
