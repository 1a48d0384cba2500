//! The address of a cold tier: one of the schemes that the object store speaks, and never a
//! secret. Whether the store answers is asked elsewhere; this is what can be said by looking.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

/// Why an address was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColdUrlError {
    /// Not a URL at all.
    #[error("not a URL: {0}")]
    Syntax(String),
    /// A scheme nobody here speaks.
    #[error("unknown scheme `{0}`, known are file, s3, gs and az")]
    Scheme(String),
    /// The bucket, container or directory is missing.
    #[error("{0}")]
    Place(&'static str),
    /// User, password, query or fragment, where secrets would stand.
    #[error("holds credentials or a query, which would be stored with the volume")]
    Secret,
}

/// An object store URL without secrets: `file:///dir`, `s3://bucket/prefix`, `gs://...`, `az://...`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ColdUrl(Url);

impl ColdUrl {
    /// The address.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The address, parsed.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for ColdUrl {
    type Err = ColdUrlError;

    fn from_str(text: &str) -> Result<Self, ColdUrlError> {
        let url = Url::parse(text.trim()).map_err(|error| {
            // The parser's message names no part of the input, so it cannot quote a secret.
            ColdUrlError::Syntax(error.to_string())
        })?;
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || url.query().is_some() || url.fragment().is_some() {
            return Err(ColdUrlError::Secret);
        }
        match url.scheme() {
            "file" if url.host_str().is_some_and(|host| !host.is_empty()) => {
                Err(ColdUrlError::Place("file URLs are local: write file:///dir, three slashes"))
            }
            "file" if url.path() == "/" => {
                Err(ColdUrlError::Place("file:/// is the root of this machine: name a directory"))
            }
            "file" => Ok(Self(url)),
            "s3" | "gs" | "az" if url.host_str().is_none_or(str::is_empty) => {
                Err(ColdUrlError::Place("the bucket or container is missing"))
            }
            "s3" | "gs" | "az" => Ok(Self(url)),
            other => Err(ColdUrlError::Scheme(other.to_owned())),
        }
    }
}

impl fmt::Display for ColdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for ColdUrl {
    type Error = ColdUrlError;

    fn try_from(text: String) -> Result<Self, ColdUrlError> {
        text.parse()
    }
}

impl From<ColdUrl> for String {
    fn from(url: ColdUrl) -> Self {
        url.to_string()
    }
}
