//! evpn-hook
pub mod config;
pub mod event;
pub mod input;
pub mod model;
pub mod plan;
