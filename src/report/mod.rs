//! Read and tell: what is printed for people and for programs. Nothing here changes anything.

pub mod doctor;
pub mod explain;
mod settled;
pub mod status;

use crate::plan::Plan;
use std::io::Write;

/// A plan as the commands that a person would type.
pub fn plan(plan: &Plan) {
    let mut out = std::io::stdout().lock();
    if plan.is_empty() {
        let _ = writeln!(out, "nothing to do");
    }
    let _ = out.write_all(crate::plan::shown(plan).as_bytes());
}
