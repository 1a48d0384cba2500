//! Where the owner of an encrypted volume keeps its key: never in the configuration itself.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Who tells the key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySource {
    /// A file; relative to the volume directory unless absolute.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
    /// What a program prints: its name and arguments.
    Command(Vec<String>),
}

impl KeySource {
    /// What `sh` makes of a line.
    pub fn shell(line: String) -> Self {
        Self::Command(vec!["sh".to_owned(), "-c".to_owned(), line])
    }

    /// Why this cannot be, if so.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let is_named = match self {
            Self::File(path) => !path.as_os_str().is_empty(),
            Self::Env(name) => !name.is_empty() && !name.contains(['=', '\0']),
            Self::Command(words) => words.first().is_some_and(|word| !word.is_empty()),
        };
        if is_named { Ok(()) } else { Err("names no file, variable or program") }
    }

    /// With its file as an absolute path, given the volume directory.
    #[must_use]
    pub fn below(&self, volume_dir: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(volume_dir.join(path)),
            other => other.clone(),
        }
    }

    /// As it is written into `firn.toml`.
    pub(super) fn to_toml(&self) -> String {
        let text = |text: &str| toml::Value::String(text.to_owned());
        let (kind, value) = match self {
            Self::File(path) => ("file", text(&path.to_string_lossy())),
            Self::Env(name) => ("env", text(name)),
            Self::Command(words) => {
                ("command", toml::Value::Array(words.iter().map(|word| text(word)).collect()))
            }
        };
        format!("{{ {kind} = {value} }}")
    }
}

/// For people. The arguments of a program may say more than is good.
impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "key file {}", path.display()),
            Self::Env(name) => write!(f, "key in the variable {name}"),
            Self::Command(words) => {
                write!(f, "key command {}", words.first().map_or("", String::as_str))
            }
        }
    }
}
