//! What a policy says about one file: pins first, then the first rule that fits, then the mode. Pure
//! and without allocation for a file that no glob fits, since a plan asks it about every file of a
//! volume. The words for it are made when somebody wants to read them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firn_tiering::classifier;
use firn_tiering::segment::ParityPlace;
use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::Policy;
use super::amount::Comparison;
use super::settings::{Files, Mode, Owner, Rule, RuleAction, State};
use super::users::{System, Users};
use crate::units::{Period, Size, rounded_duration};

/// Longest glob in bytes.
const MAX_GLOB: usize = 1024;

/// A tier that a file is pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinTier {
    /// Stays in hot, and comes back.
    Hot,
    /// Goes to cold, and stays there.
    Cold,
}

impl PinTier {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
        }
    }
}

/// A user's own word about a file or a directory above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Where to.
    pub tier: PinTier,
    /// The directory that it comes from, as a path from the volume's root; `None` when the file has
    /// it itself.
    pub from: Option<Arc<[u8]>>,
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pinned {}", self.tier.name())?;
        match &self.from {
            Some(dir) => write!(f, " through {}", String::from_utf8_lossy(dir)),
            None => Ok(()),
        }
    }
}

/// What the classifier says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Not accessed within the horizon.
    StaysCold,
    /// Accessed again within the horizon.
    Reused,
    /// It abstains.
    Unsure,
    /// It was not asked, or there is none.
    #[default]
    Unknown,
}

impl From<classifier::Decision> for Verdict {
    fn from(said: classifier::Decision) -> Self {
        match said {
            classifier::Decision::StaysCold => Self::StaysCold,
            classifier::Decision::Reused => Self::Reused,
            classifier::Decision::Unsure => Self::Unsure,
        }
    }
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// Its path from the root of the volume: `/projA/raw/1.fits`.
    pub path: &'a [u8],
    /// Length in bytes.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time since its content was changed.
    pub age: Duration,
    /// Time since it was last accessed.
    pub idle: Duration,
    /// Accesses, the older the less they count.
    pub heat: f32,
    /// Probability of another access within the horizon.
    pub p_reuse: Option<f32>,
    /// What the classifier makes of that.
    pub verdict: Verdict,
    /// The class that its dataset names.
    pub dataset_class: Option<&'a str>,
    /// What its user wants.
    pub pin: Option<&'a Pin>,
    /// Stored bytes, each once wherever it lies.
    pub stored_bytes: u64,
    /// Of these in hot.
    pub hot_bytes: u64,
    /// Of these verified in cold.
    pub cold_bytes: u64,
    /// It has bytes that are not durable yet.
    pub dirty: bool,
}

impl Subject<'_> {
    /// Bytes whose only copy is in hot.
    pub const fn hot_only_bytes(&self) -> u64 {
        let elsewhere = self.stored_bytes.saturating_sub(self.cold_bytes);
        if elsewhere < self.hot_bytes { elsewhere } else { self.hot_bytes }
    }

    /// Bytes that are in cold only.
    pub const fn cold_only_bytes(&self) -> u64 {
        let elsewhere = self.stored_bytes.saturating_sub(self.hot_bytes);
        if elsewhere < self.cold_bytes { elsewhere } else { self.cold_bytes }
    }

    /// Where it lies.
    pub const fn state(&self) -> State {
        match (self.cold_only_bytes() > 0, self.hot_bytes > 0, self.hot_only_bytes() > 0) {
            (true, true, _) => State::Partial,
            (true, false, _) => State::Cold,
            (false, true, false) => State::Dual,
            (false, ..) => State::Resident,
        }
    }
}

/// What is to become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stays in hot whatever happens, and comes back.
    PinHot,
    /// Goes to cold whatever room there is, and stays there.
    PinCold,
    /// Goes to cold whatever room there is.
    Demote,
    /// Comes back as far as there is room.
    Promote,
    /// Is left alone.
    Leave,
    /// May go when room is needed.
    MayGo,
    /// Stays, unless room is needed and nothing else may go.
    Keep,
}

impl Action {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PinHot => "pin-hot",
            Self::PinCold => "pin-cold",
            Self::Demote => "demote",
            Self::Promote => "promote",
            Self::Leave => "none",
            Self::MayGo => "may-go",
            Self::Keep => "keep",
        }
    }
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A pin.
    Pin,
    /// The rule of this index.
    Rule(usize),
    /// The classifier.
    Predicted,
    /// The age, since the classifier abstains or is not there.
    Abstained,
    /// The age.
    Age,
    /// Nobody.
    Manual,
}

