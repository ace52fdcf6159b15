//! Pure: what was observed and what is wanted → steps in order, each with its undo.
pub mod seen;
mod step;
pub use step::Step;
