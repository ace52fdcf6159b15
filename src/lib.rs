//! evpn-hook: the last metre of BGP EVPN on a Linux hypervisor.
//!
//! ```text
//! virsh net-start red ──▶ libvirt network hook ─┐
//! virsh start vm1     ──▶ libvirt qemu hook ────┤                                 ┌─▶ kernel: VRF, bridge, VXLAN, FDB, neighbour
//! lxc-start c1        ──▶ LXC hooks ────────────┼─▶ event ─▶ plan (pure) ─▶ apply ┤
//! qm start 100        ──▶ Proxmox' hookscript ──┤                                 │
//! evpn-hook attach …  ──▶ command line ─────────┘                                 └─▶ speaker: FRR's VRF stanzas
//! ```
//!
//! One way, room by room; `tests/rooms.rs` holds who may import whom:
//!
//! - [`model`]: the nouns, newtypes that refuse bad values once. Imports nothing.
//! - [`config`]: what the operator wants. Pure but for reading config.toml.
//! - [`event`]: what happened, and whether it may be refused.
//! - [`input`]: (argv, environment, stdin) → event. Touches nothing else.
//! - [`plan`]: pure. What was observed and what is wanted → steps in order, each with its undo.
//! - [`advice`]: pure. What works badly of what is wanted, each with its mend; one table.
//! - [`kernel`]: the only room that knows netlink: observe, apply one step.
//! - [`guard`]: the only room that knows nftables: what a guest may send on its own port.
//! - [`speaker`]: the only room that knows FRR: render, show, configure.
//! - [`register`]: what we own and want, in /run/evpn-hook.
//! - [`hypervisor`]: what libvirt, LXC and Proxmox VE say runs, asked from outside their hooks.
//! - [`apply`]: walks a plan, times each step, undoes on failure.
//! - [`journal`]: every message a variant.
//! - [`engine`]: one event through the rooms above.
//! - [`agent`]: what comes after the start; sees to it that what the engine set up stays.
//! - [`senses`]: what wakes those who wait for a change: the kernel's events, files' signs.
//! - [`snoop`]: what guests say of their addresses on their own ports.
//! - [`door`]: where users' containers knock: checked, then to the engine.
//! - [`checks`]: what can be wrong with a host: facts, gathered once, and what is found in them.
//! - [`report`]: status (JSON, tree, picture), explain, doctor: read and tell.
//! - [`install`]: the hooks' symlinks.
//! - [`cli`]: what was typed → what is meant.
//! - [`record`], [`tape`]: a call with all that it was told, kept for a bug report; and the same again elsewhere.
//! - [`untrusted`]: every reader of what others wrote, for fuzzers and their corpora.
//! - [`exec`], [`fault`]: another program with a deadline; faults for tests.

#![deny(unsafe_code)] // but for one address, in snoop/packet.rs; Cargo.toml says so of all that is built, tests/rooms.rs holds it
#![warn(missing_docs)]
#![deny(clippy::print_stdout)] // a hook's stdout is libvirt's next domain XML
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod advice;
pub mod agent;
pub mod apply;
pub mod checks;
pub mod cli;
pub mod config;
pub mod door;
pub mod engine;
pub mod event;
pub mod exec;
pub mod fault;
pub mod guard;
pub mod hypervisor;
pub mod input;
pub mod install;
pub mod journal;
pub mod kernel;
pub mod model;
pub mod pace;
pub mod plan;
pub mod record;
pub mod register;
pub mod report;
pub mod senses;
pub mod snoop;
pub mod speaker;
pub mod tape;
pub mod untrusted;