/// What is to become of a file, and who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub action: Action,
    /// Who.
    pub reason: Reason,
}

impl Decision {
    /// Index of the rule that decided.
    pub const fn rule(&self) -> Option<usize> {
        match self.reason {
            Reason::Rule(index) => Some(index),
            _ => None,
        }
    }
}

/// Why a policy cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the globs of all classes and rules are too much together: {0}")]
pub struct RulesError(String);

/// A policy made ready for deciding.
#[derive(Clone, Debug)]
pub struct Rules {
    globs: GlobSet,
    classes: Vec<Compiled>,
    rules: Vec<CompiledRule>,
    names: Vec<String>,
    class_names: Vec<String>,
    /// Of each class, where parity lies; by default, where it says nothing.
    parities: Vec<Option<ParityPlace>>,
    parity: ParityPlace,
    mode: Mode,
    fallback_age: Duration,
    horizon: Duration,
    unknown: Vec<String>,
}

/// [`Files`] with what was looked up.
#[derive(Clone, Debug, Default)]
struct Compiled {
    /// Which of all globs; one must fit unless there is none.
    globs: Range<usize>,
    /// With their dots.
    ext: Vec<String>,
    size: Vec<Comparison<Size>>,
    uids: Option<Vec<u32>>,
    gids: Option<Vec<u32>>,
    age: Vec<Comparison<Period>>,
    /// No file fits by itself.
    is_never: bool,
}

#[derive(Clone, Debug)]
struct CompiledRule {
    /// Indices; one must be the file's unless there is none.
    classes: Vec<usize>,
    files: Compiled,
    idle: Vec<Comparison<Period>>,
    p_reuse: Vec<Comparison<f32>>,
    heat: Vec<Comparison<f32>>,
    state: Vec<State>,
    action: RuleAction,
}

/// Reads a glob as classes and rules have them. The error says what is expected.
pub fn glob(text: &str) -> Result<Glob, String> {
    if !text.starts_with('/') && !text.starts_with("**/") {
        return Err(format!(
            "a glob begins with / at the root of the volume, or with **/ for anywhere below it, \
             found `{text}`"
        ));
    }
    if text.len() > MAX_GLOB {
        return Err(format!("a glob has at most {MAX_GLOB} bytes"));
    }
    GlobBuilder::new(text)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| format!("`{text}` is no glob: {}", error.kind()))
}

/// Makes a policy ready piece by piece.
struct Compiler<'a> {
    users: &'a dyn Users,
    globs: GlobSetBuilder,
    count: usize,
    unknown: BTreeSet<String>,
}

impl Compiler<'_> {
    fn files(&mut self, files: &Files) -> Result<Compiled, RulesError> {
        let first = self.count;
        for text in &files.path {
            self.globs.add(glob(text).map_err(RulesError)?);
            self.count += 1;
        }
        let users = self.users;
        Ok(Compiled {
            globs: first..self.count,
            ext: files.ext.iter().map(|ext| format!(".{ext}")).collect(),
            size: files.size.clone(),
            uids: self.ids(&files.owner, "user", &|name| users.uid(name)),
            gids: self.ids(&files.group, "group", &|name| users.gid(name)),
            age: files.age.clone(),
            is_never: false,
        })
    }

    fn ids(
        &mut self,
        owners: &[Owner],
        kind: &str,
        look_up: &dyn Fn(&str) -> Option<u32>,
    ) -> Option<Vec<u32>> {
        let mut ids = Vec::new();
        for owner in owners {
            match owner {
                Owner::Id(id) => ids.push(*id),
                Owner::Name(name) => match look_up(name) {
                    Some(id) => ids.push(id),
                    None => drop(self.unknown.insert(format!("{kind} `{name}`"))),
                },
            }
        }
        ids.sort_unstable();
        (!owners.is_empty()).then_some(ids)
    }

    fn rule(&mut self, rule: &Rule, classes: &[String]) -> Result<CompiledRule, RulesError> {
        let index_of = |name: &String| classes.iter().position(|class| class == name);
        let named: Vec<usize> = rule.class.iter().filter_map(index_of).collect();
        let mut files = self.files(&rule.files)?;
        files.is_never = named.is_empty() && !rule.class.is_empty();
        Ok(CompiledRule {
            classes: named,
            files,
            idle: rule.idle.clone(),
            p_reuse: rule.p_reuse.clone(),
            heat: rule.heat.clone(),
            state: rule.state.clone(),
            action: rule.action,
        })
    }
}

impl Rules {
    /// Makes a policy ready, its users and groups looked up on this machine.
    pub fn compile(policy: &Policy) -> Result<Self, RulesError> {
        Self::compile_with(policy, &System)
    }

