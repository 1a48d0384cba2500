//! Properties of datasets by their names: what can be set, what is only shown, and how values are
//! written.

use anyhow::anyhow;
use firn_mount::namespace::{
    Dataset, DatasetInfo, DatasetSpace, Property, Setting, Source, Timestamp, is_class_name,
};

use super::naming::{Naming, when};
use super::{TreeAnswers, while_saying};
use crate::control::server::Outbox;
use crate::control::tree::{Assignment, DatasetName};
use crate::failure::Explain;
use crate::report::properties::PropertyLine;
use crate::units::Size;

/// What is shown of a dataset and cannot be set, in the order in which it is shown.
const FACTS: [&str; 10] = [
    "type",
    "creation",
    "used",
    "available",
    "referenced",
    "written",
    "origin",
    "mounted",
    "mountpoint",
    "receive_resume_token",
];

/// What is asked about.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Fact(&'static str),
    Setting(Property),
}

/// A value, with its bytes if it is a number of them.
type Value = (String, Option<u64>);

impl TreeAnswers<'_> {
    pub(super) fn get(
        &self,
        of: Option<&DatasetName>,
        recursive: bool,
        properties: &[String],
        out: &mut Outbox,
    ) -> anyhow::Result<()> {
        let naming = self.naming();
        let datasets = naming.asked(of, recursive)?;
        for line in naming.properties(&datasets, properties)? {
            out.item(&line)?;
        }
        Ok(())
    }

    pub(super) fn set(
        &self,
        dataset: &DatasetName,
        settings: &[Assignment],
        out: &mut Outbox,
    ) -> anyhow::Result<()> {
        let settings = parse_all(settings)?;
        let naming = self.naming();
        let dataset = naming.find(dataset)?;
        if settings.iter().any(|setting| setting.property().concerns_writers()) {
            self.drain(out)?;
        }
        let volume = &self.parts.volume;
        let set = while_saying(out, "setting", || volume.set_properties(dataset, &settings))?;
        self.forget(&set.map_err(|error| naming.explain(error))?)
    }

    pub(super) fn inherit(
        &self,
        dataset: &DatasetName,
        property: &str,
        recursive: bool,
        out: &mut Outbox,
    ) -> anyhow::Result<()> {
        let property = settable(property)?;
        let naming = self.naming();
        let datasets = naming.with_below(naming.find(dataset)?, recursive);
        if property.concerns_writers() {
            self.drain(out)?;
        }
        let volume = &self.parts.volume;
        let inherit = || volume.inherit_property(&datasets, property);
        let done = while_saying(out, "setting", inherit)?;
        self.forget(&done.map_err(|error| naming.explain(error))?)
    }
}

