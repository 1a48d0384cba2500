//! Where the metrics are served: an address of this machine's loopback, a Unix socket, or, when
//! `0.0.0.0` was written, every interface. Metrics name the volume and its paths and ask for no
//! password, so that reaching further needs a word of its own.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why an address was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricsAddressError {
    /// Neither an address with a port nor an absolute path.
    #[error(
        "`{0}` is neither an address with a port, such as 127.0.0.1:9464, nor an absolute path"
    )]
    Syntax(String),
    /// An address that others reach.
    #[error(
        "`{0}` is not an address of the loopback interface; 0.0.0.0 serves every interface, \
         without a password"
    )]
    Open(SocketAddr),
}

/// Where the metrics are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MetricsAddress {
    /// An address and a port; port 0 is any that is free.
    Tcp(SocketAddr),
    /// A Unix socket at an absolute path.
    Unix(PathBuf),
}

impl FromStr for MetricsAddress {
    type Err = MetricsAddressError;

    fn from_str(text: &str) -> Result<Self, MetricsAddressError> {
        let text = text.trim();
        if text.starts_with('/') && !text.ends_with('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        let address: SocketAddr =
            text.parse().map_err(|_| MetricsAddressError::Syntax(text.to_owned()))?;
        if address.ip().is_loopback() || address.ip().is_unspecified() {
            Ok(Self::Tcp(address))
        } else {
            Err(MetricsAddressError::Open(address))
        }
    }
}

impl TryFrom<String> for MetricsAddress {
    type Error = MetricsAddressError;

    fn try_from(text: String) -> Result<Self, MetricsAddressError> {
        text.parse()
    }
}

impl From<MetricsAddress> for String {
    fn from(address: MetricsAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}
