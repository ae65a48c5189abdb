//! What can an operator see and change while it runs?