impl Naming<'_> {
    /// Properties of the dataset at a path, in a volume that is not mounted.
    pub fn properties_at(
        &self,
        path: &[u8],
        recursive: bool,
        properties: &[String],
    ) -> anyhow::Result<Vec<PropertyLine>> {
        self.properties(&self.with_below(self.at(path)?, recursive), properties)
    }

    fn properties(
        &self,
        datasets: &[Dataset],
        properties: &[String],
    ) -> anyhow::Result<Vec<PropertyLine>> {
        let asked = asked(properties)?;
        let mut lines = Vec::new();
        for &dataset in datasets {
            let Some(info) = self.info(dataset) else { continue };
            for &asked in &asked {
                lines.push(self.property(info, asked)?);
            }
        }
        Ok(lines)
    }

    fn property(&self, info: &DatasetInfo, asked: Asked) -> anyhow::Result<PropertyLine> {
        let explain = |error| self.explain(error);
        let (name, value, source) = match asked {
            Asked::Fact(name) => (name, self.fact(info, name)?, "-".to_owned()),
            Asked::Setting(property) => {
                let found = self.names.setting(info.dataset, property).map_err(explain)?;
                (property.name(), Some(shown(&found.0)), self.source(found.1))
            }
        };
        let (value, bytes) = value.unwrap_or_else(|| ("-".to_owned(), None));
        let dataset = self.path(&info.path);
        Ok(PropertyLine { dataset, property: name.to_owned(), value, source, bytes })
    }

    fn source(&self, source: Source) -> String {
        match source {
            Source::Default => "default".to_owned(),
            Source::Local => "local".to_owned(),
            Source::Inherited(from) => format!("inherited from {}", self.name(from)),
        }
    }

    fn space(&self, info: &DatasetInfo) -> anyhow::Result<DatasetSpace> {
        self.names.dataset_space(info.dataset).map_err(|error| self.explain(error))
    }

    /// What is known of a dataset; `None` for what is not.
    fn fact(&self, info: &DatasetInfo, name: &str) -> anyhow::Result<Option<Value>> {
        let text = |text: &str| Some((text.to_owned(), None));
        Ok(match name {
            "type" => text("filesystem"),
            "creation" if info.created != Timestamp::default() => text(&when(info.created)),
            "origin" => info.origin.as_ref().and_then(|(of, name)| text(&self.snapshot(*of, name))),
            "mounted" => text(if self.is_mounted() { "yes" } else { "no" }),
            "mountpoint" if self.is_mounted() => text(&self.path(&info.path)),
            "used" => Some(size(self.space(info)?.used)),
            "available" => self.available(info).map(size),
            "receive_resume_token" => self.resume_token(info.dataset).map(|token| (token, None)),
            // What it shows is being replaced while it is rolled back.
            "referenced" if info.root.is_some() => Some(size(self.space(info)?.referenced.bytes)),
            "written" if info.root.is_some() => Some(size(self.space(info)?.written)),
            _ => None,
        })
    }
}

fn size(bytes: u64) -> Value {
    (Size(bytes).to_string(), Some(bytes))
}

/// The properties of these names in the order given; without any, or for `all`, all.
fn asked(names: &[String]) -> anyhow::Result<Vec<Asked>> {
    if names.is_empty() || names.iter().any(|name| name == "all") {
        let settings = Property::ALL.into_iter().map(Asked::Setting);
        return Ok(FACTS.into_iter().map(Asked::Fact).chain(settings).collect());
    }
    let find = |name: &String| match FACTS.into_iter().find(|fact| fact == name) {
        Some(fact) => Ok(Asked::Fact(fact)),
        None => find(name).map(Asked::Setting),
    };
    names.iter().map(find).collect()
}

fn find(name: &str) -> anyhow::Result<Property> {
    let settable = Property::ALL.map(Property::name);
    let found = Property::ALL.into_iter().find(|property| property.name() == name);
    found
        .ok_or_else(|| anyhow!("there is no property {name}"))
        .hint(format!("there are {}; and, only shown, {}", settable.join(", "), FACTS.join(", ")))
        .wrong_usage()
}

fn settable(name: &str) -> anyhow::Result<Property> {
    if FACTS.contains(&name) {
        let settable = Property::ALL.map(Property::name).join(", ");
        return Err(anyhow!("{name} is shown, and cannot be set"))
            .hint(format!("what can be set is {settable}"))
            .wrong_usage();
    }
    find(name)
}

/// Settings as typed. None may name a property twice.
pub(super) fn parse_all(settings: &[Assignment]) -> anyhow::Result<Vec<Setting>> {
    let mut parsed: Vec<Setting> = Vec::new();
    for assignment in settings {
        let setting = parse(assignment)?;
        if parsed.iter().any(|other| other.property() == setting.property()) {
            return Err(anyhow!("{} is given twice", assignment.property)).wrong_usage();
        }
        parsed.push(setting);
    }
    Ok(parsed)
}

fn parse(assignment: &Assignment) -> anyhow::Result<Setting> {
    let Assignment { property, value } = assignment;
    let property = settable(property)?;
    read(property, value)
        .ok_or_else(|| anyhow!("{} cannot be `{value}`", property.name()))
        .hint(format!("it is {}", expected(property)))
        .wrong_usage()
}

