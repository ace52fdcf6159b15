//! Reading config.toml.
use super::*;
/// Why config.toml was not taken.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);
/// Reads the file.
pub fn load(_path: &std::path::Path, _must_exist: bool) -> Result<Config, ConfigError> { Ok(Config::default()) }
/// Parses the text.
pub fn parse(_text: &str, _path: &str) -> Result<Config, ConfigError> { Ok(Config::default()) }
