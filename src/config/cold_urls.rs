//! The addresses of a cold tier: one URL, or a list of them, over which objects are spread.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ColdUrl;

/// One URL or several, none twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct ColdUrls(Vec<ColdUrl>);

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a URL or a list of URLs is expected")]
enum Form {
    One(String),
    Several(Vec<String>),
}

impl ColdUrls {
    /// Checks a list; the error is for people.
    pub fn new(urls: Vec<ColdUrl>) -> Result<Self, String> {
        if urls.is_empty() {
            return Err("the list of cold URLs is empty".to_owned());
        }
        if let Some(twice) =
            urls.iter().enumerate().find_map(|(at, url)| urls[..at].contains(url).then_some(url))
        {
            return Err(format!("{twice} is named twice: each store must be another one"));
        }
        Ok(Self(urls))
    }

    /// Whether objects are spread.
    pub fn are_several(&self) -> bool {
        self.0.len() > 1
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The first.
    pub fn first(&self) -> &ColdUrl {
        &self.0[0]
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &ColdUrl> {
        self.0.iter()
    }

    /// The one in this place, for people; empty behind the last.
    pub fn name(&self, at: usize) -> String {
        self.0.get(at).map(ToString::to_string).unwrap_or_default()
    }

    /// As it stands in `firn.toml`.
    pub fn to_toml(&self) -> String {
        let quoted = |url: &ColdUrl| toml::Value::String(url.to_string()).to_string();
        match self.are_several() {
            false => quoted(self.first()),
            true => format!("[{}]", self.iter().map(quoted).collect::<Vec<_>>().join(", ")),
        }
    }
}

impl From<ColdUrl> for ColdUrls {
    fn from(url: ColdUrl) -> Self {
        Self(vec![url])
    }
}

impl std::str::FromStr for ColdUrls {
    type Err = super::cold_url::ColdUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<ColdUrl>().map(Self::from)
    }
}

impl TryFrom<Form> for ColdUrls {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        let parse = |text: String| text.parse::<ColdUrl>().map_err(|error| error.to_string());
        match form {
            Form::One(text) => Ok(Self(vec![parse(text)?])),
            Form::Several(texts) => {
                Self::new(texts.into_iter().map(parse).collect::<Result<_, _>>()?)
            }
        }
    }
}

impl From<ColdUrls> for Form {
    fn from(urls: ColdUrls) -> Self {
        match urls.are_several() {
            false => Self::One(urls.first().to_string()),
            true => Self::Several(urls.iter().map(ToString::to_string).collect()),
        }
    }
}

impl fmt::Display for ColdUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for url in self.iter() {
            write!(f, "{separator}{url}")?;
            separator = ", ";
        }
        Ok(())
    }
}