fn read(property: Property, value: &str) -> Option<Setting> {
    let switch = |on: &str, off: &str| (value == on || value == off).then_some(value == on);
    Some(match property {
        Property::Compression => Setting::Compression(value.parse().ok()?),
        Property::Quota if value == "none" => Setting::Quota(None),
        Property::Quota => {
            let size: Size = value.parse().ok()?;
            Setting::Quota(Some(size.0).filter(|bytes| *bytes > 0))
        }
        Property::ReadOnly => Setting::ReadOnly(switch("on", "off")?),
        Property::Snapdir => Setting::Snapdir(switch("visible", "hidden")?),
        Property::AccessTime => Setting::AccessTime(switch("on", "off")?),
        Property::Dedup => (value == "off").then_some(Setting::NoDedup)?,
        Property::Tier if value == "none" => Setting::Tier(None),
        Property::Tier => Setting::Tier(is_class_name(value).then(|| Some(value.to_owned()))?),
    })
}

/// What the value of a property can be.
const fn expected(property: Property) -> &'static str {
    match property {
        Property::Compression => "auto, off, lz4, zstd, or zstd-1 to zstd-19",
        Property::Quota => "a size such as 10GiB, or none",
        Property::ReadOnly | Property::AccessTime => "on or off",
        Property::Snapdir => "visible or hidden",
        Property::Dedup => "off: storing equal blocks once is not supported yet",
        Property::Tier => {
            "the name of a class of the policy (up to 64 letters, digits, - _ .), or none"
        }
    }
}

/// A value as people write it.
fn shown(setting: &Setting) -> Value {
    let switch = |on: bool| if on { "on" } else { "off" };
    let text = match setting {
        Setting::Compression(compression) => compression.to_string(),
        Setting::Quota(Some(bytes)) => return size(*bytes),
        Setting::Quota(None) | Setting::Tier(None) => "none".to_owned(),
        Setting::ReadOnly(on) | Setting::AccessTime(on) => switch(*on).to_owned(),
        Setting::Snapdir(listed) => if *listed { "visible" } else { "hidden" }.to_owned(),
        Setting::NoDedup => "off".to_owned(),
        Setting::Tier(Some(class)) => class.clone(),
    };
    (text, None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::failure::{EXIT_USAGE, Failure};

    fn set(property: &str, value: &str) -> anyhow::Result<Setting> {
        parse(&Assignment { property: property.to_owned(), value: value.to_owned() })
    }

    #[test]
    fn what_is_shown_is_what_can_be_typed() {
        for property in Property::ALL {
            let default = property.default_setting();
            assert_eq!(set(property.name(), &shown(&default).0).unwrap(), default);
        }
        for (property, value) in [
            ("compression", "zstd-7"),
            ("quota", "1536MiB"),
            ("readonly", "on"),
            ("snapdir", "visible"),
            ("atime", "on"),
            ("tier", "fast-1"),
        ] {
            let setting = set(property, value).unwrap();
            assert_eq!(setting.property().name(), property);
            assert_eq!(shown(&setting).0, value);
        }
        assert_eq!(set("quota", "0").unwrap(), Setting::Quota(None));
    }

    #[test]
    fn wrong_values_say_what_is_right() {
        for (property, value, expected) in [
            ("compression", "gzip", "it is auto, off, lz4, zstd, or zstd-1 to zstd-19"),
            ("quota", "much", "it is a size such as 10GiB, or none"),
            ("readonly", "yes", "it is on or off"),
            ("snapdir", "on", "it is visible or hidden"),
            ("dedup", "on", "it is off: storing equal blocks once is not supported yet"),
            ("tier", "a/b", "it is the name of a class"),
            ("used", "5", "what can be set is compression, quota"),
            ("colour", "red", "there are compression, quota"),
        ] {
            let failure = Failure::new(&set(property, value).unwrap_err());
            assert_eq!(failure.code, EXIT_USAGE);
            assert!(failure.hint.as_ref().unwrap().starts_with(expected), "{failure}");
        }
        let twice = ["on", "off"]
            .map(|value| Assignment { property: "readonly".to_owned(), value: value.to_owned() });
        let failure = Failure::new(&parse_all(&twice).unwrap_err());
        assert_eq!(
            (failure.message.as_str(), failure.code),
            ("readonly is given twice", EXIT_USAGE)
        );
    }
}
