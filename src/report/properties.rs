//! What `firn dataset get` says. The JSON object is [`Listing`]; its fields are only ever added to.

use serde::{Deserialize, Serialize};

use super::escape::escaped;
use super::table;
use crate::units::rounded_bytes;
use crate::utc;

/// One property of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PropertyLine {
    /// Path of the dataset's root directory.
    pub dataset: String,
    /// The property's name.
    pub property: String,
    /// Its value, as `firn dataset set` takes it; `-` when unknown.
    pub value: String,
    /// `local`, `default`, `inherited from <dataset>`, or `-` for what cannot be set.
    pub source: String,
    /// The value in bytes, if it is a number of them.
    pub bytes: Option<u64>,
}

/// Several properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// By dataset, in the order asked for.
    pub properties: Vec<PropertyLine>,
}

impl PropertyLine {
    /// The kind of its source, as it is asked for: `inherited` from wherever.
    pub fn source_kind(&self) -> &str {
        self.source.split(' ').next().unwrap_or_default()
    }

    fn readable(&self) -> String {
        match self.bytes {
            Some(bytes) if self.source == "-" => rounded_bytes(bytes),
            _ if self.property == "creation" => utc::for_table(&self.value),
            _ => self.value.clone(),
        }
    }

    fn exact(&self) -> String {
        self.bytes.map_or_else(|| self.value.clone(), |bytes| bytes.to_string())
    }
}

impl Listing {
    /// For people.
    pub fn text(&self) -> String {
        let mut rows = table::table(&["name", "property", "value", "source"]);
        for line in &self.properties {
            rows.add_row([
                escaped(&line.dataset),
                line.property.clone(),
                escaped(&line.readable()),
                escaped(&line.source),
            ]);
        }
        table::text(&rows)
    }

    /// For scripts: a line each, fields separated by tabs, bytes as plain numbers.
    pub fn script(&self) -> String {
        let fields = |line: &PropertyLine| {
            [&line.dataset, &line.property, &line.exact(), &line.source]
                .map(|field| escaped(field))
                .join("\t")
        };
        self.properties.iter().map(fields).collect::<Vec<_>>().join("\n")
    }
}
