//! evpn-hook
pub mod config;
pub mod event;
pub mod model;
pub mod plan;
