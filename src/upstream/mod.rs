//! Which endpoints does a cluster have, who is picked, and how is it reached?
