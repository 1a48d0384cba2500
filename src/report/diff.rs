//! What `firn snapshot diff` says: a line for each change, as zfs-diff(8) has them. The JSON object
//! is [`Listing`]; its fields are only ever added to.

use serde::{Deserialize, Serialize};

use super::escape::escaped;

/// What happened to a file, or to one of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// It is new.
    #[serde(rename = "+")]
    Added,
    /// It is gone.
    #[serde(rename = "-")]
    Removed,
    /// It is not what it was.
    #[serde(rename = "M")]
    Modified,
    /// It has another name.
    #[serde(rename = "R")]
    Renamed,
}

impl What {
    fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Removed => '-',
            Self::Modified => 'M',
            Self::Renamed => 'R',
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `+`, `-`, `M` or `R`.
    pub change: What,
    /// `file`, `directory`, `symlink`, ...
    pub kind: String,
    /// Where it is, or was before it was removed or renamed.
    pub path: String,
    /// Where it is after it was renamed.
    pub new_path: Option<String>,
}

/// All changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// In the order of the table.
    pub changes: Vec<Change>,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// With a character for the type, as `ls -F` has them.
    pub types: bool,
    /// For scripts: without an arrow between two names.
    pub script: bool,
}

impl Change {
    /// One line, without its end.
    pub fn text(&self, form: Form) -> String {
        let mut line = self.change.sign().to_string();
        if form.types {
            line.push('\t');
            line.push(type_sign(&self.kind));
        }
        line.push('\t');
        line.push_str(&escaped(&self.path));
        if let Some(new) = &self.new_path {
            line.push_str(if form.script { "\t" } else { " -> " });
            line.push_str(&escaped(new));
        }
        line
    }
}

/// The signs of zfs-diff(8).
fn type_sign(kind: &str) -> char {
    match kind {
        "directory" => '/',
        "symlink" => '@',
        "fifo" => '|',
        "socket" => '=',
        "char-device" => 'C',
        "block-device" => 'B',
        _ => 'F',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed() -> Change {
        Change {
            change: What::Renamed,
            kind: "directory".to_owned(),
            path: "/m/old\nname".to_owned(),
            new_path: Some("/m/new name".to_owned()),
        }
    }

    #[test]
    fn a_rename_shows_both_names_on_one_line() {
        assert_eq!(renamed().text(Form::default()), "R\t/m/old\\0012name -> /m/new name");
    }

    #[test]
    fn scripts_get_fields() {
        let form = Form { types: true, script: true };
        assert_eq!(renamed().text(form), "R\t/\t/m/old\\0012name\t/m/new name");
    }

    #[test]
    fn json_has_the_signs_of_the_table() {
        let json = serde_json::to_value(renamed()).expect("no map keys");
        assert_eq!((&json["change"], &json["kind"]), (&"R".into(), &"directory".into()));
    }
}