    /// As [`Rules::compile`], with `users` to look names up.
    pub fn compile_with(policy: &Policy, users: &dyn Users) -> Result<Self, RulesError> {
        let globs = GlobSetBuilder::new();
        let mut compiler = Compiler { users, globs, count: 0, unknown: BTreeSet::new() };
        let mut classes = Vec::new();
        for class in &policy.classes {
            let is_never = class.files.is_all();
            classes.push(Compiled { is_never, ..compiler.files(&class.files)? });
        }
        let class_names: Vec<String> = policy.classes.iter().map(|c| c.name.clone()).collect();
        let mut rules = Vec::new();
        for rule in &policy.rules {
            rules.push(compiler.rule(rule, &class_names)?);
        }
        let Compiler { globs, unknown, .. } = compiler;
        Ok(Self {
            globs: globs.build().map_err(|error| RulesError(error.kind().to_string()))?,
            classes,
            rules,
            names: policy.rules.iter().enumerate().map(|(i, rule)| name_of(i, rule)).collect(),
            class_names,
            parities: policy.classes.iter().map(|class| class.parity).collect(),
            parity: policy.defaults.parity,
            mode: policy.defaults.mode,
            fallback_age: policy.defaults.fallback_age.0,
            horizon: policy.defaults.horizon.0,
            unknown: unknown.into_iter().collect(),
        })
    }

    /// Users and groups that are named and not known here: what asks for them fits no file.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// What a rule is called: `rule 3 (old raw data)`.
    pub fn rule_name(&self, index: usize) -> &str {
        self.names.get(index).map_or("a rule", String::as_str)
    }

    /// Whether there is a class of this name.
    pub fn has_class(&self, name: &str) -> bool {
        self.class_names.iter().any(|class| class == name)
    }

    /// The class of a file.
    pub fn class_of(&self, subject: &Subject<'_>) -> Option<&str> {
        let index = self.class_index(&Looked::new(self, subject))?;
        self.class_names.get(index).map(String::as_str)
    }

    /// Where the parity of what is written to any file lies; `None` where that depends on its class.
    pub fn parity_of_all(&self) -> Option<ParityPlace> {
        let differs = self.parities.iter().flatten().any(|place| *place != self.parity);
        (!differs).then_some(self.parity)
    }

    /// Where the parity of what is written to a file lies.
    pub fn parity_of(&self, subject: &Subject<'_>) -> ParityPlace {
        let index = self.class_index(&Looked::new(self, subject));
        let own = index.and_then(|index| self.parities.get(index).copied().flatten());
        own.unwrap_or(self.parity)
    }

    /// Whether there is any rule.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Whether some rule asks where a file lies.
    pub fn asks_for_state(&self) -> bool {
        self.rules.iter().any(|rule| !rule.state.is_empty())
    }

    /// Whether some rule keeps files in hot.
    pub fn keeps_some(&self) -> bool {
        self.rules.iter().any(|rule| rule.action == RuleAction::PinHot)
    }

    /// What is to become of a file. Whether it can move now is not asked here.
    pub fn decide(&self, subject: &Subject<'_>) -> Decision {
        if let Some(pin) = subject.pin {
            let action = match pin.tier {
                PinTier::Hot => Action::PinHot,
                PinTier::Cold => Action::PinCold,
            };
            return Decision { action, reason: Reason::Pin };
        }
        let looked = Looked::new(self, subject);
        // Looked for by the first rule that asks.
        let mut class = None;
        let mut class = || *class.get_or_insert_with(|| self.class_index(&looked));
        let fitting = self.rules.iter().position(|rule| rule.fits(&looked, &mut class));
        if let Some(index) = fitting {
            let action = match self.rules[index].action {
                RuleAction::PinHot => Action::PinHot,
                RuleAction::PinCold => Action::PinCold,
                RuleAction::Demote => Action::Demote,
                RuleAction::Promote => Action::Promote,
                RuleAction::None => Action::Leave,
            };
            return Decision { action, reason: Reason::Rule(index) };
        }
        self.by_mode(subject)
    }

    fn by_mode(&self, subject: &Subject<'_>) -> Decision {
        let by_age = if subject.idle > self.fallback_age { Action::MayGo } else { Action::Keep };
        let (action, reason) = match (self.mode, subject.verdict) {
            (Mode::Ml, Verdict::StaysCold) => (Action::MayGo, Reason::Predicted),
            (Mode::Ml, Verdict::Reused) => (Action::Keep, Reason::Predicted),
            (Mode::Ml, Verdict::Unsure | Verdict::Unknown) => (by_age, Reason::Abstained),
            (Mode::Age, _) => (by_age, Reason::Age),
            (Mode::Manual, _) => (Action::Leave, Reason::Manual),
        };
        Decision { action, reason }
    }

