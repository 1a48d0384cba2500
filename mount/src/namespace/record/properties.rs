//! The settings of a dataset in the meta space: what was set there, apart from what it inherits.
//!
//! A setting that is not known is an error: whoever went on without it would write where nothing
//! may be written, or elsewhere than was asked.

use std::collections::BTreeMap;

use firn_tiering::encode::Compression;

use super::{Reader, RecordError, put_varint};

const VERSION: u8 = 1;

/// Longest name of a placement class in bytes.
pub const CLASS_MAX: usize = 64;

/// What can be set of a dataset. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Property {
    /// How blocks are compressed that are written from then on.
    Compression = 1,
    /// How many bytes the dataset and all below may take.
    Quota = 2,
    /// Nothing can be changed.
    ReadOnly = 3,
    /// Listings of the root show the way to the snapshots.
    Snapdir = 4,
    /// Reading changes access times.
    AccessTime = 5,
    /// Equal blocks are stored once: reserved.
    Dedup = 6,
    /// The class of the policy that says where blocks lie.
    Tier = 7,
}

/// A property with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// [`Property::Compression`].
    Compression(Compression),
    /// [`Property::Quota`] in bytes, more than 0; `None` is without bound.
    Quota(Option<u64>),
    /// [`Property::ReadOnly`].
    ReadOnly(bool),
    /// [`Property::Snapdir`]: whether it is listed.
    Snapdir(bool),
    /// [`Property::AccessTime`].
    AccessTime(bool),
    /// [`Property::Dedup`], which can only be off.
    NoDedup,
    /// [`Property::Tier`]: the name of a class; `None` is the policy's usual one.
    Tier(Option<String>),
}

impl Property {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Compression,
        Self::Quota,
        Self::ReadOnly,
        Self::Snapdir,
        Self::AccessTime,
        Self::Dedup,
        Self::Tier,
    ];

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compression => "compression",
            Self::Quota => "quota",
            Self::ReadOnly => "readonly",
            Self::Snapdir => "snapdir",
            Self::AccessTime => "atime",
            Self::Dedup => "dedup",
            Self::Tier => "tier",
        }
    }

    /// Whether datasets below take it over. A quota counts what lies below as well, so that
    /// nothing is to be taken over.
    pub const fn is_inherited(self) -> bool {
        !matches!(self, Self::Quota)
    }

    /// Whether a write that is under way must meet either the old or the new value throughout.
    pub const fn concerns_writers(self) -> bool {
        matches!(self, Self::Compression | Self::ReadOnly)
    }

    /// What holds where nothing was set.
    pub const fn default_setting(self) -> Setting {
        match self {
            Self::Compression => Setting::Compression(Compression::AUTO),
            Self::Quota => Setting::Quota(None),
            Self::ReadOnly => Setting::ReadOnly(false),
            Self::Snapdir => Setting::Snapdir(false),
            Self::AccessTime => Setting::AccessTime(false),
            Self::Dedup => Setting::NoDedup,
            Self::Tier => Setting::Tier(None),
        }
    }

    fn from_stored(raw: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|property| *property as u64 == raw)
    }
}

/// Whether a placement class can have this name: 1 to 64 of letters, digits, `-`, `_` and `.`.
pub fn is_class_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=CLASS_MAX).contains(&name.len()) && name.bytes().all(fits)
}

impl Setting {
    /// What it is about.
    pub const fn property(&self) -> Property {
        match self {
            Self::Compression(_) => Property::Compression,
            Self::Quota(_) => Property::Quota,
            Self::ReadOnly(_) => Property::ReadOnly,
            Self::Snapdir(_) => Property::Snapdir,
            Self::AccessTime(_) => Property::AccessTime,
            Self::NoDedup => Property::Dedup,
            Self::Tier(_) => Property::Tier,
        }
    }

    /// Whether it can be stored: what [`Setting::read`] would give back.
    pub fn is_valid(&self) -> bool {
        match self {
            Self::Quota(Some(bytes)) => *bytes > 0,
            Self::Tier(Some(name)) => is_class_name(name),
            _ => true,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.property() as u64);
        match self {
            Self::Compression(compression) => out.push(compression.to_byte()),
            Self::Quota(quota) => put_varint(out, quota.unwrap_or(0)),
            Self::ReadOnly(on) | Self::Snapdir(on) | Self::AccessTime(on) => {
                out.push(u8::from(*on));
            }
            Self::NoDedup => out.push(0),
            Self::Tier(name) => {
                let name = name.as_deref().unwrap_or_default();
                put_varint(out, name.len() as u64);
                out.extend_from_slice(name.as_bytes());
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let property = Property::from_stored(reader.varint()?)
            .ok_or_else(|| reader.error("a property that this version does not know"))?;
        Ok(match property {
            Property::Compression => {
                let found = Compression::from_byte(reader.u8()?);
                Self::Compression(found.ok_or_else(|| reader.error("unknown compression"))?)
            }
            Property::Quota => Self::Quota(Some(reader.varint()?).filter(|bytes| *bytes > 0)),
            Property::ReadOnly => Self::ReadOnly(switch(reader)?),
            Property::Snapdir => Self::Snapdir(switch(reader)?),
            Property::AccessTime => Self::AccessTime(switch(reader)?),
            Property::Dedup => match switch(reader)? {
                false => Self::NoDedup,
                true => return Err(reader.error("dedup, which this version does not know")),
            },
            Property::Tier => Self::Tier(class(reader)?),
        })
    }
}

fn switch(reader: &mut Reader<'_>) -> Result<bool, RecordError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.error("neither on nor off")),
    }
}

fn class(reader: &mut Reader<'_>) -> Result<Option<String>, RecordError> {
    let len = reader.varint()?;
    if len > CLASS_MAX as u64 {
        return Err(reader.error("name of a class too long"));
    }
    if len == 0 {
        return Ok(None);
    }
    let name = std::str::from_utf8(reader.bytes(len as usize)?).ok();
    let name = name.filter(|name| is_class_name(name));
    name.map(|name| Some(name.to_owned())).ok_or_else(|| reader.error("no name of a class"))
}

/// What was set of one dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<Property, Setting>);

impl Settings {
    /// The setting of a property, if it was set.
    pub fn get(&self, property: Property) -> Option<&Setting> {
        self.0.get(&property)
    }

    /// Sets a property.
    pub fn put(&mut self, setting: Setting) {
        self.0.insert(setting.property(), setting);
    }

    /// Leaves a property to what is inherited.
    pub fn remove(&mut self, property: Property) {
        self.0.remove(&property);
    }

    /// Whether nothing was set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, self.0.len() as u64);
        self.0.values().for_each(|setting| setting.put(&mut out));
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("properties", value);
        reader.version(VERSION)?;
        let mut settings = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let setting = Setting::read(&mut reader)?;
            let last = settings.last_key_value().map(|(property, _)| *property);
            if last >= Some(setting.property()) {
                return Err(reader.error("not in order"));
            }
            settings.insert(setting.property(), setting);
        }
        reader.end()?;
        match settings.is_empty() {
            true => Err(reader.error("empty")),
            false => Ok(Self(settings)),
        }
    }
}
