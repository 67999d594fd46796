//! Servers, networks and disks that misbehave: each action still starts once and has one result.

mod clock;
mod database;
mod disk;
mod leader;
mod network;
mod peers;
mod vault;