    fn class_index(&self, looked: &Looked<'_>) -> Option<usize> {
        let by_dataset = looked
            .subject
            .dataset_class
            .and_then(|name| self.class_names.iter().position(|class| class == name));
        by_dataset.or_else(|| self.classes.iter().position(|class| class.fits(looked)))
    }

    /// The reason in words: `rule 2 (raw data)`, `not likely read within 7d (p 0.03)`.
    pub fn why(&self, subject: &Subject<'_>, decision: &Decision) -> String {
        let idle = rounded_duration(subject.idle);
        let than = Period(self.fallback_age);
        let by_age = match decision.action {
            Action::MayGo => format!("idle for {idle}"),
            _ => format!("idle for {idle}, not longer than {than}"),
        };
        match decision.reason {
            Reason::Pin => subject.pin.map_or_else(|| "pinned".to_owned(), ToString::to_string),
            Reason::Rule(index) => self.rule_name(index).to_owned(),
            Reason::Predicted => {
                let not = if decision.action == Action::MayGo { "not " } else { "" };
                let p = subject.p_reuse.map_or_else(String::new, |p| format!(" (p {p:.2})"));
                format!("{not}likely read within {}{p}", Period(self.horizon))
            }
            Reason::Abstained if subject.verdict == Verdict::Unsure => {
                format!("no clear prediction, {by_age}")
            }
            Reason::Abstained | Reason::Age => by_age,
            Reason::Manual => "the mode is manual".to_owned(),
        }
    }
}

/// What a rule is called: `rule 3 (old raw data)`.
pub(super) fn name_of(index: usize, rule: &Rule) -> String {
    let number = index + 1;
    match &rule.name {
        Some(name) => format!("rule {number} ({name})"),
        None => format!("rule {number}"),
    }
}

/// A file, and what was found out about its path.
struct Looked<'a> {
    subject: &'a Subject<'a>,
    /// Indices of the globs that fit, sorted.
    globs: Vec<usize>,
}

impl<'a> Looked<'a> {
    fn new(rules: &Rules, subject: &'a Subject<'a>) -> Self {
        let mut globs = Vec::new();
        if !rules.globs.is_empty() {
            let candidate = Candidate::new(Path::new(OsStr::from_bytes(subject.path)));
            rules.globs.matches_candidate_into(&candidate, &mut globs);
        }
        Self { subject, globs }
    }

    fn any_glob(&self, range: &Range<usize>) -> bool {
        let next = self.globs.partition_point(|index| *index < range.start);
        self.globs.get(next).is_some_and(|index| *index < range.end)
    }

    /// Whether the name ends so, in any case, with something before it.
    fn has_ext(&self, ext: &str) -> bool {
        let path = self.subject.path;
        let Some(stem) = path.len().checked_sub(ext.len()) else { return false };
        stem > 0 && path[stem - 1] != b'/' && path[stem..].eq_ignore_ascii_case(ext.as_bytes())
    }
}

impl Compiled {
    fn fits(&self, looked: &Looked<'_>) -> bool {
        let subject = looked.subject;
        let among = |ids: &Option<Vec<u32>>, id| {
            ids.as_ref().is_none_or(|ids| ids.binary_search(&id).is_ok())
        };
        !self.is_never
            && all(&self.size, &Size(subject.size))
            && all(&self.age, &Period(subject.age))
            && among(&self.uids, subject.uid)
            && among(&self.gids, subject.gid)
            && (self.ext.is_empty() || self.ext.iter().any(|ext| looked.has_ext(ext)))
            && (self.globs.is_empty() || looked.any_glob(&self.globs))
    }
}

impl CompiledRule {
    fn fits(&self, looked: &Looked<'_>, class: &mut impl FnMut() -> Option<usize>) -> bool {
        let subject = looked.subject;
        let p_reuse = subject.p_reuse.unwrap_or(f32::NAN);
        all(&self.idle, &Period(subject.idle))
            && all(&self.p_reuse, &p_reuse)
            && all(&self.heat, &subject.heat)
            && (self.state.is_empty() || self.state.contains(&subject.state()))
            && self.files.fits(looked)
            && (self.classes.is_empty() || class().is_some_and(|own| self.classes.contains(&own)))
    }
}

fn all<T: PartialOrd>(comparisons: &[Comparison<T>], found: &T) -> bool {
    comparisons.iter().all(|comparison| comparison.holds(found))
}

#[cfg(test)]
mod tests;
