//! Golden files: what comes out, word for word. `UPDATE=1` in the environment writes them anew; read the difference before you commit it.

use std::path::Path;

/// What came out, and of what, where the file has it otherwise.
pub fn differs(file: &Path, got: &str) -> Option<String> {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, got).expect("writable");
        return None;
    }
    let is_so = std::fs::read_to_string(file).is_ok_and(|wanted| wanted == got);
    (!is_so).then(|| format!("--- {}\n{got}", file.display()))
}
