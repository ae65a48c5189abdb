//! Which Services open node ports, who can reach them, and what replaces each?
//!
//! ```text
//! API server, or a dump ─► read ─► Inventory ─► judge ─► Report ─► routes document, patches, firewall rules
//!                                      └─► probe (asks endpoints) ─┘
//! ```
//!
//! Only `read` and `objects` know kube types; everything behind them is pure, but for `probe` and `verify`, which ask over the network.

mod ask;
pub mod document;
pub mod firewall;
mod front;
pub mod guard;
mod hosts;
pub mod inventory;
mod judge;
mod objects;
pub mod patch;
pub mod probe;
pub mod protocol;
pub mod read;
pub mod report;
pub mod verify;

pub use inventory::Inventory;
pub use judge::{Probed, Wishes, judge};
pub use report::Report;
