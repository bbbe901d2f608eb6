//! Tests of the pure parts by tables and properties, and of whole devices over sockets.

mod coalesce;
mod device;
mod garbage;
mod inner;
mod made;
mod roundtrip;
mod segment;
mod sums;
mod uapi;
